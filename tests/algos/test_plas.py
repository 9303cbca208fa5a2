import numpy as np
import pytest
import torch

from d3rlpy.algos import BCQ, BEAR, CRR, PLAS, PLASWithPerturbation
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import two_step_dataset
from tests.algos.restate import critics, mlp, numpy_of, quantile_loss
from tests.algos.test_bcq import a_batch, impl_of, moved_by
from tests.algos.test_td3 import QUIET, STATES
from tests.helpers import random_batch

BOTH = [PLAS, PLASWithPerturbation]
both = pytest.mark.parametrize("cls", BOTH)


def restated_action(impl, x, slow=False, latent_range=2.0, flexibility=0.05):
    """Decoder of the latent policy, and the perturbation where there is one."""
    z = latent_range * np.tanh(mlp(impl.targ_policy if slow else impl.policy, x))
    action = np.tanh(mlp(impl.imitator.decoder, np.concatenate([x, z], axis=1)))
    if not hasattr(impl, "perturbation"):
        return action
    change = mlp(impl.targ_perturbation if slow else impl.perturbation, np.concatenate([x, action], axis=1))
    return np.clip(action + flexibility * np.tanh(change), -1, 1)


@both
@pytest.mark.parametrize(("n_critics", "lam"), [(1, 0.75), (2, 0.75), (2, 1.0), (3, 0.2)])
def test_the_critic_loss_mixes_the_smallest_and_the_greatest_slow_critic(cls, n_critics, lam):
    impl, batch = impl_of(cls, n_critics=n_critics, lam=lam), a_batch()
    b = numpy_of(batch)
    x = b["next_observations"]
    q = np.stack(critics(impl.targ_q_funcs, x, restated_action(impl, x, slow=True)))
    target = b["rewards"] + b["discounts"] * (lam * q.min(axis=0) + (1 - lam) * q.max(axis=0))
    expected = sum(((target - q) ** 2).mean() for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@both
def test_the_quantile_loss_mixes_whole_distributions(cls):
    impl, batch = impl_of(cls, q_func_factory=QRQFunctionFactory(n_quantiles=4)), a_batch()
    b = numpy_of(batch)
    x, rows = b["next_observations"], np.arange(32)
    z = np.stack(critics(impl.targ_q_funcs, x, restated_action(impl, x, slow=True)))  # (critics, batch, 4)
    order = z.mean(axis=2).argsort(axis=0)
    target = b["rewards"] + b["discounts"] * (0.75 * z[order[0], rows] + 0.25 * z[order[-1], rows])
    expected = sum(quantile_loss(q, target) for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@both
def test_the_actor_loss_is_the_negative_first_critic_of_the_decoded_action(cls):
    impl, batch = impl_of(cls), a_batch()
    x = batch.observations.numpy()
    expected = -critics(impl.q_funcs, x, restated_action(impl, x))[0].mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@both
@pytest.mark.parametrize("latent_range", [0.5, 2.0, 3.0])
def test_latent_actions_reach_their_range_and_stay_in_it(cls, latent_range, monkeypatch):
    impl, seen = impl_of(cls, max_latent_action=latent_range), []
    decode = impl.imitator.decode
    monkeypatch.setattr(impl.imitator, "decode", lambda x, z: seen.append(z) or decode(x, z))
    with torch.no_grad():
        impl.policy.head.bias.copy_(torch.tensor([100.0, -100.0, 100.0, -100.0]))
        impl.best_action(a_batch().observations)
    expected = latent_range * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(seen[0], expected.expand(32, 4))


def test_the_latent_range_of_the_authors_is_the_default():
    assert PLAS().max_latent_action == PLASWithPerturbation().max_latent_action == 2.0


@both
def test_the_greedy_action_goes_through_the_decoder(cls):
    impl, batch = impl_of(cls), a_batch()
    with torch.no_grad():
        action = impl.best_action(batch.observations)
        assert torch.equal(impl.sample_action(batch.observations), action)
    np.testing.assert_allclose(action, restated_action(impl, batch.observations.numpy()), rtol=1e-9)


@pytest.mark.parametrize("flexibility", [0.0, 0.05, 0.4])
def test_no_action_leaves_what_is_decoded_by_more_than_the_perturbation_range(flexibility):
    impl, x = impl_of(PLASWithPerturbation, action_flexibility=flexibility), a_batch().observations
    with torch.no_grad():
        for module in (impl.perturbation, impl.targ_perturbation):
            module.head.bias.fill_(100.0)
        for action, policy in ((impl.action(x), impl.policy), (impl.targ_action(x), impl.targ_policy)):
            decoded = impl.imitator.decode(x, 2.0 * policy(x))
            torch.testing.assert_close(action, (decoded + flexibility).clamp(max=1.0))


@both
def test_gradients_of_the_actor_loss_pass_through_the_decoder_and_stay_in_the_actor(cls):
    impl = impl_of(cls)
    impl.actor_loss(a_batch()).backward()
    with_gradient = {name.split(".")[0] for name, p in impl.named_parameters() if p.grad is not None}
    assert with_gradient == {"policy", "perturbation"} & {n for n, _ in impl.named_children()}
    assert impl.policy.head.bias.grad.abs().min() > 0


def test_the_gradient_of_the_actor_loss_equals_finite_differences():
    impl, batch = impl_of(PLASWithPerturbation), a_batch()
    x = batch.observations.numpy()
    for bias in (impl.policy.head.bias, impl.perturbation.head.bias):
        gradient = torch.autograd.grad(impl.actor_loss(batch), bias)[0]
        for i in range(len(bias)):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    bias[i] += step
                    values.append(-critics(impl.q_funcs, x, restated_action(impl, x))[0].mean())
                    bias[i] -= step
            assert gradient[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-9)


@both
def test_the_warm_up_trains_the_generative_model_alone_and_afterwards_it_is_frozen(cls):
    impl = impl_of(cls, warmup_steps=3)
    modules = dict(impl.named_children())
    moved = moved_by(impl, modules, [a_batch(seed) for seed in range(3)])
    assert moved == [{"imitator"}] * 3
    frozen = {k: v.clone() for k, v in impl.imitator.state_dict().items()}
    moved = moved_by(impl, modules, [a_batch(seed) for seed in range(3, 8)])
    assert moved == [set(modules) - {"imitator"}] * 5
    assert all(torch.equal(v, frozen[k]) for k, v in impl.imitator.state_dict().items())


@both
def test_the_frozen_generative_model_keeps_its_batch_statistics_and_acts_as_in_evaluation(cls):
    encoder = VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True, dropout_rate=0.5)
    impl = cls(imitator_encoder_factory=encoder, warmup_steps=2, random_state=0).create_impl((3,), 2).impl.train()
    for seed in range(2):
        impl.step(random_batch(32, seed=seed))
    before = {k: v.clone() for k, v in impl.imitator.state_dict().items()}
    impl.step(random_batch(32, seed=2))
    assert all(torch.equal(v, before[k]) for k, v in impl.imitator.state_dict().items())
    batch = random_batch(32, seed=3)
    assert impl.actor_loss(batch).item() == impl.actor_loss(batch).item()  # no dropout in the decoder


@both
def test_metrics_name_the_phase(cls):
    impl = impl_of(cls, warmup_steps=1)
    assert set(impl.step(a_batch())) == {"imitator_loss"}
    assert set(impl.step(a_batch())) == {"critic_loss", "actor_loss"}


@both
def test_actor_and_slow_copies_move_at_updates_that_the_interval_divides(cls):
    impl = impl_of(cls, warmup_steps=0, update_actor_interval=3)
    modules = dict(impl.named_children())
    moved = moved_by(impl, modules, [a_batch(seed) for seed in range(6)])
    assert moved == [{"q_funcs"}, {"q_funcs"}, set(modules) - {"imitator"}] * 2


def test_every_slow_copy_takes_over_a_share_tau():
    impl = impl_of(PLASWithPerturbation, warmup_steps=0, tau=0.25)
    names = ["q_funcs", "policy", "perturbation"]
    before = [[p.clone() for p in getattr(impl, f"targ_{n}").parameters()] for n in names]
    impl.step(a_batch())
    for old, n in zip(before, names, strict=True):
        slow, online = getattr(impl, f"targ_{n}").parameters(), getattr(impl, n).parameters()
        for o, new, p in zip(old, slow, online, strict=True):
            assert torch.allclose(new, 0.75 * o + 0.25 * p, rtol=1e-12)


def test_one_optimizer_steps_latent_policy_and_perturbation():
    impl = impl_of(PLASWithPerturbation)
    expected = {id(p) for m in (impl.policy, impl.perturbation) for p in m.parameters()}
    assert {id(p) for p in impl.actor_optim.params} == expected


@both
def test_copying_the_policy_takes_everything_it_acts_through(cls):
    algo, twin = (cls(random_state=seed).create_impl((3,), 2) for seed in (0, 1))
    x = np.random.default_rng(0).normal(size=(6, 3))
    twin.copy_policy_from(algo)
    assert np.array_equal(twin.predict(x), algo.predict(x))


def test_a_policy_without_the_same_parts_is_not_copied():
    plain, perturbed = (cls(random_state=0).create_impl((3,), 2) for cls in BOTH)
    for goal, source in ((plain, perturbed), (perturbed, plain)):
        with pytest.raises(ValueError, match="PLAS has no perturbation"):
            goal.copy_policy_from(source)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "expected"), [(PLAS, [0.1, -0.1]), (PLASWithPerturbation, [0.15, -0.15])])
def test_the_best_actions_of_the_data_are_found_and_the_perturbation_goes_beyond(cls, expected):
    """The data are uniform within 0.2 of (-0.1, 0.1), the optimum is (0.5, -0.5): they end at (0.1, -0.1)."""
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    encoders = {f"{role}_encoder_factory": encoder for role in ("actor", "critic", "imitator")}
    algo = cls(
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, imitator_learning_rate=3e-3, tau=0.05, beta=0.01,
        gamma=0.9, warmup_steps=400, random_state=0, **encoders,
    )  # fmt: skip
    algo.fit(two_step_dataset(behavior=(-0.1, 0.1)), n_steps=700, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("cls", [BCQ, BEAR, CRR])
def test_a_copied_policy_and_copied_critics_act_as_the_source(cls):
    """The noise of the candidates is part of the policy."""
    source, copy = (cls(random_state=seed).create_impl((3,), 2) for seed in (0, 1))
    copy.copy_policy_from(source)
    copy.copy_q_function_from(source)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert np.array_equal(copy.predict(x), source.predict(x))

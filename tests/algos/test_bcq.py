import numpy as np
import pytest
import torch

from d3rlpy.algos import BCQ
from d3rlpy.models.encoders import PixelEncoderFactory, VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import two_step_dataset
from tests.algos.restate import critics, mlp, numpy_of, quantile_loss
from tests.algos.test_td3 import QUIET, STATES
from tests.helpers import random_batch

N = 5


def impl_of(cls=BCQ, **params):
    """An impl in float64 whose slow copies differ from the online networks."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    encoders = {f"{role}_encoder_factory": encoder for role in ("actor", "critic", "imitator")}
    given = {"n_action_samples": N} if cls is BCQ else {}
    impl = cls(random_state=0, **{**encoders, **given, **params}).create_impl((3,), 2).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in impl.named_parameters():
            if name.startswith("targ_"):
                p += 0.3 * torch.randn(p.shape, generator=generator)
    return impl


def a_batch(seed=0):
    return random_batch(32, seed=seed, dtype=torch.float64)


def moved_by(impl, modules, batches):
    """For each batch, the names of the modules whose parameters its update changes."""
    moved = []
    for batch in batches:
        before = {name: [p.clone() for p in m.parameters()] for name, m in modules.items()}
        impl.step(batch)
        moved.append({n for n, m in modules.items() if not same_bits(before[n], m.parameters())})
    return moved


def same_bits(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.fixture
def noise(monkeypatch):
    """The normal variables that torch is going to draw, many of them beyond 0.5."""
    drawn = torch.from_numpy(np.random.default_rng(0).normal(size=(32, 100, 4)))
    randn = torch.randn

    def draw(*shape, **options):
        return drawn[tuple(slice(n) for n in shape)] if len(shape) == 3 else randn(*shape, **options)

    monkeypatch.setattr(torch, "randn", draw)
    return drawn.numpy()


def proposal(impl, policy, x, z, flexibility=0.05):
    """A decoded latent, perturbed."""
    action = np.tanh(mlp(impl.imitator.decoder, np.concatenate([x, z], axis=1)))
    return np.clip(action + flexibility * np.tanh(mlp(policy, np.concatenate([x, action], axis=1))), -1, 1)


@pytest.mark.parametrize(("n_critics", "lam"), [(1, 0.75), (2, 0.75), (2, 1.0), (3, 0.2)])
def test_the_target_is_the_best_candidate_by_the_mixed_minimum_of_the_slow_critics(n_critics, lam, noise):
    impl, batch = impl_of(n_critics=n_critics, lam=lam), a_batch()
    b = numpy_of(batch)
    following = np.full(32, -np.inf)
    for i in range(N):  # algorithm 1, candidate after candidate
        z = np.clip(noise[:, i], -0.5, 0.5)
        action = proposal(impl, impl.targ_policy, b["next_observations"], z)
        q = np.stack(critics(impl.targ_q_funcs, b["next_observations"], action))[:, :, 0]
        following = np.maximum(following, lam * q.min(axis=0) + (1 - lam) * q.max(axis=0))
    assert impl.target(batch)[:, 0].numpy() == pytest.approx(following, rel=1e-9)
    target = b["rewards"] + b["discounts"] * following[:, None]
    expected = sum(((target - q) ** 2).mean() for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_quantile_loss_mixes_the_quantiles_of_the_best_candidate(noise):
    impl, batch = impl_of(q_func_factory=QRQFunctionFactory(n_quantiles=4)), a_batch()
    b = numpy_of(batch)
    x = b["next_observations"]
    following, best = np.zeros((32, 4)), np.full(32, -np.inf)
    for i in range(N):
        action = proposal(impl, impl.targ_policy, x, np.clip(noise[:, i], -0.5, 0.5))
        z = np.stack(critics(impl.targ_q_funcs, x, action))  # (critics, batch, 4)
        order, rows = z.mean(axis=2).argsort(axis=0), np.arange(32)
        mixed = 0.75 * z[order[0], rows] + 0.25 * z[order[-1], rows]
        better = mixed.mean(axis=1) > best
        best[better], following[better] = mixed.mean(axis=1)[better], mixed[better]
    target = b["rewards"] + b["discounts"] * following
    expected = sum(quantile_loss(q, target) for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_a_mixed_minimum_by_hand(monkeypatch):
    """Values (1, 5) and (2, 3) of two candidates: 0.75 * 1 + 0.25 * 5 = 2 < 0.75 * 2 + 0.25 * 3 = 2.25."""
    impl, batch = impl_of(n_action_samples=2), random_batch(1, dtype=torch.float64)
    each = torch.tensor([[[1.0], [2.0]], [[5.0], [3.0]]], dtype=torch.float64)  # (critics, candidates, 1)
    monkeypatch.setattr("d3rlpy.models.q_functions.ensemble.mlp", lambda *args, **options: each)
    assert impl.target(batch).item() == pytest.approx(2.25)


def test_the_actor_loss_follows_the_first_critic_of_one_perturbed_decoded_action(noise):
    impl, batch = impl_of(), a_batch()
    b = numpy_of(batch)
    action = proposal(impl, impl.policy, b["observations"], np.clip(noise[:, 0], -0.5, 0.5))
    expected = -critics(impl.q_funcs, b["observations"], action)[0].mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_loss_of_the_generative_model_weighs_the_divergence_with_beta(monkeypatch):
    impl, batch = impl_of(beta=0.3), a_batch()
    b = numpy_of(batch)
    drawn = np.random.default_rng(0).normal(size=(32, 4))
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.from_numpy(drawn))
    mean, log_std = np.split(mlp(impl.imitator.encoder, np.concatenate([b["observations"], b["actions"]], 1)), 2, 1)
    z = mean + np.exp(log_std) * drawn
    action = np.tanh(mlp(impl.imitator.decoder, np.concatenate([b["observations"], z], axis=1)))
    divergence = 0.5 * (mean**2 + np.exp(2 * log_std) - 1 - 2 * log_std)
    expected = ((action - b["actions"]) ** 2).mean() + 0.3 * divergence.mean()
    assert impl.imitator_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_only_the_perturbation_receives_a_gradient_from_the_actor_loss():
    impl = impl_of()
    impl.actor_loss(a_batch()).backward()
    with_gradient = {name.split(".")[0] for name, p in impl.named_parameters() if p.grad is not None}
    assert with_gradient == {"policy"}


def test_only_the_critics_receive_a_gradient_from_the_critic_loss():
    impl = impl_of()
    impl.critic_loss(a_batch()).backward()
    assert {name.split(".")[0] for name, p in impl.named_parameters() if p.grad is not None} == {"q_funcs"}


@pytest.mark.parametrize("flexibility", [0.0, 0.05, 0.4])
def test_no_action_leaves_its_proposal_by_more_than_the_perturbation_range(flexibility):
    impl = impl_of(action_flexibility=flexibility)
    with torch.no_grad():
        impl.policy.head.bias.fill_(100.0)  # as far up as it goes
        x, latent = a_batch().observations, impl.noise.expand(32, -1, -1)
        proposed = impl.imitator.decode(x, latent).unflatten(0, (-1, N))
        expected = (proposed + flexibility).clamp(max=1.0)
        torch.testing.assert_close(impl.candidates(x, latent, impl.policy), expected)


def test_the_greedy_action_is_the_candidate_that_the_first_critic_prefers():
    impl, batch = impl_of(), a_batch()
    x = batch.observations.numpy()
    noise = impl.noise[0].numpy()
    assert noise.shape == (N, 4)
    actions = [proposal(impl, impl.policy, x, np.repeat(z[None], 32, axis=0)) for z in noise]
    values = np.stack([critics(impl.q_funcs, x, a)[0][:, 0] for a in actions], axis=1)
    expected = np.stack(actions, axis=1)[np.arange(32), values.argmax(axis=1)]
    with torch.no_grad():
        np.testing.assert_allclose(impl.best_action(batch.observations), expected, rtol=1e-9)
    assert len(set(values.argmax(axis=1))) > 1


def test_sampled_actions_differ_and_the_greedy_one_does_not_depend_on_other_rows():
    algo = BCQ(random_state=0, n_action_samples=N).create_impl((3,), 2)
    x = np.random.default_rng(0).normal(size=(6, 3))
    assert not np.array_equal(algo.sample_action(x), algo.sample_action(x))
    assert algo.predict(x[2:3])[0] == pytest.approx(algo.predict(x)[2], rel=1e-5)


def test_the_latents_of_greedy_actions_are_saved_with_the_model(tmp_path):
    algo, twin = (BCQ(random_state=seed, n_action_samples=N).create_impl((3,), 2) for seed in (0, 1))
    x = np.random.default_rng(0).normal(size=(6, 3))
    assert not np.array_equal(algo.predict(x), twin.predict(x))
    algo.save_model(tmp_path / "model.pt")
    twin.load_model(tmp_path / "model.pt")
    assert np.array_equal(algo.predict(x), twin.predict(x))


def parts(impl):
    return {
        "imitator": impl.imitator,
        "critics": impl.q_funcs,
        "actor": impl.policy,
        "slow critics": impl.targ_q_funcs,
        "slow actor": impl.targ_policy,
    }


def test_everything_but_the_generative_model_waits_for_rl_start_step():
    impl = impl_of(rl_start_step=2)
    moved = moved_by(impl, parts(impl), [a_batch(seed) for seed in range(4)])
    assert moved == [{"imitator"}] * 2 + [set(parts(impl))] * 2


def test_actor_and_slow_copies_move_at_updates_that_the_interval_divides():
    impl = impl_of(update_actor_interval=3)
    moved = moved_by(impl, parts(impl), [a_batch(seed) for seed in range(6)])
    assert moved == [{"imitator", "critics"}, {"imitator", "critics"}, set(parts(impl))] * 2


def test_the_slow_copies_take_over_a_share_tau():
    impl = impl_of(tau=0.25)
    pairs = [(impl.targ_q_funcs, impl.q_funcs), (impl.targ_policy, impl.policy)]
    before = [[p.clone() for p in slow.parameters()] for slow, _ in pairs]
    impl.step(a_batch())
    for old, (slow, online) in zip(before, pairs, strict=True):
        for o, new, p in zip(old, slow.parameters(), online.parameters(), strict=True):
            assert torch.allclose(new, 0.75 * o + 0.25 * p, rtol=1e-12)


def test_proposing_actions_leaves_batch_statistics_of_the_generative_model_alone():
    encoder = VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True)
    impl = BCQ(imitator_encoder_factory=encoder, n_action_samples=N, random_state=0).create_impl((3,), 2).impl.train()
    impl.step(random_batch(32))
    counts = {b.item() for n, b in impl.imitator.named_buffers() if n.endswith("num_batches_tracked")}
    assert counts == {1}  # that of its own loss
    assert all(m.training for m in impl.imitator.modules())


def test_images_of_bytes_are_learned_from():
    encoder = PixelEncoderFactory(filters=((4, 3, 2),), feature_size=8)
    encoders = {f"{role}_encoder_factory": encoder for role in ("actor", "critic", "imitator")}
    impl = BCQ(n_action_samples=N, random_state=0, **encoders).create_impl((1, 9, 9), 2).impl
    batch = random_batch(8, observation_shape=(1, 9, 9))
    batch.observations, batch.next_observations = ((255 * x.abs()).byte() for x in (batch.observations,) * 2)
    impl.step(batch)
    assert impl.sample_action(batch.observations).shape == (8, 2)


@pytest.mark.slow
def test_the_best_candidates_of_the_data_are_found():
    """The data are uniform within 0.2 of (-0.1, 0.1), the optimum is (0.5, -0.5).

    Latents up to half a deviation decode to actions within 0.06 of the mean, the perturbation adds 0.05: together
    (0.01, -0.01).
    """
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    encoders = {f"{role}_encoder_factory": encoder for role in ("actor", "critic", "imitator")}
    algo = BCQ(
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, imitator_learning_rate=3e-3, tau=0.05, beta=0.01,
        gamma=0.9, n_action_samples=10, action_flexibility=0.05, random_state=0, **encoders,
    )  # fmt: skip
    algo.fit(two_step_dataset(behavior=(-0.1, 0.1)), n_steps=400, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx([0.01, -0.01], abs=0.05)

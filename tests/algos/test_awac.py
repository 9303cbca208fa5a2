import numpy as np
import pytest
import torch

from d3rlpy.algos import AWAC, DiscreteAWAC
from d3rlpy.impl import Batch
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import corridor, two_step_dataset
from d3rlpy.testing.mdp import BEST_ACTIONS, RIGHT
from tests.algos.restate import critics, huber, mlp, numpy_of, pick, quantile_loss
from tests.algos.test_td3 import QUIET, STATES, AdamTwin, net
from tests.helpers import random_batch

each = pytest.mark.parametrize("cls", [AWAC, DiscreteAWAC])


def impl_of(cls, **params):
    """An impl in float64 whose networks differ from each other and from their start."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    algo = cls(actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0, **params)
    impl = algo.create_impl((3,), 2).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in (impl.q_funcs, impl.targ_q_funcs, impl.policy):
            for p in module.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator)
    return impl


def a_batch(cls, seed=0):
    return random_batch(32, discrete=cls is DiscreteAWAC, seed=seed, dtype=torch.float64)


@pytest.fixture
def noise(monkeypatch):
    """The normal variables that torch is going to draw, by their shape."""

    def drawn(like):
        return torch.from_numpy(np.random.default_rng(like.dim()).normal(size=tuple(like.shape)))

    monkeypatch.setattr(torch, "randn_like", drawn)
    return lambda *shape: drawn(torch.zeros(*shape)).numpy()


def gaussian(impl, x):
    """Mean and standard deviation; the latter is one number per dimension, its logarithm in [-6, 0]."""
    share = 1 / (1 + np.exp(-impl.policy.std_parameter.detach().numpy()))
    return np.tanh(mlp(impl.policy, x)), np.exp(-6 + 6 * share)


def probabilities(impl, x):
    logits = mlp(impl.policy, x)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_target_is_the_smaller_slow_critic_at_a_drawn_action(n_critics, noise):
    impl, batch = impl_of(AWAC, n_critics=n_critics), a_batch(AWAC)
    b = numpy_of(batch)
    mean, std = gaussian(impl, b["next_observations"])
    action = np.clip(mean + std * noise(32, 2), -1, 1)
    following = np.min(critics(impl.targ_q_funcs, b["next_observations"], action), axis=0)
    target = b["rewards"] + b["discounts"] * following
    expected = sum(((target - q) ** 2).mean() for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_target_of_discrete_actions_is_the_expectation_over_the_policy(n_critics):
    impl, batch = impl_of(DiscreteAWAC, n_critics=n_critics), a_batch(DiscreteAWAC)
    b = numpy_of(batch)
    slow = np.min(critics(impl.targ_q_funcs, b["next_observations"]), axis=0)
    following = (probabilities(impl, b["next_observations"]) * slow).sum(axis=1, keepdims=True)
    target = b["rewards"] + b["discounts"] * following
    expected = sum(
        huber(target - pick(q, b["actions"])[:, None]).mean() for q in critics(impl.q_funcs, b["observations"])
    )
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_target_of_discrete_actions_with_quantiles_is_the_expectation_of_each_quantile():
    impl, batch = impl_of(DiscreteAWAC, q_func_factory=QRQFunctionFactory(n_quantiles=4)), a_batch(DiscreteAWAC)
    b = numpy_of(batch)
    slow = np.stack([q.reshape(32, 2, 4) for q in critics(impl.targ_q_funcs, b["next_observations"])])
    smaller = slow.mean(axis=3).argmin(axis=0)  # (batch, actions)
    slow = np.take_along_axis(slow, smaller[None, :, :, None], axis=0)[0]
    following = (probabilities(impl, b["next_observations"])[:, :, None] * slow).sum(axis=1)
    target = b["rewards"] + b["discounts"] * following
    online = [pick(q.reshape(32, 2, 4), b["actions"]) for q in critics(impl.q_funcs, b["observations"])]
    expected = sum(quantile_loss(q, target) for q in online)
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n_action_samples", "lam"), [(1, 1.0), (3, 0.3)])
def test_the_actor_loss_weighs_log_densities_by_a_softmax_of_advantages(n_action_samples, lam, noise):
    impl, batch = impl_of(AWAC, n_action_samples=n_action_samples, lam=lam), a_batch(AWAC)
    b = numpy_of(batch)
    mean, std = gaussian(impl, b["observations"])
    advantage = np.min(critics(impl.q_funcs, b["observations"], b["actions"]), axis=0)
    drawn = np.clip(mean[:, None] + std * noise(32, n_action_samples, 2), -1, 1)
    for j in range(n_action_samples):
        q = np.min(critics(impl.q_funcs, b["observations"], drawn[:, j]), axis=0)
        advantage = advantage - q / n_action_samples
    density = np.exp(-0.5 * ((b["actions"] - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    expected = -(softmax(advantage / lam) * np.log(density).sum(axis=1, keepdims=True)).sum()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_actor_loss_of_discrete_actions_computes_the_expectation_that_the_advantage_subtracts():
    impl, batch = impl_of(DiscreteAWAC, lam=0.3), a_batch(DiscreteAWAC)
    b = numpy_of(batch)
    probs = probabilities(impl, b["observations"])
    q = np.min(critics(impl.q_funcs, b["observations"]), axis=0)
    advantage = pick(q, b["actions"]) - (probs * q).sum(axis=1)
    expected = -(softmax(advantage / 0.3) * np.log(pick(probs, b["actions"]))).sum()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_weights_by_hand():
    impl = impl_of(AWAC, lam=2.0)
    weight = impl.weight(torch.tensor([[0.0], [2 * np.log(3.0)]], dtype=torch.float64))
    assert weight[:, 0].tolist() == pytest.approx([0.25, 0.75])


@each
def test_the_loss_does_not_grow_with_the_batch(cls, monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    impl, batch = impl_of(cls), a_batch(cls)
    twice = Batch(*(torch.cat([getattr(batch, name)] * 2) for name in batch.__slots__))
    assert impl.actor_loss(twice).item() == pytest.approx(impl.actor_loss(batch).item(), rel=1e-12)
    assert impl.critic_loss(twice).item() == pytest.approx(impl.critic_loss(batch).item(), rel=1e-12)


def test_the_gradient_of_the_actor_loss_holds_the_weights_fixed(monkeypatch):
    """Finite differences of the loss, over the bias of the head, with the weights of the unchanged policy."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    impl, batch = impl_of(AWAC), a_batch(AWAC)
    bias = impl.policy.head.bias
    with torch.no_grad():
        mean, log_std = impl.policy.normal(batch.observations)
        weight = impl.weight(impl.advantage(batch, mean, log_std))
    gradient = torch.autograd.grad(impl.actor_loss(batch), bias)[0]
    for i in range(2):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                bias[i] += step
                values.append(-(weight * impl.policy.log_prob(batch.observations, batch.actions)).sum().item())
                bias[i] -= step
        assert gradient[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@each
def test_each_loss_reaches_its_own_network_only(cls):
    for own, method in (("q_funcs", "critic_loss"), ("policy", "actor_loss")):
        impl = impl_of(cls)
        getattr(impl, method)(a_batch(cls)).backward()
        assert {name.split(".")[0] for name, p in impl.named_parameters() if p.grad is not None} == {own}


def test_the_policy_is_a_gaussian_whose_deviation_lies_between_e_to_minus_6_and_1():
    impl = impl_of(AWAC)
    x = a_batch(AWAC).observations
    assert impl.best_action(x).detach().numpy() == pytest.approx(np.tanh(mlp(impl.policy, x.numpy())), rel=1e-9)
    for p, bound in ((-1e3, -6.0), (1e3, 0.0)):
        with torch.no_grad():
            impl.policy.std_parameter.fill_(p)
        assert impl.policy.normal(x)[1].detach().numpy() == pytest.approx(np.full((32, 2), bound))


@each
def test_the_metrics_and_the_interval_of_the_policy(cls):
    impl = impl_of(cls, update_actor_interval=2)
    assert set(impl.step(a_batch(cls))) == {"critic_loss"}
    metrics = impl.step(a_batch(cls))
    assert set(metrics) == {"critic_loss", "actor_loss"} | ({"mean_std"} if cls is AWAC else set())
    if cls is AWAC:
        assert metrics["mean_std"].item() == pytest.approx(gaussian(impl, np.zeros((1, 3)))[1].mean(), rel=1e-6)


def test_four_updates_of_discrete_awac_equal_algorithm_1_written_out():
    """The critics; the policy with the new critics, and weight decay on the policy only; the slow critics."""
    impl = impl_of(DiscreteAWAC, tau=0.1, lam=0.5)
    names = {"pi": impl.policy, "q0": impl.q_funcs.critics[0], "q1": impl.q_funcs.critics[1]}
    names |= {"q-0": impl.targ_q_funcs.critics[0], "q-1": impl.targ_q_funcs.critics[1]}
    twin = {k: [p.detach().clone().requires_grad_("-" not in k) for p in m.parameters()] for k, m in names.items()}
    critic_adam, actor_adam = AdamTwin(twin["q0"] + twin["q1"], 3e-4), AdamTwin(twin["pi"], 3e-4)
    for k in range(4):
        batch = a_batch(DiscreteAWAC, seed=k)
        impl.step(batch)
        s, a, s2 = batch.observations, batch.actions[:, None], batch.next_observations
        with torch.no_grad():
            slow = torch.minimum(net(twin["q-0"], s2), net(twin["q-1"], s2))
            following = (net(twin["pi"], s2).softmax(dim=1) * slow).sum(dim=1, keepdim=True)
            y = batch.rewards + batch.discounts * following
        error = torch.nn.functional.huber_loss
        critic_adam.step(sum(error(net(twin[f"q{i}"], s).gather(1, a), y) for i in (0, 1)))
        probs = net(twin["pi"], s).softmax(dim=1)
        with torch.no_grad():
            q = torch.minimum(net(twin["q0"], s), net(twin["q1"], s))
            e = ((q.gather(1, a) - (probs * q).sum(dim=1, keepdim=True)) / 0.5).exp()
        # Adam adds the decay to the gradient: it is that of half the decay times the squared weights.
        decay = 0.5e-4 * sum((p**2).sum() for p in twin["pi"])
        actor_adam.step(-(e / e.sum() * probs.gather(1, a).log()).sum() + decay)
        for i in (0, 1):
            for p, online in zip(twin[f"q-{i}"], twin[f"q{i}"], strict=True):
                p.data += 0.1 * (online.data - p.data)
    for key, module in names.items():
        for ours, theirs in zip(module.parameters(), twin[key], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12), key


@each
def test_the_defaults_are_those_of_the_authors(cls):
    algo = cls()
    assert (algo.batch_size, algo.lam, algo.n_critics, algo.tau) == (1024, 1.0, 2, 0.005)
    assert algo.actor_optim_factory.weight_decay == 1e-4
    assert algo.critic_optim_factory.weight_decay == 0.0


@each
@pytest.mark.parametrize(("name", "value"), [("lam", 0.0), ("update_actor_interval", 0)])
def test_values_out_of_bounds_are_named(cls, name, value):
    with pytest.raises(ValueError, match=name):
        cls(**{name: value}).create_impl((3,), 2)


def algo_of(cls, **params):
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    given = {
        "actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "tau": 0.05, "gamma": 0.9, "batch_size": 128,
        "actor_encoder_factory": encoder, "critic_encoder_factory": encoder,
    }  # fmt: skip
    return cls(random_state=0, **{**given, **params})


@pytest.mark.slow
@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_awac_finds_the_actions_of_two_steps(q_func):
    algo = algo_of(AWAC, q_func_factory=q_func, lam=0.03).fit(two_step_dataset(), n_steps=1500, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx(BEST_ACTIONS, abs=0.15)


@pytest.mark.slow
def test_discrete_awac_finds_the_way_through_the_corridor():
    algo = algo_of(DiscreteAWAC, lam=0.1).fit(corridor(), n_steps=1000, **QUIET)
    assert algo.predict(np.eye(4, dtype=np.float32)).tolist() == [RIGHT] * 4

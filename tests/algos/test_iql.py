import numpy as np
import pytest
import torch

from d3rlpy.algos import IQL, DiscreteIQL
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import corridor, two_step_dataset
from d3rlpy.testing.mdp import BEST_ACTIONS, RIGHT
from tests.algos.restate import critics, huber, mlp, numpy_of, pick, quantile_loss
from tests.algos.test_td3 import QUIET, STATES, AdamTwin, net
from tests.helpers import random_batch

each = pytest.mark.parametrize("cls", [IQL, DiscreteIQL])


def impl_of(cls, **params):
    """An impl in float64 whose slow critics and V differ from their start, with advantages of either sign."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    encoders = {f"{role}_encoder_factory": encoder for role in ("actor", "critic", "value")}
    impl = cls(**{"random_state": 0, **encoders, **params}).create_impl((3,), 2).impl.double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in (impl.targ_q_funcs, impl.value_func, impl.policy):
            for p in module.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator)
        batch = a_batch(cls)
        impl.value_func.head.bias += (impl.slow_value(batch) - impl.value_func(batch.observations)).mean()
    return impl


def a_batch(cls, seed=0):
    return random_batch(32, discrete=cls is DiscreteIQL, seed=seed, dtype=torch.float64)


def values_of(ensemble, b, discrete):
    """Expected value of each pair by each critic, ``(critics, batch, 1)``."""
    if discrete:
        return np.stack([pick(q, b["actions"])[:, None] for q in critics(ensemble, b["observations"])])
    return np.stack(critics(ensemble, b["observations"], b["actions"]))


def log_density(impl, b, discrete):
    """Log softmax of the logits, or the density of the normal variable itself, with no term for a squashing."""
    outputs = mlp(impl.policy, b["observations"])
    if discrete:
        outputs = outputs - outputs.max(axis=1, keepdims=True)
        return pick(outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True)), b["actions"])[:, None]
    share = 1 / (1 + np.exp(-impl.policy.std_parameter.detach().numpy()))
    std = np.exp(-5 + 7 * share)
    density = np.exp(-0.5 * ((b["actions"] - np.tanh(outputs)) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    return np.log(density).sum(axis=1, keepdims=True)


@each
@pytest.mark.parametrize("n_critics", [1, 2, 3])
def test_the_value_loss_is_the_expectile_error_against_the_smaller_slow_critic(cls, n_critics):
    impl, batch = impl_of(cls, n_critics=n_critics, expectile=0.8), a_batch(cls)
    b = numpy_of(batch)
    q = values_of(impl.targ_q_funcs, b, cls is DiscreteIQL).min(axis=0)
    u = q - mlp(impl.value_func, b["observations"])
    assert (u > 0).any()
    assert (u < 0).any()
    expected = (np.where(u < 0, 0.2, 0.8) * u**2).mean()
    assert impl.value_loss(batch, impl.slow_value(batch)).item() == pytest.approx(expected, rel=1e-9)


def test_the_value_loss_by_hand():
    impl, batch = impl_of(IQL, expectile=0.75), random_batch(2, dtype=torch.float64)
    with torch.no_grad():
        for p in impl.value_func.parameters():
            p.zero_()
    q = torch.tensor([[2.0], [-4.0]], dtype=torch.float64)
    assert impl.value_loss(batch, q).item() == pytest.approx((0.75 * 4 + 0.25 * 16) / 2)


@each
def test_the_value_is_regressed_on_the_slow_critics_and_not_on_the_online_ones(cls):
    impl, batch = impl_of(cls), a_batch(cls)

    def loss():
        return impl.value_loss(batch, impl.slow_value(batch)).item()

    before = loss()
    with torch.no_grad():
        for p in impl.q_funcs.parameters():
            p += 1.0
    assert loss() == before
    with torch.no_grad():
        for p in impl.targ_q_funcs.parameters():
            p += 1.0
    assert loss() != before


@each
@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_critics_are_regressed_on_the_value_of_the_next_state(cls, n_critics):
    impl, batch = impl_of(cls, n_critics=n_critics), a_batch(cls)
    b = numpy_of(batch)
    target = b["rewards"] + b["discounts"] * mlp(impl.value_func, b["next_observations"])
    error = huber if cls is DiscreteIQL else np.square
    expected = sum(error(target - q).mean() for q in values_of(impl.q_funcs, b, cls is DiscreteIQL))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_quantile_critics_serve_through_their_mean_and_learn_the_scalar_target():
    impl, batch = impl_of(IQL, q_func_factory=QRQFunctionFactory(n_quantiles=4)), a_batch(IQL)
    b = numpy_of(batch)
    q = values_of(impl.targ_q_funcs, b, discrete=False).mean(axis=2).min(axis=0)
    assert impl.slow_value(batch)[:, 0].numpy() == pytest.approx(q, rel=1e-9)
    target = b["rewards"] + b["discounts"] * mlp(impl.value_func, b["next_observations"])
    expected = sum(quantile_loss(q, target) for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@each
def test_the_policy_clones_with_weights_that_are_cut(cls):
    impl, batch = impl_of(cls, weight_temp=2.0, max_weight=1.5), a_batch(cls)
    b = numpy_of(batch)
    q = values_of(impl.targ_q_funcs, b, cls is DiscreteIQL).min(axis=0)
    weight = np.exp(2.0 * (q - mlp(impl.value_func, b["observations"])))
    assert 0 < (weight > 1.5).sum() < 32
    expected = -(np.minimum(weight, 1.5) * log_density(impl, b, cls is DiscreteIQL)).mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@each
def test_the_largest_weight_is_one_hundred_however_large_the_advantage(cls):
    impl, batch = impl_of(cls), a_batch(cls)
    b = numpy_of(batch)
    loss = impl.policy_loss(batch, torch.full((32, 1), 1e6, dtype=torch.float64))
    assert loss.item() == pytest.approx(-100 * log_density(impl, b, cls is DiscreteIQL).mean(), rel=1e-9)


def test_the_policy_is_a_gaussian_around_tanh_whose_deviation_is_one_number_per_dimension():
    impl = impl_of(IQL)
    x = a_batch(IQL).observations
    mean, log_std = impl.policy.normal(x)
    assert mean.detach().numpy() == pytest.approx(np.tanh(mlp(impl.policy, x.numpy())), rel=1e-9)
    assert torch.equal(impl.best_action(x), mean)
    assert torch.equal(log_std, log_std[:1].expand_as(log_std))
    for p, bound in ((-1e3, -5.0), (1e3, 2.0)):
        with torch.no_grad():
            impl.policy.std_parameter.fill_(p)
        assert impl.policy.normal(x)[1][0, 0].item() == pytest.approx(bound)


@each
def test_each_loss_reaches_its_own_network_only(cls):
    losses = {
        "value_func": lambda impl, batch: impl.value_loss(batch, impl.slow_value(batch)),
        "q_funcs": lambda impl, batch: impl.critic_loss(batch),
        "policy": lambda impl, batch: impl.actor_loss(batch),
    }
    for own, loss in losses.items():
        impl = impl_of(cls)
        loss(impl, a_batch(cls)).backward()
        assert {name.split(".")[0] for name, p in impl.named_parameters() if p.grad is not None} == {own}


def test_five_updates_equal_algorithm_1_written_out():
    """V first; Q with the new V; the policy with the new V and the slow critics; then the slow critics move."""
    impl = impl_of(IQL, tau=0.1, expectile=0.8)
    names = {"v": impl.value_func, "q0": impl.q_funcs.critics[0], "q1": impl.q_funcs.critics[1]}
    names |= {"q-0": impl.targ_q_funcs.critics[0], "q-1": impl.targ_q_funcs.critics[1]}
    twin = {k: [p.detach().clone().requires_grad_("-" not in k) for p in m.parameters()] for k, m in names.items()}
    policy = {k: p.detach().clone().requires_grad_() for k, p in impl.policy.named_parameters()}
    layers = [p for k, p in policy.items() if k != "std_parameter"]
    value_adam, critic_adam = AdamTwin(twin["v"], 3e-4), AdamTwin(twin["q0"] + twin["q1"], 3e-4)
    actor_adam = AdamTwin(list(policy.values()), 3e-4)
    for k in range(5):
        batch = a_batch(IQL, seed=k)
        impl.step(batch)
        s, a, s2 = batch.observations, batch.actions, batch.next_observations
        sa = torch.cat([s, a], dim=1)
        with torch.no_grad():
            q = torch.minimum(net(twin["q-0"], sa), net(twin["q-1"], sa))
        u = q - net(twin["v"], s)
        value_adam.step((torch.where(u < 0, 0.2, 0.8) * u**2).mean())
        with torch.no_grad():
            y = batch.rewards + batch.discounts * net(twin["v"], s2)
            weight = (3.0 * (q - net(twin["v"], s))).exp().clamp(max=100.0)
        critic_adam.step(sum(((net(twin[f"q{i}"], sa) - y) ** 2).mean() for i in (0, 1)))
        normal = torch.distributions.Normal(
            torch.tanh(net(layers, s)), (-5 + 7 * torch.sigmoid(policy["std_parameter"])).exp()
        )
        actor_adam.step(-(weight * normal.log_prob(a).sum(dim=1, keepdim=True)).mean())
        for i in (0, 1):
            for p, online in zip(twin[f"q-{i}"], twin[f"q{i}"], strict=True):
                p.data += 0.1 * (online.data - p.data)
    for key, module in names.items():
        for ours, theirs in zip(module.parameters(), twin[key], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12), key
    for key, p in impl.policy.named_parameters():
        assert torch.allclose(p, policy[key], rtol=1e-9, atol=1e-12), key


@each
@pytest.mark.parametrize(("name", "value"), [("expectile", 1.5), ("weight_temp", -1.0), ("max_weight", -1.0)])
def test_values_out_of_bounds_are_named(cls, name, value):
    with pytest.raises(ValueError, match=name):
        cls(**{name: value}).create_impl((3,), 2)


def expectile_of(values, expectile):
    """The root m of ``sum |expectile - 1[x < m]| (x - m)``, by bisection."""
    low, high = values.min(), values.max()
    for _ in range(60):
        m = (low + high) / 2
        u = values - m
        low, high = (m, high) if (np.where(u < 0, 1 - expectile, expectile) * u).sum() > 0 else (low, m)
    return m


def algo_of(cls, **params):
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    given = {
        "actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "tau": 0.05, "gamma": 0.9, "batch_size": 128,
        "actor_encoder_factory": encoder, "critic_encoder_factory": encoder, "value_encoder_factory": encoder,
    }  # fmt: skip
    return cls(random_state=0, **{**given, **params})


@pytest.mark.slow
@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_iql_finds_actions_and_the_expectile_values_of_two_steps(q_func):
    algo = algo_of(IQL, q_func_factory=q_func, expectile=0.9, weight_temp=30.0)
    algo.fit(two_step_dataset(), n_steps=1500, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx(BEST_ACTIONS, abs=0.15)
    actions = np.linspace(-1, 1, 401)
    second = expectile_of(1 - (actions - BEST_ACTIONS[1]) ** 2, 0.9)  # V of the second state
    for action in (-0.5, 0.0, 0.5):
        value = algo.predict_value(STATES, np.full((2, 1), action))
        expected = [-((action - 0.5) ** 2) + 0.9 * second, 1 - (action + 0.5) ** 2]
        assert value == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("expectile", [0.5, 0.95])
def test_discrete_iql_finds_the_expectile_values_of_the_corridor(expectile):
    """The fixed point of Q = r + gamma V(s'), V = the expectile of Q over the two actions of the data."""
    q = np.zeros((4, 2))
    for _ in range(200):
        v = np.array([expectile_of(row, expectile) for row in q])
        q = np.stack([0.9 * v[[0, 0, 1, 2]], np.append(0.9 * v[1:], 1.0)], axis=1)
    algo = algo_of(DiscreteIQL, expectile=expectile, weight_temp=10.0)
    algo.fit(corridor(), n_steps=1500, **QUIET)
    states = np.eye(4, dtype=np.float32)
    for action in (0, 1):
        assert algo.predict_value(states, np.full(4, action)) == pytest.approx(q[:, action], abs=0.05)
    assert algo.predict(states).tolist() == [RIGHT] * 4

import numpy as np
import pytest
import torch

from d3rlpy.algos import TD3, TD3PlusBC
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import two_step_dataset, two_step_value
from d3rlpy.testing.mdp import BEST_ACTIONS
from tests.algos.restate import critics, mlp, numpy_of, quantile_loss
from tests.helpers import random_batch

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
STATES = np.eye(2, dtype=np.float32)


def impl_of(cls, **params):
    """An impl in float64 whose slow copies differ from the online networks."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    algo = cls(actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0, **params)
    impl = algo.create_impl((3,), 2).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in (impl.targ_q_funcs, impl.targ_policy):
            for p in module.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator)
    return impl


def a_batch():
    return random_batch(32, dtype=torch.float64)


@pytest.fixture
def noise(monkeypatch):
    """The noise that torch is going to draw; most of it beyond the clip of 0.5 / 0.2 standard deviations."""
    drawn = torch.from_numpy(np.random.default_rng(0).normal(scale=3.0, size=(32, 2)))
    monkeypatch.setattr(torch, "randn_like", lambda like: drawn)
    return drawn.numpy()


def smoothed_action(impl, b, noise):
    """Algorithm 1, line "a~": the slow policy plus clipped noise, in the range of actions."""
    action = np.tanh(mlp(impl.targ_policy, b["next_observations"]))
    return np.clip(action + np.clip(0.2 * noise, -0.5, 0.5), -1, 1)


@pytest.mark.parametrize("n_critics", [1, 2, 3])
def test_the_critic_loss_is_that_of_the_paper(n_critics, noise):
    impl, batch = impl_of(TD3, n_critics=n_critics), a_batch()
    b = numpy_of(batch)
    following = np.min(critics(impl.targ_q_funcs, b["next_observations"], smoothed_action(impl, b, noise)), axis=0)
    target = b["rewards"] + b["discounts"] * following
    expected = sum(((target - q) ** 2).mean() for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_quantile_critic_loss_takes_the_critic_with_the_smaller_mean(noise):
    impl, batch = impl_of(TD3, q_func_factory=QRQFunctionFactory(n_quantiles=4)), a_batch()
    b = numpy_of(batch)
    slow = np.stack(critics(impl.targ_q_funcs, b["next_observations"], smoothed_action(impl, b, noise)))
    smaller = slow.mean(axis=2).argmin(axis=0)
    target = b["rewards"] + b["discounts"] * slow[smaller, np.arange(32)]
    expected = sum(quantile_loss(q, target) for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_actor_loss_is_the_negative_value_of_the_first_critic():
    impl, batch = impl_of(TD3), a_batch()
    b = numpy_of(batch)
    action = np.tanh(mlp(impl.policy, b["observations"]))
    expected = -critics(impl.q_funcs, b["observations"], action)[0].mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_actor_and_slow_copies_move_at_updates_that_the_interval_divides():
    impl = impl_of(TD3, update_actor_interval=3)
    modules = {
        "critics": impl.q_funcs,
        "actor": impl.policy,
        "slow critics": impl.targ_q_funcs,
        "slow actor": impl.targ_policy,
    }
    moved = {name: [] for name in modules}
    for _ in range(6):
        before = {name: [p.clone() for p in m.parameters()] for name, m in modules.items()}
        impl.step(a_batch())
        for name, m in modules.items():
            moved[name].append(any(not torch.equal(p, q) for p, q in zip(before[name], m.parameters(), strict=True)))
    assert moved["critics"] == [True] * 6
    for name in ("actor", "slow critics", "slow actor"):
        assert moved[name] == [False, False, True, False, False, True]


def test_the_slow_copies_take_over_a_share_tau():
    impl = impl_of(TD3, update_actor_interval=1, tau=0.25)
    before = [p.clone() for p in impl.targ_q_funcs.parameters()]
    impl.step(a_batch())
    for old, new, online in zip(before, impl.targ_q_funcs.parameters(), impl.q_funcs.parameters(), strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * online, rtol=1e-12)


def test_td3_plus_bc_adds_cloning_with_the_weight_of_the_authors_code():
    impl, batch = impl_of(TD3PlusBC, alpha=1.5), a_batch()
    b = numpy_of(batch)
    action = np.tanh(mlp(impl.policy, b["observations"]))
    q = critics(impl.q_funcs, b["observations"], action)[0]
    lam = 1.5 / np.abs(q).mean()
    expected = -lam * q.mean() + ((action - b["actions"]) ** 2).mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_lambda_of_td3_plus_bc_carries_no_gradient():
    """Finite differences of the loss with lambda held fixed must agree with the gradient."""
    impl, batch = impl_of(TD3PlusBC), a_batch()
    bias = impl.policy.head.bias
    with torch.no_grad():
        q = impl.q_funcs(batch.observations, impl.policy(batch.observations))[0]
        lam = impl.hp.alpha / q.abs().mean()

    def loss_with_fixed_lambda():
        action = impl.policy(batch.observations)
        return -lam * impl.q_funcs(batch.observations, action)[0].mean() + ((action - batch.actions) ** 2).mean()

    gradient = torch.autograd.grad(impl.actor_loss(batch), bias)[0]
    for i in range(2):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                bias[i] += step
                values.append(loss_with_fixed_lambda().item())
                bias[i] -= step
        assert gradient[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_the_actor_loss_without_q_is_cloning():
    impl, batch = impl_of(TD3PlusBC, alpha=0.0), a_batch()
    expected = ((impl.policy(batch.observations) - batch.actions) ** 2).mean().item()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-12)


def test_an_actor_step_leaves_no_gradient_on_the_critics():
    impl = impl_of(TD3PlusBC)
    impl.update_actor(a_batch())
    assert all(p.grad is None for p in impl.q_funcs.parameters())


def algo_of(cls, **params):
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    given = {
        "actor_learning_rate": 3e-3,
        "critic_learning_rate": 3e-3,
        "tau": 0.05,
        "gamma": 0.9,
        "batch_size": 128,
    }
    return cls(actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0, **{**given, **params})


@pytest.mark.slow
@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_td3_finds_actions_and_values_of_two_steps(q_func):
    algo = algo_of(TD3, q_func_factory=q_func, target_smoothing_sigma=0.05).fit(
        two_step_dataset(), n_steps=1500, **QUIET
    )
    assert algo.predict(STATES)[:, 0] == pytest.approx(BEST_ACTIONS, abs=0.1)
    for action in (-0.5, 0.0, 0.5):
        value = algo.predict_value(STATES, np.full((2, 1), action))
        assert value == pytest.approx([two_step_value(s, action, 0.9) for s in (0, 1)], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [-0.1, 0.1]), (1000.0, [0.05, -0.05])])
def test_td3_plus_bc_lies_between_the_data_and_the_best_of_the_data(alpha, expected):
    """The behavior is (-0.1, 0.1) +- 0.2, the optimum (0.5, -0.5): cloning gives the former, Q pulls to the latter."""
    data = two_step_dataset(behavior=(-0.1, 0.1))
    algo = algo_of(TD3PlusBC, alpha=alpha, scaler=None).fit(data, n_steps=800, **QUIET)
    actions = algo.predict(STATES)[:, 0]
    if alpha == 0.0:
        assert actions == pytest.approx(expected, abs=0.05)
    else:
        assert actions[0] > expected[0]
        assert actions[1] < expected[1]


def test_width_and_clip_of_the_smoothing_noise_are_the_hyperparameters(noise):
    impl, batch = impl_of(TD3, target_smoothing_sigma=0.7, target_smoothing_clip=0.3), a_batch()
    b = numpy_of(batch)
    action = np.tanh(mlp(impl.targ_policy, b["next_observations"]))
    action = np.clip(action + np.clip(0.7 * noise, -0.3, 0.3), -1, 1)
    expected = np.min(critics(impl.targ_q_funcs, b["next_observations"], action), axis=0)
    assert impl.target(batch).numpy() == pytest.approx(expected, rel=1e-9)


class AdamTwin:
    """Adam by its formulas (Kingma and Ba, 2015, algorithm 1)."""

    def __init__(self, params, lr):
        self.params, self.lr, self.t = params, lr, 0
        self.m, self.v = [[torch.zeros_like(p) for p in params] for _ in range(2)]

    def step(self, loss):
        self.t += 1
        for i, g in enumerate(torch.autograd.grad(loss, self.params)):
            self.m[i] = 0.9 * self.m[i] + 0.1 * g
            self.v[i] = 0.999 * self.v[i] + 0.001 * g**2
            m, v = self.m[i] / (1 - 0.9**self.t), self.v[i] / (1 - 0.999**self.t)
            self.params[i].data -= self.lr * m / (v.sqrt() + 1e-8)


def net(weights, x):
    """A ReLU network from a list of weights and biases."""
    for i in range(0, len(weights), 2):
        x = x @ weights[i].T + weights[i + 1]
        x = x.clamp(min=0) if i < len(weights) - 2 else x
    return x


@pytest.mark.parametrize(("cls", "alpha"), [(TD3, None), (TD3PlusBC, 2.5)])
def test_seven_updates_equal_algorithm_1_written_out(cls, alpha, noise):
    """All four networks, with the order of steps, delay and slow copies, from the paper's pseudo-code."""
    impl = impl_of(cls, update_actor_interval=3, tau=0.1)
    names = {"pi": impl.policy, "pi-": impl.targ_policy}
    names |= {f"q{i}": c for i, c in enumerate(impl.q_funcs)} | {f"q-{i}": c for i, c in enumerate(impl.targ_q_funcs)}
    twin = {k: [p.detach().clone().requires_grad_("-" not in k) for p in m.parameters()] for k, m in names.items()}
    critic_adam, actor_adam = AdamTwin(twin["q0"] + twin["q1"], 3e-4), AdamTwin(twin["pi"], 3e-4)
    noise = torch.from_numpy(noise)
    for k in range(1, 8):
        batch = random_batch(32, seed=k, dtype=torch.float64)
        impl.step(batch)
        s, a, s2 = batch.observations, batch.actions, batch.next_observations
        with torch.no_grad():
            a2 = (torch.tanh(net(twin["pi-"], s2)) + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
            following = torch.minimum(*(net(twin[f"q-{i}"], torch.cat([s2, a2], 1)) for i in (0, 1)))
            y = batch.rewards + batch.discounts * following
        critic_adam.step(sum(((net(twin[f"q{i}"], torch.cat([s, a], 1)) - y) ** 2).mean() for i in (0, 1)))
        if k % 3 == 0:
            action = torch.tanh(net(twin["pi"], s))
            q = net(twin["q0"], torch.cat([s, action], 1))
            cloning = ((action - a) ** 2).mean()
            actor_adam.step(-q.mean() if alpha is None else -alpha / q.abs().mean().detach() * q.mean() + cloning)
            for slow, fast in (("pi-", "pi"), ("q-0", "q0"), ("q-1", "q1")):
                for p, online in zip(twin[slow], twin[fast], strict=True):
                    p.data += 0.1 * (online.data - p.data)
    for key, module in names.items():
        for ours, theirs in zip(module.parameters(), twin[key], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12), key

import numpy as np
import pytest
import torch

from d3rlpy.algos import CRR, DiscreteCRR
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import corridor, two_step_dataset
from d3rlpy.testing.mdp import RIGHT
from tests.algos.restate import critics, huber, mlp, numpy_of, pick, quantile_loss
from tests.algos.test_td3 import QUIET, STATES
from tests.helpers import random_batch

both = pytest.mark.parametrize("cls", [CRR, DiscreteCRR])
advantage_types = pytest.mark.parametrize("advantage_type", ["mean", "max"])


def impl_of(cls, **params):
    """An impl in float64 whose slow copies differ from the online networks."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    algo = cls(actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0, **params)
    impl = algo.create_impl((3,), 2 if cls is CRR else 4).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in (impl.targ_q_funcs, impl.targ_policy, impl.q_funcs):
            for p in module.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator)
    return impl


def batch_for(cls):
    size = {"action_size": 2} if cls is CRR else {"action_size": 4, "discrete": True}
    return random_batch(32, dtype=torch.float64, **size)


@pytest.fixture
def noise(monkeypatch):
    """The normal variables that torch is going to draw for a shape."""

    def numbers(*shape):
        return np.random.default_rng(sum(shape)).normal(size=shape)

    monkeypatch.setattr(torch, "randn_like", lambda like: torch.from_numpy(numbers(*like.shape)))
    return numbers


def normal(policy, x):
    """Mean and standard deviation of the actions."""
    mean, log_std = np.split(mlp(policy, x), 2, axis=1)
    return np.tanh(mean), np.exp(np.clip(log_std, -20, 2))


def log_density(policy, x, a):
    mean, std = normal(policy, x)
    return np.log(np.exp(-0.5 * ((a - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))).sum(axis=1)


def probabilities(policy, x):
    e = np.exp(mlp(policy, x))
    return e / e.sum(axis=1, keepdims=True)


def q_of_drawn(impl, x, noise):
    """Values of the actions that the noise makes, ``(B, n)``, the mean of the critics."""
    mean, std = normal(impl.policy, x)
    drawn = np.clip(mean[:, None] + std[:, None] * noise, -1, 1)
    rows = np.repeat(x, drawn.shape[1], axis=0)
    return drawn, np.mean(critics(impl.q_funcs, rows, drawn.reshape(-1, 2)), axis=0).reshape(len(x), -1)


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_target_values_an_action_drawn_from_the_slow_policy(n_critics, noise):
    impl, batch = impl_of(CRR, n_critics=n_critics), batch_for(CRR)
    b = numpy_of(batch)
    mean, std = normal(impl.targ_policy, b["next_observations"])
    action = np.clip(mean + std * noise(32, 2), -1, 1)
    following = np.min(critics(impl.targ_q_funcs, b["next_observations"], action), axis=0)
    target = b["rewards"] + b["discounts"] * following
    expected = sum(((target - q) ** 2).mean() for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_the_discrete_target_is_the_exact_expectation_over_the_slow_policy(q_func):
    factory = QRQFunctionFactory(n_quantiles=4) if q_func == "qr" else "mean"
    impl, batch = impl_of(DiscreteCRR, q_func_factory=factory), batch_for(DiscreteCRR)
    b = numpy_of(batch)
    slow = critics(impl.targ_q_funcs, b["next_observations"])[0].reshape(32, 4, -1)
    following = (probabilities(impl.targ_policy, b["next_observations"])[..., None] * slow).sum(axis=1)
    target = b["rewards"] + b["discounts"] * following
    online = pick(critics(impl.q_funcs, b["observations"])[0].reshape(32, 4, -1), b["actions"])
    expected = quantile_loss(online, target) if q_func == "qr" else huber(target - online).mean()
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@advantage_types
@pytest.mark.parametrize(("weight_type", "max_weight"), [("exp", 20.0), ("exp", 1.1), ("binary", 20.0)])
def test_the_actor_loss_weighs_the_log_density_of_the_data(advantage_type, weight_type, max_weight, noise):
    params = {"advantage_type": advantage_type, "weight_type": weight_type, "max_weight": max_weight}
    impl, batch = impl_of(CRR, n_critics=2, n_action_samples=3, beta=0.5, **params), batch_for(CRR)
    b = numpy_of(batch)
    x, a = b["observations"], b["actions"]
    _, drawn = q_of_drawn(impl, x, noise(32, 3, 2))
    advantage = np.mean(critics(impl.q_funcs, x, a), axis=0)[:, 0] - getattr(drawn, advantage_type)(axis=1)
    weight = {"exp": np.minimum(np.exp(advantage / 0.5), max_weight), "binary": 1.0 * (advantage > 0)}[weight_type]
    assert 0 < (weight == weight.max()).mean() < 1
    expected = -(weight * log_density(impl.policy, x, a)).mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_discrete_mean_advantage_is_exact_and_weighs_the_log_probability():
    impl, batch = impl_of(DiscreteCRR, n_critics=2), batch_for(DiscreteCRR)
    b = numpy_of(batch)
    q, probs = np.mean(critics(impl.q_funcs, b["observations"]), axis=0), probabilities(impl.policy, b["observations"])
    advantage = pick(q, b["actions"]) - (probs * q).sum(axis=1)
    expected = -(np.exp(advantage) * np.log(pick(probs, b["actions"]))).mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_discrete_max_advantage_compares_with_actions_of_the_policy(monkeypatch):
    impl, batch = impl_of(DiscreteCRR, advantage_type="max", n_action_samples=3), batch_for(DiscreteCRR)
    b = numpy_of(batch)
    drawn = np.random.default_rng(0).integers(0, 4, (32, 3))
    monkeypatch.setattr(impl.policy, "sample_n", lambda x, n: (torch.from_numpy(drawn[:, :n]), None))
    q = critics(impl.q_funcs, b["observations"])[0]
    expected = pick(q, b["actions"]) - np.take_along_axis(q, drawn, axis=1).max(axis=1)
    assert impl.advantage(batch).detach().numpy()[:, 0] == pytest.approx(expected, rel=1e-9)


def test_discrete_max_with_binary_weights_still_learns_something():
    """Over all actions the maximum would leave no positive advantage."""
    impl = impl_of(DiscreteCRR, advantage_type="max", weight_type="binary")
    batches = [random_batch(32, action_size=4, discrete=True, seed=i, dtype=torch.float64) for i in range(8)]
    assert sum(impl.weight(impl.advantage(batch)).sum().item() for batch in batches) > 0


def test_weights_by_hand():
    advantage = torch.tensor([[-2.0], [0.0], [1.0], [1000.0]])
    exp = impl_of(CRR, beta=2.0).weight(advantage)
    assert exp[:, 0].tolist() == pytest.approx([np.exp(-1), 1.0, np.exp(0.5), 20.0])
    binary = impl_of(CRR, weight_type="binary").weight(advantage)
    assert binary[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0]


@both
@advantage_types
def test_the_actor_loss_reaches_the_policy_and_nothing_else_and_its_weights_carry_no_gradient(cls, advantage_type):
    impl, batch = impl_of(cls, advantage_type=advantage_type, n_action_samples=1), batch_for(cls)
    generator = torch.get_rng_state()
    impl.actor_loss(batch).backward()
    assert all(p.grad is None for p in (*impl.q_funcs.parameters(), *impl.targ_policy.parameters()))
    torch.set_rng_state(generator)
    weight = impl.weight(impl.advantage(batch)).detach()
    loss = -(weight * impl.policy.log_prob(batch.observations, batch.actions)).mean()
    expected = torch.autograd.grad(loss, list(impl.policy.parameters()))
    for p, gradient in zip(impl.policy.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, gradient, rtol=1e-9, atol=1e-14)


def moves(impl, batch, n):
    """For each network, in which of n updates it changed."""
    modules = {
        "critic": impl.q_funcs,
        "actor": impl.policy,
        "slow critic": impl.targ_q_funcs,
        "slow actor": impl.targ_policy,
    }
    moved = {name: [] for name in modules}
    for _ in range(n):
        before = {name: [p.clone() for p in m.parameters()] for name, m in modules.items()}
        metrics = impl.step(batch)
        for name, m in modules.items():
            moved[name].append(any(not torch.equal(p, q) for p, q in zip(before[name], m.parameters(), strict=True)))
        assert ("actor_loss" in metrics) == moved["actor"][-1]
    return moved


@both
def test_actor_and_hard_copies_move_at_the_updates_that_their_intervals_divide(cls):
    impl = impl_of(cls, update_actor_interval=2, target_update_interval=3)
    moved = moves(impl, batch_for(cls), 6)
    assert moved["critic"] == [True] * 6
    assert moved["actor"] == [False, True] * 3
    assert moved["slow critic"] == moved["slow actor"] == [False, False, True] * 2
    for slow, online in ((impl.targ_q_funcs, impl.q_funcs), (impl.targ_policy, impl.policy)):
        assert all(torch.equal(p, q) for p, q in zip(slow.parameters(), online.parameters(), strict=True))


@both
def test_soft_copies_take_over_a_share_tau_at_each_update(cls):
    impl = impl_of(cls, target_update_type="soft", tau=0.25)
    pairs = [(impl.targ_q_funcs, impl.q_funcs), (impl.targ_policy, impl.policy)]
    before = [[p.clone() for p in slow.parameters()] for slow, _ in pairs]
    impl.step(batch_for(cls))
    for old, (slow, online) in zip(before, pairs, strict=True):
        for p, q, r in zip(old, slow.parameters(), online.parameters(), strict=True):
            assert torch.allclose(q, 0.75 * p + 0.25 * r, rtol=1e-12)


def test_predict_is_the_best_of_the_actions_of_a_constant_noise():
    impl = impl_of(CRR, n_critics=2, n_action_samples=5)
    x = numpy_of(batch_for(CRR))["observations"]
    drawn, q = q_of_drawn(impl, x, impl.noise.numpy())
    best = impl.best_action(torch.from_numpy(x)).detach().numpy()
    assert best == pytest.approx(pick(drawn, q.argmax(axis=1)))
    assert len(np.unique(q.argmax(axis=1))) > 1
    assert drawn[:, 0] == pytest.approx(impl.policy(torch.from_numpy(x)).detach().numpy())  # the mean is a candidate
    assert np.array_equal(best, impl.best_action(torch.from_numpy(x)).detach().numpy())


def test_sampled_actions_follow_the_weights_of_the_critic(noise):
    """The candidates are held fixed; how often each is drawn is the softmax of Q / beta."""
    impl = impl_of(CRR, n_action_samples=3, beta=0.4)
    x = np.repeat(numpy_of(batch_for(CRR))["observations"][:1], 20_000, axis=0)
    candidates, q = q_of_drawn(impl, x[:1], impl.noise.numpy())
    fixed = torch.from_numpy(np.repeat(candidates, len(x), axis=0))
    impl.policy.sample_n = lambda x, n: (fixed, None)
    actions = impl.sample_action(torch.from_numpy(x)).numpy()
    shares = [(np.abs(actions - c).max(axis=1) < 1e-12).mean() for c in candidates[0]]
    expected = np.exp(q[0] / 0.4) / np.exp(q[0] / 0.4).sum()
    assert shares == pytest.approx(expected, abs=0.015)


def test_the_discrete_critic_weighted_policy_is_exact():
    impl = impl_of(DiscreteCRR, beta=0.7)
    x = numpy_of(batch_for(DiscreteCRR))["observations"]
    probs = probabilities(impl.policy, x) * np.exp(critics(impl.q_funcs, x)[0] / 0.7)
    probs /= probs.sum(axis=1, keepdims=True)
    assert np.array_equal(impl.best_action(torch.from_numpy(x)).numpy(), probs.argmax(axis=1))
    drawn = impl.sample_action(torch.from_numpy(np.repeat(x[:1], 20_000, axis=0)))
    assert np.bincount(drawn.numpy(), minlength=4) / 20_000 == pytest.approx(probs[0], abs=0.015)


def algo_of(cls, **params):
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    given = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "gamma": 0.9, "batch_size": 128}
    given |= {"actor_encoder_factory": encoder, "critic_encoder_factory": encoder, "target_update_interval": 20}
    return cls(**{**given, **params}, random_state=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [{"beta": 0.05}, {"beta": 0.05, "q_func_factory": "qr"}, {"weight_type": "binary", "advantage_type": "max"}],
    ids=str,
)
def test_crr_clones_the_better_actions_of_the_data(params):
    """The behavior is (-0.1, 0.1) +- 0.2, the optimum (0.5, -0.5): the best of the data are (0.1, -0.1)."""
    algo = algo_of(CRR, **params).fit(two_step_dataset(behavior=(-0.1, 0.1)), n_steps=800, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx([0.1, -0.1], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("params", [{"beta": 0.05}, {"weight_type": "binary"}, {"advantage_type": "max"}], ids=str)
def test_discrete_crr_finds_the_way_through_the_corridor(params):
    algo = algo_of(DiscreteCRR, **params).fit(corridor(), n_steps=500, **QUIET)
    assert (algo.predict(np.eye(4, dtype=np.float32)) == RIGHT).all()

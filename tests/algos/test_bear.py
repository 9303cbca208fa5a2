import numpy as np
import pytest
import torch

from d3rlpy.algos import BEAR
from d3rlpy.functional import mean_kernel, mmd
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.optimizers import SGDFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import two_step_dataset
from tests.algos.restate import critics, mlp, numpy_of, pick, quantile_loss
from tests.algos.test_td3 import QUIET, STATES
from tests.helpers import random_batch


def impl_of(warmup=False, **params):
    """An impl in float64, after the warm-up or within it, whose slow copies differ from the online networks."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    given = {"initial_temperature": 0.3, "initial_alpha": 2.0, "warmup_steps": 5, "random_state": 0, **params}
    factories = dict.fromkeys(["actor_encoder_factory", "critic_encoder_factory", "imitator_encoder_factory"], encoder)
    impl = BEAR(**factories, **given).create_impl((3,), 2).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in (impl.targ_q_funcs, impl.targ_policy):
            for p in module.parameters():
                p += 0.3 * torch.randn(p.shape, generator=generator)
    impl.grad_step = 5 if warmup else 6
    return impl


def a_batch():
    return random_batch(32, dtype=torch.float64)


@pytest.fixture
def drawn(monkeypatch):
    """The normal variables that torch is going to draw, the same for each call of the same shape."""

    def numbers(*shape):
        shape = shape if isinstance(shape[0], int) else shape[0]
        return np.random.default_rng(sum(shape)).normal(size=shape)

    def randn(*shape, **kwargs):
        return torch.from_numpy(numbers(*shape))

    monkeypatch.setattr(torch, "randn", randn)
    monkeypatch.setattr(torch, "randn_like", lambda like: randn(*like.shape))
    return numbers


def samples(policy, x, noise):
    """n samples of the normal variable before tanh ``(B, n, A)``, and the log densities of their tanh ``(B, n)``."""
    mean, log_std = np.split(mlp(policy, x), 2, axis=1)
    std = np.exp(np.clip(log_std, -20, 2))[:, None]
    u = mean[:, None] + std * noise
    density = np.exp(-0.5 * noise**2) / (std * np.sqrt(2 * np.pi)) / (1 - np.tanh(u) ** 2)
    return u, np.log(density).sum(axis=2)


def mmd_by_loops(x, y, kernel, sigma):
    """MMD of two sets of samples ``(n, A)``, ``(m, A)``: the paper's sums over all pairs, diagonals included."""

    def k(a, b):
        d = np.abs(a - b).sum() if kernel == "laplacian" else ((a - b) ** 2).sum()
        return np.exp(-d / (2 * sigma))

    n, m = len(x), len(y)
    squared = sum(k(a, b) for a in x for b in x) / n**2 + sum(k(a, b) for a in y for b in y) / m**2
    return np.sqrt(squared - 2 * sum(k(a, b) for a in x for b in y) / (n * m) + 1e-6)


def excess_of(impl, x, u, drawn):
    """Mean over rows of the MMD between the imitator's samples before tanh and ``u``, minus the threshold."""
    hp, n = impl.hp, u.shape[1]
    latent = np.clip(drawn(len(x), n, 4), -0.5, 0.5)
    rows = np.concatenate([np.repeat(x, n, axis=0), latent.reshape(-1, 4)], axis=1)
    data = mlp(impl.imitator.decoder, rows).reshape(len(x), n, 2)
    each = [mmd_by_loops(a, b, hp.mmd_kernel, hp.mmd_sigma) for a, b in zip(data, u, strict=True)]
    return np.mean(each) - hp.alpha_threshold


@pytest.mark.parametrize(
    ("kernel", "far"), [("laplacian", np.exp(-(1 + 2) / (2 * 0.5))), ("gaussian", np.exp(-(1 + 4) / (2 * 0.5)))]
)
def test_kernels_by_hand(kernel, far):
    """Distances sum over components; the width is not squared."""
    x = torch.tensor([[[0.0, 0.0], [1.0, -2.0]]], dtype=torch.float64)
    assert mean_kernel(x[:, :1], x[:, 1:], kernel, 0.5).item() == pytest.approx(far)
    assert mean_kernel(x, x, kernel, 0.5).item() == pytest.approx((2 + 2 * far) / 4)  # the diagonal counts


@pytest.mark.parametrize("kernel", ["laplacian", "gaussian"])
def test_the_mmd_is_that_of_loops_over_all_pairs_also_for_unequal_numbers_of_samples(kernel):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4, 2)), rng.normal(size=(6, 3, 2))
    expected = [[mmd_by_loops(a, b, kernel, 0.7)] for a, b in zip(x, y, strict=True)]
    assert mmd(torch.from_numpy(x), torch.from_numpy(y), kernel, 0.7).numpy() == pytest.approx(np.array(expected))


def test_the_mmd_of_equal_distributions_has_the_bias_of_the_diagonal_and_no_more():
    """Its square is ``(2 / n) (1 - E k(x, x'))`` on average; without diagonals it would be 0."""
    x, y, z = (torch.randn(100_000, 4, 2, generator=torch.Generator().manual_seed(i)).double() for i in range(3))
    apart = mean_kernel(x[:, :1], z[:, :1], "laplacian", 1.0).mean()
    squared = (mmd(x, y, "laplacian", 1.0).square() - 1e-6).mean()
    assert squared.item() == pytest.approx(2 / 4 * (1 - apart.item()), rel=0.01)


def test_the_gradient_of_the_mmd_is_finite_where_samples_coincide_or_distributions_are_equal():
    x = torch.zeros(1, 4, 2, requires_grad=True)
    mmd(torch.zeros(1, 4, 2), x, "laplacian", 20.0).sum().backward()
    assert torch.equal(x.grad, torch.zeros(1, 4, 2))


@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_the_critic_loss_takes_the_best_of_n_slow_actions_by_the_mixture(q_func, drawn):
    factory = QRQFunctionFactory(n_quantiles=4) if q_func == "qr" else "mean"
    impl, batch = impl_of(q_func_factory=factory, n_target_samples=6, lam=0.6), a_batch()
    b = numpy_of(batch)
    u, log_probs = samples(impl.targ_policy, b["next_observations"], drawn(32, 6, 2))
    x = np.repeat(b["next_observations"], 6, axis=0)
    slow = np.stack(critics(impl.targ_q_funcs, x, np.tanh(u).reshape(-1, 2)))  # (2, 32 * 6, N)
    order, rows = slow.mean(axis=2).argsort(axis=0), np.arange(32 * 6)
    mixed = 0.6 * slow[order[0], rows] + 0.4 * slow[order[1], rows]
    mixed = mixed.reshape(32, 6, -1)
    best = mixed.mean(axis=2).argmax(axis=1)
    following = pick(mixed, best) - 0.3 * pick(log_probs, best)[:, None]
    target = b["rewards"] + b["discounts"] * following
    online = critics(impl.q_funcs, b["observations"], b["actions"])
    error = quantile_loss if q_func == "qr" else lambda q, y: ((q - y) ** 2).mean()
    assert impl.critic_loss(batch).item() == pytest.approx(sum(error(q, target) for q in online), rel=1e-7)


@pytest.mark.parametrize("kernel", ["laplacian", "gaussian"])
@pytest.mark.parametrize("warmup", [True, False])
def test_the_actor_loss_is_the_penalty_and_after_the_warm_up_that_of_sac_too(kernel, warmup, drawn):
    impl, batch = impl_of(warmup, mmd_kernel=kernel, mmd_sigma=0.9), a_batch()
    b = numpy_of(batch)
    u, log_probs = samples(impl.policy, b["observations"], drawn(32, 4, 2))
    expected = 2.0 * excess_of(impl, b["observations"], u, drawn)
    if not warmup:
        q = np.min(critics(impl.q_funcs, b["observations"], np.tanh(u[:, 0])), axis=0)
        expected += (0.3 * log_probs[:, :1] - q).mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-8)


def test_the_gradient_of_the_mmd_reaches_the_policy_and_nothing_else():
    impl = impl_of(warmup=True)
    impl.actor_loss(a_batch()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in impl.policy.parameters())
    policy = {id(p) for p in impl.policy.parameters()}
    assert all(p.grad is None for p in impl.parameters() if id(p) not in policy)
    assert impl.training is False
    assert all(p.requires_grad for p in impl.imitator.parameters())


def test_the_gradient_of_the_penalty_is_that_of_finite_differences(drawn):
    impl, batch = impl_of(warmup=True, mmd_sigma=0.9), a_batch()
    b, bias = numpy_of(batch), impl.policy.head.bias
    gradient = torch.autograd.grad(impl.actor_loss(batch), bias)[0]
    for i in range(4):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                bias[i] += step
                u, _ = samples(impl.policy, b["observations"], drawn(32, 4, 2))
                values.append(2.0 * excess_of(impl, b["observations"], u, drawn))
                bias[i] -= step
        assert gradient[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("alpha_learning_rate", [0.0, 0.5])
def test_the_step_of_the_multiplier_neither_cancels_nor_changes_that_of_the_actor(alpha_learning_rate, drawn):
    sgd = {"actor_optim_factory": SGDFactory(), "alpha_optim_factory": SGDFactory()}
    impl = impl_of(warmup=True, actor_learning_rate=0.1, alpha_learning_rate=alpha_learning_rate, **sgd)
    batch, params = a_batch(), list(impl.policy.parameters())
    gradients = torch.autograd.grad(impl.actor_loss(batch), params)
    before = [p.detach().clone() for p in params]
    impl.update_actor(batch)
    for old, new, gradient in zip(before, params, gradients, strict=True):
        assert torch.allclose(new, old - 0.1 * gradient, rtol=1e-12)


def test_the_loss_of_the_multiplier_and_its_gradient_by_hand():
    impl = impl_of()
    for excess in (0.4, -0.1):
        loss = impl.alpha_loss(torch.tensor(excess, dtype=torch.float64))
        assert loss.item() == pytest.approx(-2.0 * excess)
        assert torch.autograd.grad(loss, impl.alpha.log)[0].item() == pytest.approx(-2.0 * excess)


def test_a_policy_too_far_from_the_data_raises_the_multiplier_and_one_within_the_bound_lowers_it():
    for threshold, sign in ((0.0, 1), (10.0, -1)):
        impl = impl_of(alpha_learning_rate=0.1, alpha_threshold=threshold)
        impl.step(a_batch())
        assert sign * (impl.alpha().item() - 2.0) > 0


def test_the_logarithm_of_the_multiplier_stays_within_its_bounds():
    for excess, bound in ((1.0, 10.0), (-1.0, -5.0)):
        impl = impl_of(alpha_learning_rate=100.0)
        metrics = impl.update_alpha(torch.tensor(excess, dtype=torch.float64))
        assert impl.alpha.log.item() == bound
        assert metrics["alpha"].item() == pytest.approx(np.exp(bound))


def test_multiplier_and_temperature_without_learning_rate_stay():
    impl = impl_of(alpha_learning_rate=0.0, temp_learning_rate=0.0)
    assert set(impl.step(a_batch())) == {"imitator_loss", "critic_loss", "actor_loss"}
    assert (impl.alpha().item(), impl.temp().item()) == pytest.approx((2.0, 0.3))


def test_the_target_has_no_entropy_during_the_warm_up(drawn):
    targets = [
        impl_of(warmup, initial_temperature=temp).td_target(a_batch())
        for warmup in (True, False)
        for temp in (0.3, 1e-20)
    ]
    assert torch.equal(targets[0], targets[1])
    assert torch.equal(targets[0], targets[3])
    assert not torch.allclose(targets[2], targets[3])


def test_the_temperature_waits_for_the_end_of_the_warm_up():
    """Update k = warmup_steps is the last that only imitates."""
    impl = impl_of(warmup_steps=2)
    impl.grad_step = 0
    assert ["temp" in impl.step(a_batch()) for _ in range(3)] == [False, False, True]


def test_a_tiny_temperature_leaves_no_entropy_in_target_and_actor(drawn):
    impl, batch = impl_of(temp_learning_rate=0.0, initial_temperature=1e-20), a_batch()
    b = numpy_of(batch)
    u, _ = samples(impl.policy, b["observations"], drawn(32, 4, 2))
    q = np.min(critics(impl.q_funcs, b["observations"], np.tanh(u[:, 0])), axis=0)
    expected = 2.0 * excess_of(impl, b["observations"], u, drawn) - q.mean()
    assert impl.actor_loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_slow_policy_and_slow_critics_take_over_a_share_tau():
    impl = impl_of(tau=0.25)
    pairs = [(impl.targ_q_funcs, impl.q_funcs), (impl.targ_policy, impl.policy)]
    before = [[p.clone() for p in slow.parameters()] for slow, _ in pairs]
    impl.step(a_batch())
    for old, (slow, online) in zip(before, pairs, strict=True):
        for p, q, r in zip(old, slow.parameters(), online.parameters(), strict=True):
            assert torch.allclose(q, 0.75 * p + 0.25 * r, rtol=1e-12)


def test_predict_is_the_best_by_the_first_critic_of_the_actions_of_a_constant_noise():
    impl = impl_of(n_action_samples=7)
    x = numpy_of(a_batch())["observations"]
    u, _ = samples(impl.policy, x, impl.noise.numpy())
    q = critics(impl.q_funcs, np.repeat(x, 7, axis=0), np.tanh(u).reshape(-1, 2))[0].reshape(32, 7)
    actions = impl.best_action(torch.from_numpy(x)).detach().numpy()
    assert actions == pytest.approx(pick(np.tanh(u), q.argmax(axis=1)))
    assert len(np.unique(q.argmax(axis=1))) > 1


def algo_of(**params):
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    factories = dict.fromkeys(["actor_encoder_factory", "critic_encoder_factory", "imitator_encoder_factory"], encoder)
    rates = dict.fromkeys(["actor_learning_rate", "critic_learning_rate", "imitator_learning_rate"], 3e-3)
    given = {"temp_learning_rate": 0.0, "initial_temperature": 1e-20, "tau": 0.05, "gamma": 0.9, "batch_size": 128}
    return BEAR(**factories, **rates, **{**given, **params}, random_state=0)


@pytest.mark.slow
def test_bear_imitates_during_the_warm_up():
    """The behavior is (-0.1, 0.1) +- 0.2, the optimum (0.5, -0.5)."""
    algo = algo_of(warmup_steps=1000).fit(two_step_dataset(behavior=(-0.1, 0.1)), n_steps=1000, **QUIET)
    drawn = algo.sample_action(np.repeat(STATES, 500, axis=0)).reshape(2, 500)
    assert drawn.mean(axis=1) == pytest.approx([-0.1, 0.1], abs=0.1)
    assert np.abs(drawn - [[-0.1], [0.1]]).max() < 0.6


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "q_func"), [(0.0, "mean"), (0.1, "mean"), (0.1, "qr")])
def test_the_bound_decides_how_far_bear_leaves_the_data_for_better_actions(threshold, q_func):
    """The behavior is (-0.1, 0.1) +- 0.2, the optimum (0.5, -0.5); the bound is one for the mean over states."""
    data, params = two_step_dataset(behavior=(-0.1, 0.1)), {"alpha_threshold": threshold, "q_func_factory": q_func}
    algo = algo_of(warmup_steps=200, alpha_learning_rate=1e-2, **params).fit(data, n_steps=800, **QUIET)
    gained = (algo.predict(STATES)[:, 0] - [-0.1, 0.1]) * [1, -1]  # towards the optimum
    if threshold == 0.0:
        assert gained == pytest.approx([0.0, 0.0], abs=0.15)
    else:
        assert gained.min() > -0.05
        assert 0.2 < gained.sum() < 1.2

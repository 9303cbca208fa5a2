import numpy as np
import pytest
import torch

from d3rlpy.algos import CQL, SAC
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import two_step_dataset
from d3rlpy.testing.mdp import BEST_ACTIONS
from tests.algos.restate import critics, mlp, numpy_of, quantile_loss
from tests.algos.test_td3 import QUIET, STATES
from tests.helpers import random_batch

N, B, A = 3, 32, 2  # samples of each kind, rows, action dimensions


def impl_of(cls=CQL, **params):
    """An impl in float64 with n = 3 whose slow critics differ from the critics, and a policy that is not centred."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    given = {"initial_temperature": 0.3, "random_state": 0, **({"n_action_samples": N} if cls is CQL else {}), **params}
    algo = cls(actor_encoder_factory=encoder, critic_encoder_factory=encoder, **given)
    impl = algo.create_impl((3,), A).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in [*impl.targ_q_funcs.parameters(), *impl.policy.parameters()]:
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return impl


def a_batch(seed=0):
    return random_batch(B, dtype=torch.float64, seed=seed)


class Noise:
    """What torch is going to draw: normal variables by shape, and uniform ones in [0, 1]."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.of_target = rng.normal(size=(B, A))
        self.at_s, self.at_next = rng.normal(size=(2, B, N, A))
        self.uniform = rng.uniform(size=(B, N, A))

    def randn_like(self, like):
        drawn = self.of_target if like.dim() == 2 else np.concatenate([self.at_s, self.at_next])
        assert drawn.shape == tuple(like.shape)
        return torch.from_numpy(drawn)

    def rand_like(self, like):
        return torch.from_numpy(self.uniform)


@pytest.fixture
def noise(monkeypatch):
    noise = Noise()
    monkeypatch.setattr(torch, "randn_like", noise.randn_like)
    monkeypatch.setattr(torch, "rand_like", noise.rand_like)
    return noise


def squashed(impl, x, z):
    """Action of noise ``z`` at ``x`` and its density, by the change of variables."""
    mean, log_std = np.split(mlp(impl.policy, x), 2, axis=1)
    std = np.exp(np.clip(log_std, -20, 2))
    action = np.tanh(mean + std * z)
    density = np.exp(-0.5 * z**2) / (std * np.sqrt(2 * np.pi)) / (1 - action**2)
    return action, density.prod(axis=1)


def density_at(impl, x, action):
    """Density of an action that was drawn elsewhere."""
    mean, log_std = np.split(mlp(impl.policy, x), 2, axis=1)
    z = (np.arctanh(action) - mean) / np.exp(np.clip(log_std, -20, 2))
    return squashed(impl, x, z)[1]


def gaps_of(impl, b, noise, value_next_at="observations", density_of_next="own", uniform_density=0.5**A):
    """Appendix F, sample by sample: log of the sum of exp(Q) / density, minus Q of the data; the rest is wrong."""
    s, s2 = b["observations"], b["next_observations"]
    gaps = []
    for k in range(len(impl.q_funcs)):
        total = np.zeros(B)
        for j in range(N):
            action, density = squashed(impl, s, noise.at_s[:, j])
            total += np.exp(value(impl, k, s, action)) / density
            action, density = squashed(impl, s2, noise.at_next[:, j])
            density = density if density_of_next == "own" else density_at(impl, s, action)
            total += np.exp(value(impl, k, b[value_next_at], action)) / density
            total += np.exp(value(impl, k, s, 2 * noise.uniform[:, j] - 1)) / uniform_density
        gaps.append((np.log(total) - value(impl, k, s, b["actions"])).mean())
    return np.array(gaps)


def value(impl, k, x, action):
    return critics(impl.q_funcs, x, action)[k].mean(axis=1)


def gaps(impl, batch):
    return impl.critic_terms(batch)[1].detach().numpy()


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_gap_is_that_of_the_paper_sample_by_sample(n_critics, noise):
    impl, batch = impl_of(n_critics=n_critics), a_batch()
    assert gaps(impl, batch) == pytest.approx(gaps_of(impl, numpy_of(batch), noise), rel=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"value_next_at": "next_observations"},
        {"density_of_next": "at s"},
        {"uniform_density": 0.5},
        {"uniform_density": 1.0},
    ],
)
def test_actions_drawn_at_the_next_observation_are_valued_at_s_with_their_own_density(wrong, noise):
    """The wrong readings differ by so much that the test above would notice them."""
    impl, batch = impl_of(), a_batch()
    assert np.abs(gaps(impl, batch) - gaps_of(impl, numpy_of(batch), noise, **wrong)).min() > 0.01


def test_the_gap_by_hand():
    """One critic, values 0 and 1 of two samples with densities 1 and 0.5, 2 of the data."""
    q, log_density = torch.tensor([[[0.0, 1.0]]]), torch.log(torch.tensor([[1.0, 0.5]]))
    found = impl_of().gaps(torch.tensor([[2.0]]), q, log_density)
    assert found.tolist() == pytest.approx([np.log(1 + 2 * np.e) - 2])


def test_uniform_actions_fill_the_cube_and_have_its_density():
    impl = impl_of(n_action_samples=500)
    actions, log_densities = impl.sample_candidates(a_batch())
    assert actions.shape == (B, 1500, A)
    uniform = actions[:, 1000:].flatten(0, 1)
    assert uniform.min() < -0.999
    assert uniform.max() > 0.999
    assert uniform.mean(dim=0).tolist() == pytest.approx([0, 0], abs=0.02)
    assert torch.allclose(log_densities[:, 1000:], torch.tensor(0.25, dtype=torch.float64).log())


def test_the_sum_over_samples_estimates_the_integral_of_exp_q():
    """All three kinds estimate it, so for Q = 0 the sum is 3n times the volume 4 of the cube."""
    impl = impl_of(n_action_samples=4000)
    with torch.no_grad():
        for p in [*impl.q_funcs.parameters(), *impl.policy.parameters()]:
            p.zero_()
        impl.policy.head.bias[A:] = -0.2  # about as wide as the cube, so that its weights vary little
    torch.manual_seed(0)
    log_densities = impl.sample_candidates(a_batch())[1]
    for kind in log_densities.chunk(3, dim=1):
        assert (-kind).exp().mean().item() == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_the_critic_loss_with_both_backups(soft, q_func, noise):
    factory = QRQFunctionFactory(n_quantiles=4) if q_func == "qr" else "mean"
    impl, batch = impl_of(soft_q_backup=soft, q_func_factory=factory, initial_alpha=2.0), a_batch()
    b = numpy_of(batch)
    action, density = squashed(impl, b["next_observations"], noise.of_target if soft else 0.0)
    slow = np.stack(critics(impl.targ_q_funcs, b["next_observations"], action))
    following = slow[slow.mean(axis=2).argmin(axis=0), np.arange(B)]
    if soft:
        following = following - 0.3 * np.log(density)[:, None]
    target = b["rewards"] + b["discounts"] * following
    error = quantile_loss if q_func == "qr" else lambda q, y: ((y - q) ** 2).mean()
    expected = sum(error(q, target) for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    expected += sum(2.0 * (5.0 * gap - 10.0) for gap in gaps_of(impl, b, noise))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-7)


def test_each_critic_pays_the_weighted_gap_above_the_threshold():
    impl = impl_of(initial_alpha=0.5, conservative_weight=2.0, alpha_threshold=3.0)
    gaps = torch.tensor([4.0, 1.0], dtype=torch.float64)
    assert impl.conservative_loss(gaps).item() == pytest.approx(0.5 * ((8 - 3) + (2 - 3)))
    assert impl.alpha_loss(gaps).item() == pytest.approx(-0.5 * ((8 - 3) + (2 - 3)))
    assert torch.autograd.grad(impl.alpha_loss(gaps), impl.alpha.log)[0].item() == pytest.approx(-2.0)  # alpha d/dalpha


def test_alpha_grows_above_the_threshold_and_shrinks_below_and_the_critics_use_the_new_one(noise):
    for threshold, sign in ((-100.0, 1), (100.0, -1)):
        impl, batch = impl_of(alpha_learning_rate=0.5, alpha_threshold=threshold), a_batch()
        td_loss, gaps = (t.detach() for t in impl.critic_terms(batch))
        metrics = impl.update_critic(batch)
        assert metrics["alpha"].item() == pytest.approx(np.exp(sign * 0.5), rel=1e-4)  # first step of Adam
        expected = td_loss + metrics["alpha"] * (5.0 * gaps - threshold).sum()
        assert metrics["critic_loss"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_alpha_stays_below_a_million_and_can_come_back():
    impl = impl_of(alpha_learning_rate=30.0)
    high, low = (torch.tensor([gap, gap], dtype=torch.float64) for gap in (1e3, -1e3))
    assert impl.update_alpha(high)["alpha"].item() == pytest.approx(1e6)
    assert impl.conservative_loss(high).item() == pytest.approx(1e6 * 2 * (5e3 - 10))
    for _ in range(5):
        alpha = impl.update_alpha(low)["alpha"].item()
    assert 0 <= alpha < 1e5


def test_without_a_learning_rate_alpha_stays_at_its_start():
    impl = impl_of(alpha_learning_rate=0.0, initial_alpha=7.0)
    metrics = impl.step(a_batch())
    assert set(metrics) == {"critic_loss", "actor_loss", "temp_loss", "temp"}
    assert impl.alpha().item() == pytest.approx(7.0)
    impl.hp.set_params(alpha_learning_rate=0.1)
    assert set(impl.step(a_batch())) == {"critic_loss", "actor_loss", "temp_loss", "temp", "alpha_loss", "alpha"}
    assert impl.alpha().item() != pytest.approx(7.0)


def test_the_critic_loss_reaches_the_critics_only():
    impl = impl_of(soft_q_backup=True)
    impl.critic_loss(a_batch()).backward()
    assert all(p.grad is not None for p in impl.q_funcs.parameters())
    others = [impl.policy, impl.temp, impl.alpha, impl.targ_q_funcs]
    assert all(p.grad is None for module in others for p in module.parameters())
    actions, log_densities = impl.sample_candidates(a_batch())
    assert not actions.requires_grad
    assert not log_densities.requires_grad


def test_the_gradient_of_the_penalty_is_a_softmax_minus_the_data(noise):
    """The gradient of a critic's last bias vanishes: the weights of the samples sum to 1, as does that of the data."""
    impl, batch = impl_of(), a_batch()
    gaps = impl.critic_terms(batch)[1]
    for gap, critic in zip(gaps, impl.q_funcs, strict=True):
        assert torch.autograd.grad(gap, critic.head.bias, retain_graph=True)[0].item() == pytest.approx(0.0, abs=1e-12)


def test_without_weight_the_critics_learn_as_those_of_sac(noise):
    batch = a_batch()
    impl = impl_of(conservative_weight=0.0, alpha_threshold=0.0, soft_q_backup=True)
    assert impl.critic_loss(batch).item() == pytest.approx(impl_of(SAC).critic_loss(batch).item(), rel=1e-9)


def test_all_actions_of_an_update_go_through_the_critics_at_once(monkeypatch):
    impl, seen = impl_of(), []
    evaluate = impl.q_funcs.evaluate
    monkeypatch.setattr(impl.q_funcs, "evaluate", lambda x, a: seen.append(tuple(a.shape)) or evaluate(x, a))
    impl.update_critic(a_batch())
    assert seen == [(B, 1 + 3 * N, A)]


def algo_of(**params):
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    given = {
        "actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "temp_learning_rate": 0.0,
        "alpha_learning_rate": 0.0, "initial_temperature": 0.01, "tau": 0.05, "gamma": 0.9, "batch_size": 64,
        "n_action_samples": 4,
    }  # fmt: skip
    return CQL(actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0, **{**given, **params})


@pytest.mark.slow
def test_cql_finds_the_actions_of_two_steps_with_a_small_weight():
    algo = algo_of(conservative_weight=0.02).fit(two_step_dataset(), n_steps=1000, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx(BEST_ACTIONS, abs=0.15)


@pytest.mark.slow
def test_cql_stays_within_the_data_where_the_best_actions_lie_outside():
    """The data acts within 0.2 of 0 and 0.1, the best actions are 0.5 and -0.5."""
    data = two_step_dataset(behavior=(0.0, 0.1))
    algo = algo_of(conservative_weight=1.0).fit(data, n_steps=600, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx([0.0, 0.1], abs=0.25)
    inside, outside = (algo.predict_value(STATES, np.array(a)[:, None]) for a in ([0.1, 0.0], [0.5, -0.5]))
    assert (inside > outside).all()

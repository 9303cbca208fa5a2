import copy

import numpy as np
import pytest
import torch

from d3rlpy.algos import CQL, CalQL
from d3rlpy.dataset import MDPDataset, RandomSampler, TransitionMiniBatch, rows_of
from d3rlpy.impl import Batch, ReturnBatch
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.online import ReplayBuffer
from d3rlpy.online.mixing import MixedSampler
from d3rlpy.preprocessing import MultiplyRewardScaler, Scalers
from tests.algos import test_cql
from tests.algos.restate import critics, numpy_of, quantile_loss
from tests.algos.test_cql import A, B, N, a_batch, impl_of, squashed, value
from tests.helpers import make_dataset
from tests.online.helpers import QUIET, Counter

noise = test_cql.noise  # what torch is going to draw
ENCODER = VectorEncoderFactory(hidden_units=(32,))
SMALL = {"actor_encoder_factory": ENCODER, "critic_encoder_factory": ENCODER}


def with_returns(batch, returns):
    return ReturnBatch(*(getattr(batch, name) for name in Batch.__slots__), returns)


def a_return_batch(seed=0, mean=0.0):
    """Returns that lie below some of the values of the critics and above the others."""
    returns = mean + 0.3 * torch.randn(B, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return with_returns(a_batch(seed), returns)


def cal_ql(**params):
    return impl_of(CalQL, **{"n_action_samples": N, **params})


def gaps_of(impl, b, noise, at_next=True, of_uniform=False, of_data=False, after_density=False, side=np.maximum):
    """Equation 5.1 with the samples of CQL, one by one; everything but the defaults is wrong."""
    s, s2, floor = b["observations"], b["next_observations"], b["returns"][:, 0]

    def term(q, density, bounded):
        if bounded and after_density:
            return np.exp(side(q - np.log(density), floor))
        return np.exp(side(q, floor) if bounded else q) / density

    gaps = []
    for k in range(len(impl.q_funcs)):
        total = np.zeros(B)
        for j in range(N):
            action, density = squashed(impl, s, noise.at_s[:, j])
            total += term(value(impl, k, s, action), density, True)
            action, density = squashed(impl, s2, noise.at_next[:, j])
            total += term(value(impl, k, s, action), density, at_next)
            total += term(value(impl, k, s, 2 * noise.uniform[:, j] - 1), 0.5**A, of_uniform)
        data = value(impl, k, s, b["actions"])
        gaps.append((np.log(total) - (np.maximum(data, floor) if of_data else data)).mean())
    return np.array(gaps)


def gaps(impl, batch):
    return impl.critic_terms(batch)[1].detach().numpy()


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_gap_is_that_of_the_paper_sample_by_sample(n_critics, noise):
    impl, batch = cal_ql(n_critics=n_critics), a_return_batch()
    assert gaps(impl, batch) == pytest.approx(gaps_of(impl, numpy_of(batch), noise), rel=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"at_next": False},
        {"of_uniform": True},
        {"of_data": True},
        {"after_density": True},
        {"side": np.minimum},
        {"side": lambda q, floor: q},
    ],
)
def test_the_bound_is_on_the_actions_of_the_policy_only_before_their_density(wrong, noise):
    """The wrong readings differ by so much that the test above would notice them."""
    impl, batch = cal_ql(), a_return_batch()
    assert np.abs(gaps(impl, batch) - gaps_of(impl, numpy_of(batch), noise, **wrong)).min() > 0.01


@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_the_critic_loss(q_func, noise):
    factory = QRQFunctionFactory(n_quantiles=4) if q_func == "qr" else "mean"
    impl, batch = cal_ql(q_func_factory=factory, initial_alpha=2.0), a_return_batch()
    b = numpy_of(batch)
    action, _ = squashed(impl, b["next_observations"], 0.0)
    slow = np.stack(critics(impl.targ_q_funcs, b["next_observations"], action))
    target = b["rewards"] + b["discounts"] * slow[slow.mean(axis=2).argmin(axis=0), np.arange(B)]
    error = quantile_loss if q_func == "qr" else lambda q, y: ((y - q) ** 2).mean()
    expected = sum(error(q, target) for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    expected += sum(2.0 * (5.0 * gap - 10.0) for gap in gaps_of(impl, b, noise))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-7)


def test_values_and_gradients_by_hand():
    """One critic, two transitions with the returns 2 and -1, n = 1: the policy's two actions, then a uniform one."""
    impl = cal_ql(n_action_samples=1)
    q = torch.tensor([[[1.0, 3.0, 0.0], [0.0, -5.0, -7.0]]], dtype=torch.float64, requires_grad=True)
    batch = with_returns(a_batch(), torch.tensor([[2.0], [-1.0]], dtype=torch.float64))
    bounded = impl.candidate_values(q, batch)
    assert bounded.tolist() == [[[2, 3, 0], [0, -1, -7]]]
    bounded.sum().backward()
    assert q.grad.tolist() == [[[0, 1, 1], [1, 0, 1]]]  # what is below the return is pushed down no further


def test_where_all_values_are_below_the_returns_actions_of_the_policy_are_pushed_down_no_further(noise):
    impl, batch = cal_ql(), a_return_batch(mean=20.0)
    assert gaps(impl, batch) == pytest.approx(gaps_of(impl, numpy_of(batch), noise), rel=1e-9)
    q = torch.randn(2, B, 3 * N, dtype=torch.float64, requires_grad=True)
    impl.candidate_values(q, batch).sum().backward()
    assert (q.grad[:, :, : 2 * N] == 0).all()
    assert (q.grad[:, :, 2 * N :] == 1).all()


@pytest.mark.parametrize("bounds", ["minus infinity", "unknown"])
def test_without_bounds_it_is_cql_bit_for_bit(bounds):
    impls = [impl_of(cls, n_action_samples=N, alpha_learning_rate=0.1) for cls in (CQL, CalQL)]
    for seed in range(4):
        batch, metrics = a_batch(seed), []
        nothing = with_returns(batch, torch.full((B, 1), -torch.inf, dtype=torch.float64))
        for impl in impls:
            torch.manual_seed(seed)
            given = nothing if bounds == "minus infinity" and isinstance(impl.hp, CalQL) else batch
            metrics.append(impl.step(given))
        assert metrics[0] == metrics[1]
    theirs, mine = (impl.state_dict() for impl in impls)
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)


def test_returns_change_the_step():
    steps = []
    for mean in (-100.0, 0.0):
        impl = cal_ql()
        torch.manual_seed(0)
        impl.step(a_return_batch(mean=mean))
        steps.append(impl.q_funcs.state_dict())
    assert any(not torch.equal(steps[0][name], steps[1][name]) for name in steps[0])


def test_the_hyper_parameters_are_those_of_cql():
    assert CalQL().get_params() == CQL().get_params()


def returns_seen(algo, observation_shape=(3,)):
    """The batches that the updates of ``algo`` see from now on."""
    seen = []
    impl = algo.create_impl(observation_shape, 2).impl if algo.impl is None else algo.impl
    step = impl.step
    impl.step = lambda batch: seen.append(copy.deepcopy(batch)) or step(batch)
    return seen


def algo_of(**params):
    return CalQL(**{"n_action_samples": 2, "batch_size": 8, "random_state": 0, "gamma": 0.9, **SMALL, **params})


@pytest.mark.parametrize("n_steps", [1, 3])
def test_fit_and_update_give_scaled_returns_to_the_end_of_the_episode(n_steps):
    dataset = make_dataset(discrete=False)  # ten rows an episode: three end by terminals, three by timeouts
    scale = {"type": "multiply", "params": {"multiplier": 2.0}}
    algo = algo_of(n_steps=n_steps, reward_scaler=scale, scaler="standard").build_with_dataset(dataset)
    seen = returns_seen(algo)
    algo.fit(dataset, n_steps=7, shuffle=False, **QUIET)
    rewards, worst, expected = 2 * dataset.rewards.reshape(6, 10), 2 * dataset.rewards.min(), []
    for k, episode in enumerate(rewards):
        beyond = 0.0 if k < 3 else worst / (1 - 0.9)
        total = [beyond]
        for reward in reversed(episode):
            total.insert(0, reward + 0.9 * total[0])
        expected += total[: 10 if k < 3 else 9]  # the last row of a timed-out episode is no transition
    assert all(isinstance(batch, ReturnBatch) for batch in seen)
    got = torch.cat([batch.returns for batch in seen])[:, 0].tolist()
    assert got == pytest.approx(expected[: len(got)], rel=1e-5)

    algo.update(TransitionMiniBatch(dataset.episodes[4].transitions[2:5], n_steps=n_steps, gamma=0.9))
    assert seen[-1].returns[:, 0].tolist() == pytest.approx(expected[41:44], rel=1e-5)


@pytest.mark.parametrize("limit", [False, True])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_online_batches_know_the_returns_of_finished_and_of_open_episodes(limit, n_steps):
    """Rewards of the counter are positive, so nothing is added to what was cut or is still open."""
    algo = algo_of(gamma=0.5, n_steps=n_steps, batch_size=16)
    seen = returns_seen(algo, (2,))
    env, buffer = Counter(limit=limit, discrete=False), ReplayBuffer(12, env=Counter(discrete=False))
    when = {"n_steps": 40, "update_start_step": 23, "update_interval": 4}
    algo.fit_online(env, buffer, offline_dataset=five_rows(), **when, **QUIET)
    for step, batch in zip((24, 28, 32, 36, 40), seen, strict=True):
        assert int((batch.observations[:, 0] == -7).sum()) == 8
        for (episode, t), found in zip(batch.observations.int().tolist(), batch.returns[:, 0].tolist(), strict=True):
            length = 5 if episode == -7 else min(5, step - 5 * episode)
            assert found == pytest.approx(sum(0.5**k * (t + 1 + k) for k in range(length - t)), rel=1e-6)


def five_rows():
    """An offline episode like those of the counter, the one with the number -7."""
    observations = np.array([[-7.0, t] for t in range(5)])
    return MDPDataset(observations, np.full((5, 2), 0.5), np.arange(1.0, 6.0), np.arange(5) == 4)


def test_each_part_of_a_mixed_batch_has_its_own_returns():
    dataset = make_dataset(discrete=False)
    buffer = ReplayBuffer(30, dataset=make_dataset(discrete=False, n_episodes=2, seed=1))
    offline = RandomSampler(*rows_of(dataset), 3, n_steps=2, gamma=0.9, seed=0)
    online = buffer.make_sampler(5, n_steps=2, gamma=0.9, seed=0, reward_scaler=MultiplyRewardScaler(-2.0))
    mixed = MixedSampler(offline, online).sample()
    batch = ReturnBatch.of(mixed, Scalers(), torch.device("cpu"))
    for part, positions in mixed.parts:
        assert torch.equal(batch.returns[positions], torch.from_numpy(part.returns_to_go()))
        assert torch.equal(batch.rewards[positions], torch.from_numpy(part.rewards))
    assert batch.returns.shape == (8, 1)


def corridor_of_random_actions(length=5, n_episodes=200):
    """Actions are uniform; one above 0 goes a state further, and from the last one to the end with reward 1."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(n_episodes):
        place = 0
        while place < length:
            action = rng.uniform(-1, 1)
            won = action > 0 and place == length - 1
            rows.append((place, action, won))
            place += action > 0
    places, actions, won = (np.array(column) for column in zip(*rows, strict=True))
    return MDPDataset(np.eye(length)[places], actions[:, None], won, won)


@pytest.mark.slow
def test_values_of_the_policy_keep_the_scale_of_what_can_be_earned_where_cql_loses_it():
    """The data earn ``V = (V_next + V) gamma / 2``, the best policy ``gamma V_next``.

    A large weight flattens the critics of CQL to the value of the data; definition 4.1 asks for no less than that.
    """
    data, x, left, found = corridor_of_random_actions(), np.eye(5), np.arange(4, -1, -1), {}
    of_data, best = 0.5 / 0.55 * (0.45 / 0.55) ** left, 0.9**left
    for cls in (CQL, CalQL):
        algo = cls(
            actor_learning_rate=3e-3, critic_learning_rate=1e-2, temp_learning_rate=0.0, alpha_learning_rate=0.0,
            initial_temperature=0.01, tau=0.05, gamma=0.9, batch_size=32, n_action_samples=4, random_state=0, **SMALL,
        ).fit(data, n_steps=400, **QUIET)  # fmt: skip
        drawn = [algo.predict_value(x, algo.sample_action(x)) for _ in range(50)]
        found[cls] = np.mean(drawn, axis=0)
    assert found[CQL] == pytest.approx(of_data, abs=0.1)
    assert found[CalQL] == pytest.approx(best, abs=0.1)
    assert (found[CalQL] > found[CQL] + 0.05).all()

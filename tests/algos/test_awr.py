import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3rlpy.algos import AWR, DiscreteAWR
from d3rlpy.dataset import MDPDataset, Transition, TransitionMiniBatch, gather, rows_of
from d3rlpy.dataset._kernels import MOST_STEPS
from d3rlpy.functional import backward_recursion
from d3rlpy.impl import EpisodeBatch
from d3rlpy.models.encoders import PixelEncoderFactory, VectorEncoderFactory
from d3rlpy.preprocessing import ClipRewardScaler, Scalers
from d3rlpy.testing import corridor, two_step_dataset
from tests.algos.restate import mlp, numpy_of
from tests.algos.test_dqn import QUIET
from tests.algos.test_td3 import STATES
from tests.helpers import make_dataset, random_batch

SMALL = VectorEncoderFactory(hidden_units=(16,))
QUICK = {"n_actor_updates": 4, "n_critic_updates": 4, "batch_size_per_update": 8}
BOTH = pytest.mark.parametrize(("cls", "discrete"), [(AWR, False), (DiscreteAWR, True)])


def make(cls, encoder=SMALL, **params):
    return cls(
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        **{"random_state": 0, "gamma": 0.9, **QUICK, **params},
    )


def impl_of(cls, **params):
    return make(cls, **params).create_impl((3,), 2).impl.double()


def a_batch(discrete):
    return random_batch(32, discrete=discrete, dtype=torch.float64)


def slow_return(transition, value, gamma, lam, reward):
    """TD(lambda) of one transition by its definition: a mean of the n-step returns, the last of which gets the rest.

    ``(1 - lam) sum_{n < N} lam^(n-1) G_n + lam^(N-1) G_N``, where ``G_n`` are n rewards and the value that follows.
    """
    step, rewards, n_step_returns = transition, 0.0, []
    while step is not None:
        n = len(n_step_returns)
        rewards += gamma**n * reward(step.reward)
        n_step_returns.append(rewards + gamma ** (n + 1) * value(step.next_observation) * (1 - step.terminal))
        step = step.next_transition
    weights = (1 - lam) * lam ** np.arange(len(n_step_returns))
    weights[-1] = lam ** (len(n_step_returns) - 1)
    assert weights.sum() == pytest.approx(1)
    return float(np.dot(weights, n_step_returns))


def value_of(algo):
    def value(observation):
        with torch.no_grad():
            return algo.impl.value_func(algo._observations(observation[None])).item()

    return value


def returns_of(algo, mini_batch):
    batch = EpisodeBatch.of(mini_batch, algo.fitted_scalers_, algo.impl.device)
    return algo.impl.returns(batch)[:, 0].tolist()


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
@BOTH
def test_returns_are_those_of_the_definition_for_terminal_and_timed_out_episodes(cls, discrete, lam):
    dataset = make_dataset(discrete)  # the first three episodes end by terminals, the others by timeouts
    algo = make(cls, lam=lam, scaler="standard").build_with_dataset(dataset)
    rows, indices = rows_of(dataset)
    picks = np.random.default_rng(0).permutation(indices)[:40]
    expected = [slow_return(Transition.view(rows, int(i)), value_of(algo), 0.9, lam, reward=lambda r: r) for i in picks]
    assert returns_of(algo, gather(rows, picks, gamma=0.9)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_returns_by_hand():
    """Two steps and a timeout, two steps and a terminal; V is 10 everywhere."""
    dataset = MDPDataset(
        np.zeros((5, 3), np.float32), np.full((5, 2), 0.5), np.array([1, 2, 0, 3, 4.0]),
        np.array([0, 0, 0, 0, 1]), timeouts=np.array([0, 0, 1, 0, 0]),
    )  # fmt: skip
    algo = make(AWR, gamma=0.5, lam=0.5).build_with_dataset(dataset)
    with torch.no_grad():
        for p in algo.impl.value_func.parameters():
            p.zero_()
        algo.impl.value_func.head.bias.fill_(10.0)
    rows, indices = rows_of(dataset)  # row 2 is only a successor
    second = 2 + 0.5 * 10
    fourth = 4.0
    first, third = 1 + 0.5 * (0.5 * 10 + 0.5 * second), 3 + 0.5 * (0.5 * 10 + 0.5 * fourth)
    got = returns_of(algo, gather(rows, indices, gamma=0.5))
    assert got == pytest.approx([first, second, third, fourth])


def test_returns_stop_where_next_observations_cut_the_episode():
    n = 6
    observations = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    following = np.roll(observations, -1, axis=0)
    following[2] += 1  # row 3 is not what followed row 2
    dataset = MDPDataset(
        observations, np.full((n, 2), 0.5), np.arange(n, dtype=np.float32), np.arange(n) == n - 1,
        next_observations=following,
    )  # fmt: skip
    algo = make(AWR, lam=1.0).build_with_dataset(dataset)
    rows, indices = rows_of(dataset)
    value = value_of(algo)
    got = returns_of(algo, gather(rows, indices, gamma=0.9))
    assert got[2] == pytest.approx(2 + 0.9 * value(following[2]), rel=1e-5)
    assert got[0] == pytest.approx(0 + 0.9 * 1 + 0.81 * got[2], rel=1e-5)


@pytest.mark.parametrize("n_steps", [1, 3])
@BOTH
def test_an_update_by_hand_uses_scaled_rewards_of_the_whole_episode(cls, discrete, n_steps, monkeypatch):
    dataset = make_dataset(discrete)
    algo = make(cls, reward_scaler=ClipRewardScaler(low=-0.5, high=0.5)).build_with_dataset(dataset)
    transitions = [dataset.episodes[e].transitions[t] for e, t in ((0, 0), (0, 7), (4, 3))]
    seen = []
    monkeypatch.setattr(algo.impl, "update", lambda batch: seen.append(algo.impl.returns(batch)) or {})
    algo.update(TransitionMiniBatch(transitions, gamma=0.9, n_steps=n_steps))
    value = value_of(algo)
    expected = [slow_return(t, value, 0.9, 0.95, reward=lambda r: float(np.clip(r, -0.5, 0.5))) for t in transitions]
    assert seen[0][:, 0].tolist() == pytest.approx(expected, rel=1e-5)


@BOTH
def test_fit_uses_scaled_rewards_of_the_whole_episode(cls, discrete, monkeypatch):
    dataset = make_dataset(discrete)
    algo = make(cls, batch_size=16, reward_scaler=ClipRewardScaler(low=-0.5, high=0.5)).build_with_dataset(dataset)
    seen = []
    monkeypatch.setattr(algo.impl, "update", lambda batch: seen.append(algo.impl.returns(batch)) or {})
    algo.fit(dataset, n_steps=1, shuffle=False, **QUIET)
    transitions = [t for episode in dataset for t in episode][:16]
    value = value_of(algo)
    expected = [slow_return(t, value, 0.9, 0.95, reward=lambda r: float(np.clip(r, -0.5, 0.5))) for t in transitions]
    assert seen[0][:, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_returns_of_images_are_computed_in_parts_from_stacked_frames(monkeypatch):
    monkeypatch.setattr("d3rlpy.impl.MOST_NUMBERS", 7 * 2 * 84 * 84)
    dataset = make_dataset(False, pixel=True)
    encoder = PixelEncoderFactory(filters=((4, 8, 8),), feature_size=8)
    algo = make(AWR, encoder, scaler="pixel", n_frames=2).build_with_dataset(dataset)
    rows, indices = rows_of(dataset)
    mini_batch = gather(rows, indices[[3, 12, 40]], n_frames=2, gamma=0.9)
    batch = EpisodeBatch.of(mini_batch, algo.fitted_scalers_, algo.impl.device)
    parts = list(batch.steps)
    assert [len(p.rewards) for p in parts] == [7, 7, 7, 2]  # 7, 8 and 8 transitions to the end
    batch.steps = iter(parts)
    whole = gather(rows, indices, n_frames=2, gamma=0.9)  # every transition, so one can follow it by its index
    values = algo.impl.state_values(algo._observations(whole.next_observations))[:, 0].tolist()
    expected = []
    for start, end in ((3, 10), (12, 20), (40, 48)):
        x = 0.0
        for i in range(end - 1, start - 1, -1):
            last = i == end - 1
            x = whole.rewards[i, 0] + whole.discounts[i, 0] * (values[i] if last else 0.05 * values[i] + 0.95 * x)
        expected.append(x)
    assert algo.impl.returns(batch)[:, 0].tolist() == pytest.approx(expected, rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), timeouts=st.booleans(), data=st.data())
def test_the_rest_of_episodes_is_what_following_the_links_finds(lengths, timeouts, data):
    n, ends = sum(lengths), np.cumsum(lengths) - 1
    flags = np.isin(np.arange(n), ends)
    if timeouts:
        flags[-1] = False
        n, flags, ends = n + 1, np.append(flags, False), np.append(ends[:-1], n)
    last = np.isin(np.arange(n), ends)
    dataset = MDPDataset(np.zeros((n, 1)), np.full((n, 1), 0.5), np.zeros(n), flags, timeouts=last & ~flags)
    rows, indices = rows_of(dataset)
    picks = np.array(data.draw(st.lists(st.sampled_from(indices.tolist()), min_size=1)))
    expected = set()
    for row in picks:
        step = Transition.view(rows, int(row))
        while step is not None:
            expected.add(step._row)
            step = step.next_transition
    assert rows.following(picks).tolist() == sorted(expected)
    assert rows.continues(indices).tolist() == [rows.has_next(int(i)) for i in indices]


def test_the_rest_of_an_episode_that_is_longer_than_a_link_looks():
    n = 2 * MOST_STEPS + 1000
    dataset = MDPDataset(np.zeros((n, 1)), np.full((n, 1), 0.5), np.zeros(n), np.arange(n) == n - 1)
    assert np.array_equal(dataset.rows.following(np.array([5])), np.arange(5, n))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 1000))
def test_the_recursion_by_doubling_is_that_of_a_loop(n, seed):
    values, factors = torch.rand((2, n, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected, x = [], 0.0
    for t in reversed(range(n)):
        x = values[t].item() + factors[t].item() * x
        expected.append(x)
    assert backward_recursion(values, factors)[:, 0].tolist() == pytest.approx(expected[::-1])


def test_returns_do_not_depend_on_dropout_and_leave_no_gradient():
    dataset = make_dataset(False)
    algo = make(AWR, VectorEncoderFactory(hidden_units=(16,), dropout_rate=0.5)).build_with_dataset(dataset)
    rows, indices = rows_of(dataset)
    mini_batch = gather(rows, indices, gamma=0.9)
    expected = returns_of(algo, mini_batch)
    algo.impl.train()
    batch = EpisodeBatch.of(mini_batch, Scalers(), algo.impl.device)
    got = algo.impl.returns(batch)
    assert not got.requires_grad
    assert got[:, 0].tolist() == pytest.approx(expected)
    assert algo.impl.value_func.training


def restated_log_prob(impl, b, discrete):
    outputs = mlp(impl.policy, b["observations"])
    if discrete:
        logits = outputs - outputs.max(axis=1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return log_probs[np.arange(len(logits)), b["actions"]][:, None]
    p = impl.policy.std_parameter.detach().numpy()
    log_std = -5 + 7 / (1 + np.exp(-p))
    z = (b["actions"] - np.tanh(outputs)) / np.exp(log_std)
    return (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(axis=1, keepdims=True)


@BOTH
def test_the_losses_and_weights_are_those_of_the_paper(cls, discrete):
    impl, batch = impl_of(cls, beta=0.5, max_weight=3.0), a_batch(discrete)
    b = numpy_of(batch)
    returns = np.random.default_rng(0).normal(size=(32, 1))
    v = mlp(impl.value_func, b["observations"])
    target = torch.from_numpy(returns)
    assert impl.value_loss(batch.observations, target).item() == pytest.approx(((returns - v) ** 2).mean())
    advantage = returns - v
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-5)
    weights = np.minimum(np.exp(advantage / 0.5), 3.0)
    assert (weights == 3.0).any()
    got = impl.weights(batch.observations, target)
    assert got.numpy() == pytest.approx(weights)
    expected = -(weights * restated_log_prob(impl, b, discrete)).mean()
    assert impl.actor_loss(batch.observations, batch.actions, got).item() == pytest.approx(expected)


@BOTH
def test_advantages_are_those_of_old_returns_over_the_new_values(cls, discrete, monkeypatch):
    """Algorithm 1: R comes from V of the iteration before, the policy's advantage subtracts V of this one."""
    impl, batch = impl_of(cls, critic_learning_rate=0.1), a_batch(discrete)
    old = batch.rewards + batch.discounts * impl.value_func(batch.next_observations).detach()
    seen = []
    weights = impl.weights
    monkeypatch.setattr(impl, "weights", lambda x, returns: seen.append((x, returns)) or weights(x, returns))
    before = impl.value_func(batch.observations).detach()
    metrics = impl.step(batch)
    after = impl.value_func(batch.observations).detach()
    assert not torch.allclose(before, after)
    assert torch.allclose(seen[0][1], old)
    assert metrics["weights"].item() == pytest.approx(weights(batch.observations, old).mean().item())


def test_an_update_makes_the_given_numbers_of_gradient_steps_on_mini_batches(monkeypatch):
    impl = impl_of(AWR, n_actor_updates=5, n_critic_updates=3, batch_size_per_update=12)
    sizes = {"value_loss": [], "actor_loss": []}
    for name, seen in sizes.items():
        loss = getattr(impl, name)
        monkeypatch.setattr(impl, name, lambda *a, loss=loss, seen=seen: seen.append(a[0].clone()) or loss(*a))
    batch = a_batch(False)
    impl.step(batch)
    assert [len(x) for x in sizes["value_loss"]] == [12] * 3
    assert [len(x) for x in sizes["actor_loss"]] == [12] * 5
    first_pass = torch.cat(sizes["actor_loss"])[:32]  # every row once before one comes again
    assert torch.equal(first_pass.sort(dim=0).values, batch.observations.sort(dim=0).values)


@BOTH
def test_the_two_regressions_move_nothing_else(cls, discrete):
    impl, batch = impl_of(cls), a_batch(discrete)
    ones = torch.ones_like(batch.rewards)
    impl.value_loss(batch.observations, ones).backward()
    assert all(p.grad is None for p in impl.policy.parameters())
    impl.zero_grad(set_to_none=True)
    impl.actor_loss(batch.observations, batch.actions, impl.weights(batch.observations, ones)).backward()
    assert all(p.grad is None for p in impl.value_func.parameters())


@pytest.mark.parametrize("cls", [AWR, DiscreteAWR])
def test_what_it_does_not_have_says_so(cls):
    algo = make(cls).create_impl((3,), 2)
    assert not hasattr(algo, "predict_value")
    assert "n_steps" not in algo.get_params()
    with pytest.raises(TypeError, match="has no parameter 'n_steps'"):
        cls(n_steps=3)
    with pytest.raises(ValueError, match="beta=0 is out of bounds"):
        algo.set_params(beta=0)


@pytest.mark.slow
def test_state_values_of_the_behaviour_policy_are_found():
    """With lambda 1 the returns of two steps need no values; with lambda 0 they only see one reward."""
    dataset = two_step_dataset(behavior=(0.0, 0.0))
    for lam in (0.0, 1.0):
        algo = make(
            AWR, lam=lam, batch_size=512, batch_size_per_update=128, n_critic_updates=100, n_actor_updates=1,
            critic_learning_rate=1e-2, critic_optim_factory="adam",
        ).fit(dataset, n_steps=4, **QUIET)  # fmt: skip
        second = 1 - 0.25 - 0.2**2 / 3  # E[1 - (a + 0.5)^2] for a uniform in [-0.2, 0.2]
        first = -0.25 - 0.2**2 / 3 + 0.9 * second
        values = algo.impl.state_values(torch.from_numpy(STATES))[:, 0].tolist()
        assert values == pytest.approx([first, second], abs=0.05)


@pytest.mark.slow
def test_awr_acts_better_than_the_data():
    dataset = two_step_dataset(behavior=(0.4, -0.4))  # the best actions, +-0.5, lie at the side of the data
    algo = make(
        AWR, beta=0.2, batch_size=1024, batch_size_per_update=256, n_critic_updates=50, n_actor_updates=100,
        critic_learning_rate=1e-2, actor_learning_rate=1e-2, critic_optim_factory="adam", actor_optim_factory="adam",
    ).fit(dataset, n_steps=6, **QUIET)  # fmt: skip
    first, second = algo.predict(STATES)[:, 0]
    assert first == pytest.approx(0.5, abs=0.06)
    assert second == pytest.approx(-0.5, abs=0.06)


@pytest.mark.slow
def test_discrete_awr_leaves_a_corridor_whose_data_walk_at_random():
    algo = make(
        DiscreteAWR, batch_size=256, batch_size_per_update=64, n_critic_updates=50, n_actor_updates=50, beta=0.3,
        critic_learning_rate=1e-2, actor_learning_rate=1e-2, critic_optim_factory="adam", actor_optim_factory="adam",
    ).fit(corridor(), n_steps=20, **QUIET)  # fmt: skip
    assert algo.predict(np.eye(4, dtype=np.float32)).tolist() == [1, 1, 1, 1]

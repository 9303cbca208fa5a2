"""The replay buffer against its slow twin, against data sets, and through files."""

import copy
import json
import pickle
import warnings
import zlib

import gymnasium
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import d3rlpy
from d3rlpy.dataset import MDPDataset, TransitionMiniBatch, _kernels, gather, hdf5, rows_of
from d3rlpy.online import ReplayBuffer
from d3rlpy.preprocessing import ClipRewardScaler, MultiplyRewardScaler

from ..dataset.generated import dataset_of, flags, logs
from .slow_buffer import SlowBuffer

MODEST = settings(deadline=None, max_examples=100)
FEWER = settings(deadline=None, max_examples=40)
FIELDS = ("observations", "actions", "rewards", "next_observations", "terminals", "discounts", "n_steps")

KINDS = {  # observation shape, discrete actions, action size
    "vector": ((2,), False, 2),
    "ids": ((1,), True, 3),
    "image": ((1, 2, 2), True, 3),
}


def buffer_of(kind, maxlen, **options):
    shape, discrete, size = KINDS[kind]
    return ReplayBuffer(maxlen, observation_shape=shape, discrete_action=discrete, action_size=size, seed=0, **options)


class Walk:
    """Random steps for a buffer and its twin: an episode goes on from what came before, except where it jumps."""

    def __init__(self, kind, seed):
        self.kind, self.rng = kind, np.random.default_rng(seed)
        self.shape, self.discrete, self.size = KINDS[kind]
        self.state = self.observation()

    def observation(self):
        if len(self.shape) == 3:
            return self.rng.integers(0, 256, self.shape, dtype=np.uint8)
        return self.rng.normal(size=self.shape).astype(np.float32)

    def step(self, end, known, jump):
        """Arguments of ``append``: ``end`` is "", "terminal" or "timeout"."""
        after = self.observation()
        arguments = {
            "observation": self.state,
            "action": int(self.rng.integers(self.size))
            if self.discrete
            else self.rng.uniform(-1, 1, self.size).astype(np.float32),
            "reward": float(np.float32(self.rng.normal())),
            "terminal": end == "terminal",
            "timeout": end == "timeout",
            "next_observation": after if known else None,
        }
        self.state = self.observation() if end or jump else after
        return arguments


STEP = st.tuples(
    st.sampled_from(["", "", "", "", "terminal", "timeout"]), st.booleans(), st.sampled_from([False] * 5 + [True])
)
OTHER = st.one_of(
    st.just("clip"),
    st.integers(1, 5),  # look at everything with so many steps
    st.lists(STEP, min_size=1, max_size=6),  # a data set of these steps
)
CHANGES = st.lists(st.one_of(STEP, STEP, STEP, STEP, OTHER), min_size=1, max_size=60)


def apply(changes, buffer, twin, walk):
    """The same changes to a buffer and its twin."""
    for change in changes:
        if isinstance(change, int):
            assert_equals_twin(buffer, twin, 1, change)
        elif isinstance(change, list):
            extend(change, buffer, twin, walk)
        elif change == "clip":
            buffer.clip_episode()
            twin.clip_episode()
            walk.state = walk.observation()
        else:
            step = walk.step(*change)
            buffer.append(**step)
            twin.append(**step)


def extend(changes, buffer, twin, walk):
    """Steps by way of another buffer and its data set, for the twin one by one."""
    apply(["clip"], buffer, twin, walk)
    other = buffer_of(walk.kind, len(changes))
    steps = [walk.step(*change) for change in changes]
    for step in steps:
        other.append(**step)
    walk.state = walk.observation()
    if len(other):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # more rows than there is room for
            whole = sum(len(episode.rewards) for episode in other.episodes) == other.n_rows
            buffer.extend(other.episodes if whole else other.to_mdp_dataset())
        for step in steps:
            twin.append(**step)
        twin.clip_episode()


def changed(kind, maxlen, changes, seed=0):
    buffer, twin, walk = buffer_of(kind, maxlen), SlowBuffer(maxlen), Walk(kind, seed)
    apply(changes, buffer, twin, walk)
    return buffer, twin, walk


def assert_equals_twin(buffer, twin, n_frames, n_steps, gamma=0.9):
    if twin.transitions():
        expected = twin.batch(twin.transitions(), n_frames, n_steps, gamma)
        batch = gather(buffer.rows, buffer.rows.transition_indices(), n_frames, n_steps, gamma)
        for name, array in expected.items():
            np.testing.assert_allclose(getattr(batch, name), array, rtol=1e-5, atol=1e-6, err_msg=name)


ANY = {"kind": st.sampled_from(list(KINDS)), "maxlen": st.integers(1, 20), "changes": CHANGES}


@MODEST
@given(**ANY, seed=st.integers(0, 99), n_steps=st.integers(1, 8), n_frames=st.integers(1, 4))
def test_every_transition_equals_the_slow_twin(kind, maxlen, changes, seed, n_steps, n_frames):
    buffer, twin, _ = changed(kind, maxlen, changes, seed)
    assert (len(buffer), buffer.size(), buffer.n_rows) == (*[len(twin.transitions())] * 2, len(twin.steps))
    assert buffer.is_open == twin.is_open
    assert_equals_twin(buffer, twin, n_frames if kind == "image" else 1, n_steps)


@MODEST
@given(**ANY)
def test_links_equal_the_slow_twin(kind, maxlen, changes):
    buffer, twin, _ = changed(kind, maxlen, changes)
    rows = buffer.rows
    for row, mine in enumerate(rows.newest_rows(buffer.n_rows).tolist()):
        assert rows.is_transition(mine) == twin.is_transition(row)
        if not twin.is_transition(row):
            continue
        assert rows.has_next(mine) == twin.linked(row)
        np.testing.assert_array_equal(rows.next_observation(mine), twin.successor(row))
        assert (rows.previous_row(mine) is not None) == (len(twin.history(row)) > 1)
        (transition,) = gather(rows, [mine]).transitions
        links = [transition]
        while links[-1].next_transition is not None:
            links.append(links[-1].next_transition)
        assert len(links) == len(twin.segment(row))
        assert (transition.prev_transition is not None) == (len(twin.history(row)) > 1)


@MODEST
@given(**ANY, data=st.data())
def test_the_rest_of_episodes_is_what_the_slow_twin_finds(kind, maxlen, changes, data):
    buffer, twin, _ = changed(kind, maxlen, changes)
    assume(len(buffer))
    picked = data.draw(st.lists(st.sampled_from(twin.transitions()), min_size=1, max_size=5))
    expected = sorted({later for row in picked for later in twin.segment(row)})
    numbers = buffer.rows.newest_rows(buffer.n_rows)
    following = buffer.rows.following(numbers[picked])
    assert following.tolist() == numbers[expected].tolist()
    assert buffer.rows.places(following, numbers[picked]).tolist() == [expected.index(row) for row in picked]
    assert buffer.rows.continues(following).tolist() == [twin.linked(row) for row in expected]


@MODEST
@given(**ANY, gamma=st.sampled_from([0.0, 0.9, 1.0]), seed=st.integers(0, 99))
def test_returns_to_go_equal_the_slow_twin_and_those_of_the_data_set(kind, maxlen, changes, gamma, seed):
    buffer, twin, _ = changed(kind, maxlen, changes, seed)
    assume(len(buffer))
    returns = gather(buffer.rows, buffer.rows.transition_indices(), gamma=gamma).returns_to_go()[:, 0]
    expected = [twin.return_to_go(row, gamma) for row in twin.transitions()]
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)
    theirs = gather(*rows_of(buffer.to_mdp_dataset()), gamma=gamma).returns_to_go()[:, 0]
    np.testing.assert_array_equal(returns, theirs)


def test_returns_to_go_run_across_the_end_of_the_arrays_and_stop_at_the_newest_row():
    buffer = buffer_of("ids", 4)
    steps(buffer, 6, first=1.0)  # rewards 3 to 6 are left, in rows 2, 3, 0, 1; the episode is open
    batch = gather(buffer.rows, buffer.rows.transition_indices(), gamma=0.5)
    assert batch.returns_to_go()[:, 0].tolist() == [3 + 4 / 2 + 5 / 4 + 6 / 8, 4 + 5 / 2 + 6 / 4, 5 + 6 / 2]
    scaler = MultiplyRewardScaler(-1.0)  # -6 is the worst, and -6 / (1 - 0.5) follows
    batch = buffer.make_sampler(1, gamma=0.5, seed=0, reward_scaler=scaler).sample()
    expected = {2: -(3 + 4 / 2 + 5 / 4 + 6 / 8) - 12 / 16, 3: -(4 + 5 / 2 + 6 / 4) - 12 / 8, 0: -(5 + 6 / 2) - 12 / 4}
    assert batch.returns_to_go().item() == expected[batch.indices.item()]


@MODEST
@given(**ANY, n_steps=st.integers(1, 8))
def test_the_data_set_of_a_buffer_holds_the_same_transitions(kind, maxlen, changes, n_steps):
    buffer, twin, _ = changed(kind, maxlen, changes)
    assume(len(buffer))
    dataset = buffer.to_mdp_dataset()
    rows, indices = rows_of(dataset)
    assert indices.tolist() == twin.transitions()
    n_frames = 3 if kind == "image" else 1
    mine = gather(buffer.rows, buffer.rows.transition_indices(), n_frames, n_steps, 0.9)
    theirs = gather(rows, indices, n_frames, n_steps, 0.9)
    for name in (*FIELDS, "next_actions"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)
    assert dataset.get_action_size() == buffer.get_action_size()
    assert [e.compute_return() for e in buffer.episodes] == [e.compute_return() for e in dataset.episodes]
    dataset.observations[:] = 0  # a copy
    assert_equals_twin(buffer, twin, n_frames, n_steps)


@MODEST
@given(**ANY)
def test_the_report_counts_every_row(kind, maxlen, changes):
    buffer, twin, _ = changed(kind, maxlen, changes)
    assume(len(buffer))
    report = buffer.to_mdp_dataset().report
    ends = [step["ends"] for step in twin.steps]
    assert (report.rows, report.transitions) == (buffer.n_rows, len(buffer))
    assert report.rows == report.transitions + sum(report.dropped.values())
    assert report.episodes == sum(ends) + buffer.is_open
    assert report.unfinished_rows == [*reversed(ends), True].index(True)
    apart = [row for row in range(len(ends) - 1) if not ends[row] and twin.is_transition(row)]
    differ = [(twin.successor(row) != twin.steps[row + 1]["observation"]).any() for row in apart]
    assert report.cut_links == sum(differ)


@FEWER
@given(log=logs(alike=(True, False)), room=st.integers(0, 10))
def test_a_data_set_goes_in_and_comes_out_the_same(log, room):
    assume(log.transitions())
    dataset = dataset_of(log, action_size=5)
    buffer = ReplayBuffer(len(dataset.rows) + room, dataset=dataset)
    again = buffer.to_mdp_dataset()
    assert again.report == dataset.report.__class__(**dataset.report.to_dict() | {"unfinished_rows": 0})
    for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dataset, name))
    for name in FIELDS:
        mine, theirs = gather(*rows_of(again), n_steps=3), gather(*rows_of(dataset), n_steps=3)
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    same = ReplayBuffer(len(dataset.rows) + room, episodes=dataset.episodes)
    assert len(same) == len(buffer)


@FEWER
@given(**ANY, after=CHANGES, n_steps=st.integers(1, 4))
def test_a_loaded_buffer_goes_on_as_if_nothing_had_happened(tmp_path_factory, kind, maxlen, changes, after, n_steps):
    buffer, twin, walk = changed(kind, maxlen, changes)
    path = tmp_path_factory.mktemp("buffer") / "buffer.h5"
    buffer.dump(path)
    loaded = ReplayBuffer.load(str(path))
    for other in (loaded, copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))):
        assert repr(other) == repr(buffer)
        assert other.is_open == buffer.is_open
        other_twin, other_walk = copy.deepcopy(twin), copy.deepcopy(walk)
        apply(after, other, other_twin, other_walk)
        assert_equals_twin(other, other_twin, 1, n_steps)
    apply(after, buffer, twin, walk)
    if len(buffer):
        for _ in range(3):
            mine, theirs = buffer.sample(1, n_steps=n_steps), loaded.sample(1, n_steps=n_steps)
            for name in FIELDS:
                np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def steps(buffer, count, first=0.0, **options):
    """Append observations first, first + 1, ...; the reward is the observation."""
    for k in range(count):
        buffer.append([first + k], 0, first + k, **({"terminal": False} | options))


def test_an_episode_across_the_seam_by_hand():
    buffer = buffer_of("ids", 5)
    steps(buffer, 7)  # rows 0 to 4 now hold the steps 5, 6, 2, 3, 4
    assert buffer.rows.observations.reshape(-1).tolist() == [5, 6, 2, 3, 4]
    assert (len(buffer), buffer.n_rows, buffer.maxlen) == (4, 5, 5)
    batch = gather(buffer.rows, [2, 3, 4, 0], n_steps=3, gamma=0.5)
    assert batch.rewards.reshape(-1).tolist() == [2 + 3 / 2 + 4 / 4, 3 + 4 / 2 + 5 / 4, 4 + 5 / 2, 5]
    assert batch.next_observations.reshape(-1).tolist() == [5, 6, 6, 6]
    assert batch.n_steps.reshape(-1).tolist() == [3, 3, 2, 1]
    assert batch.discounts.reshape(-1).tolist() == [0.125, 0.125, 0.25, 0.5]
    with pytest.raises(IndexError, match="row 1 is not a transition"):
        gather(buffer.rows, [1])


def test_frames_across_the_seam_by_hand():
    buffer = buffer_of("image", 4)
    for k in range(6):  # rows 0 to 3 now hold the frames 4, 5, 2, 3
        buffer.append(np.full((1, 2, 2), k, np.uint8), 0, 0.0, terminal=False)
    batch = gather(buffer.rows, [2, 3, 0], n_frames=3)
    assert batch.observations[:, :, 0, 0].tolist() == [[2, 2, 2], [2, 2, 3], [2, 3, 4]]  # 1 is overwritten
    assert batch.next_observations[:, :, 0, 0].tolist() == [[2, 2, 3], [2, 3, 4], [3, 4, 5]]


def test_time_limits_keep_their_successor_and_terminals_do_not_bootstrap():
    buffer = buffer_of("ids", 10)
    buffer.append([1.0], 0, 1.0, terminal=False)
    buffer.append([2.0], 0, 2.0, terminal=False, timeout=True, next_observation=[3.0])
    buffer.append([4.0], 0, 4.0, terminal=True, timeout=True)  # a terminal wins
    batch = gather(buffer.rows, buffer.rows.transition_indices(), n_steps=2, gamma=0.5)
    assert batch.next_observations.reshape(-1).tolist() == [3, 3, 0]
    assert batch.discounts.reshape(-1).tolist() == [0.25, 0.5, 0]
    assert batch.rewards.reshape(-1).tolist() == [2, 2, 4]
    assert buffer.to_mdp_dataset().timeouts.tolist() == [False, True, False]


def test_the_last_step_of_a_time_limit_without_successor_is_no_transition():
    buffer = buffer_of("ids", 10)
    steps(buffer, 3)
    assert len(buffer) == 2
    buffer.clip_episode()
    buffer.clip_episode()  # nothing is open
    assert (len(buffer), buffer.is_open) == (2, False)
    steps(buffer, 1, first=7.0)
    assert len(buffer) == 2
    assert buffer.to_mdp_dataset().report.to_dict() == {
        "rows": 4, "transitions": 2, "episodes": 2, "cut_links": 0, "unfinished_rows": 1,
        "dropped": {"last row of a timed-out episode, its successor unknown": 2},
    }  # fmt: skip
    assert [len(episode) for episode in buffer.episodes] == [2]


def test_observations_are_stored_once():
    buffer, walk = buffer_of("image", 50), Walk("image", 0)
    for k in range(200):
        buffer.append(**walk.step("timeout" if k % 10 == 9 else "", known=True, jump=False))
    assert buffer.rows._n_slots - 1 <= 5 + 2  # one for each episode, one for the newest step, one while it changes


def test_n_steps_may_grow_at_any_time():
    buffer = buffer_of("ids", 100)
    sampler = buffer.make_sampler(5, n_steps=1, seed=0)
    steps(buffer, 30)
    assert sampler.sample().n_steps.max() == 1
    assert gather(buffer.rows, [0], n_steps=20).n_steps.item() == 20
    steps(buffer, 100, first=30.0)
    assert gather(buffer.rows, [40], n_steps=20).n_steps.item() == 20
    assert gather(buffer.rows, [40], n_steps=50).n_steps.item() == 50
    assert sampler.sample().n_steps.max() == 1


def test_batches_are_fresh_and_those_of_samplers_are_not():
    buffer = buffer_of("ids", 100)
    steps(buffer, 50)
    first, second = buffer.sample(8), buffer.sample(8)
    assert isinstance(first, TransitionMiniBatch)
    assert first.observations.tolist() != second.observations.tolist()
    sampler = buffer.make_sampler(8)
    assert sampler.sample() is sampler.sample()


def test_draws_are_even_over_what_the_buffer_holds_now():
    buffer = buffer_of("ids", 10)
    sampler = buffer.make_sampler(10, seed=0)
    steps(buffer, 14)  # 4 to 13; nothing follows yet on 13
    buffer.append([14.0], 0, 14.0, terminal=True)
    assert sampler.n_transitions == len(buffer) == 10
    seen = np.concatenate([sampler.sample().observations[:, 0].copy() for _ in range(2000)]).astype(int)
    counts = np.bincount(seen)
    assert counts[:5].sum() == 0
    assert abs(counts[5:] - 2000).max() < 5 * np.sqrt(20_000 * 0.1 * 0.9)


def test_the_seed_decides_and_is_drawn_from_the_global_one():
    def drawn(**options):
        buffer = ReplayBuffer(50, observation_shape=(1,), action_size=2, discrete_action=True, **options)
        steps(buffer, 50)
        sampler = buffer.make_sampler(20, **options)
        return buffer.sample(20).observations.tolist(), sampler.sample().observations.tolist()

    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
    d3rlpy.seed(3)
    first = drawn()
    d3rlpy.seed(3)
    assert drawn() == first != drawn()


@FEWER
@given(before=st.integers(0, 70), between=st.integers(0, 10), n_steps=st.integers(1, 3))
def test_a_saved_sampler_state_continues_the_same_batches(tmp_path_factory, before, between, n_steps):
    buffer = buffer_of("ids", 30)
    steps(buffer, 20)
    sampler = buffer.make_sampler(4, n_steps=n_steps, seed=1)
    for k in range(before):
        sampler.sample()
        steps(buffer, 1, first=100.0 + k)
    state = json.loads(json.dumps(sampler.get_state()))
    path = tmp_path_factory.mktemp("buffer") / "buffer.h5"
    buffer.dump(path)
    loaded = ReplayBuffer.load(path)
    other = loaded.make_sampler(4, n_steps=n_steps, seed=2)
    other.set_state(state)
    for k in range(between):
        mine, theirs = sampler.sample(), other.sample()
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
        steps(buffer, 1, first=500.0 + k)
        steps(loaded, 1, first=500.0 + k)


@FEWER
@given(maxlen=st.integers(2, 15), counts=st.lists(st.integers(0, 20), min_size=1, max_size=8), seed=st.integers(0, 9))
def test_rewards_are_scaled_once_and_before_they_are_summed(maxlen, counts, seed):
    buffer, walk, scaled = buffer_of("vector", maxlen), Walk("vector", seed), []

    class Counting(ClipRewardScaler):
        def transform_numpy(self, rewards):
            scaled.extend(rewards.tolist())
            return super().transform_numpy(rewards)

    sampler = buffer.make_sampler(1, n_steps=3, gamma=0.5, seed=0, reward_scaler=Counting(-0.5, 0.5))
    appended = 0
    for count in counts:
        for _ in range(count):
            buffer.append(**walk.step("", known=False, jump=False))
        appended += count
        if len(buffer):
            batch = sampler.sample()
            fresh = gather(buffer.rows, batch.indices, n_steps=3, gamma=0.5)
            expected = fresh.with_rewards(lambda r: np.clip(r, -0.5, 0.5))
            np.testing.assert_array_equal(batch.rewards, expected.rewards)
            assert len(scaled) <= appended


def test_a_reward_scaler_leaves_the_buffer_alone():
    buffer = buffer_of("ids", 5)
    steps(buffer, 5, first=1.0)
    buffer.make_sampler(4, seed=0, reward_scaler=MultiplyRewardScaler(10.0)).sample()
    assert buffer.rows.rewards.tolist() == [1, 2, 3, 4, 5]


def test_spaces_of_an_environment_are_taken_over():
    buffer = ReplayBuffer(10, gymnasium.make("CartPole-v1"))
    assert (buffer.get_observation_shape(), buffer.is_action_discrete(), buffer.get_action_size()) == ((4,), True, 2)
    buffer = ReplayBuffer(10, env=gymnasium.make("Pendulum-v1"))
    assert (buffer.get_observation_shape(), buffer.is_action_discrete(), buffer.get_action_size()) == ((3,), False, 1)
    assert repr(buffer) == (
        "ReplayBuffer(0 of 10 rows, 0 transitions, observations (3,), continuous actions of size 1)"
    )


def small(action_size=None, **options):
    return MDPDataset(np.zeros((4, 1)), [0, 1, 0, 1], np.zeros(4), flags(4, 3), action_size=action_size, **options)


def test_fewer_ids_than_the_environment_has_are_fine():
    kind = {"observation_shape": (1,), "discrete_action": True}
    assert ReplayBuffer(10, dataset=small(), action_size=5, **kind).get_action_size() == 5
    assert ReplayBuffer(10, dataset=small()).get_action_size() == 2
    with pytest.raises(ValueError, match="action_size is 5 so far, but the data has 6"):
        ReplayBuffer(10, dataset=small(6), action_size=5, **kind)


def test_more_data_than_room_is_said():
    with pytest.warns(UserWarning, match="4 rows were given, the last 3 are kept: maxlen=3"):
        buffer = ReplayBuffer(3, dataset=small())
    assert len(buffer) == 3


def test_named_columns_are_left_out_and_discounts_refused():
    with pytest.warns(UserWarning, match=r"keeps no named columns, \['behavior_log_prob'\] are left out"):
        ReplayBuffer(10, dataset=small(columns={"behavior_log_prob": np.zeros(4)}))
    with pytest.raises(ValueError, match="a column 'discount', which a replay buffer cannot keep"):
        ReplayBuffer(10, dataset=small(columns={"discount": np.ones(4)}))


VECTOR = {"observation": [0.0, 1.0], "action": [0.5, -0.5], "reward": 0.0, "terminal": False}
IDS = {"observation": [0.0], "action": 0, "reward": 0.0, "terminal": False}
IMAGE = {"observation": np.zeros((1, 2, 2), np.uint8), "action": 0, "reward": 0.0, "terminal": False}


@pytest.mark.parametrize(
    ("kind", "good", "bad", "message"),
    [
        ("vector", VECTOR, {"observation": [0.0, np.nan]}, "observation must be finite .*, got nan in place 1"),
        ("vector", VECTOR, {"observation": [np.inf, 0.0]}, "observation must be finite .*, got inf in place 0"),
        ("vector", VECTOR, {"observation": [0.0, 1e39]}, r"observation must be finite .*, got 1e\+39 in place 1"),
        ("vector", VECTOR, {"observation": [0.0]}, r"observation has shape \(1,\), but the buffer .* shape \(2,\)"),
        ("vector", VECTOR, {"observation": ["a", "b"]}, "observation must hold numbers, got dtype <U1"),
        ("vector", VECTOR, {"next_observation": [0.0, np.nan]}, "next_observation must be finite"),
        ("vector", VECTOR, {"next_observation": 3.0}, r"next_observation has shape \(\)"),
        ("vector", VECTOR, {"action": 1}, r"action must be a vector of shape \(2,\), got 1 of shape \(\)"),
        ("vector", VECTOR, {"action": [0.0, np.nan]}, "action must be finite .*, got nan in place 1"),
        ("vector", VECTOR, {"action": [0.0] * 3}, r"action must be a vector of shape \(2,\), got .* of shape \(3,\)"),
        ("vector", VECTOR, {"reward": np.nan}, "reward must be a finite number within float32, got nan"),
        ("vector", VECTOR, {"reward": -np.inf}, "reward must be a finite number within float32, got -inf"),
        ("vector", VECTOR, {"reward": 1e39}, r"reward must be a finite number within float32, got 1e\+39"),
        ("vector", VECTOR, {"reward": "1"}, "reward must be a finite number within float32, got '1'"),
        ("vector", VECTOR, {"reward": None}, "reward must be a finite number within float32, got None"),
        ("vector", VECTOR, {"terminal": 0.5}, "terminal must be True or False, got 0.5"),
        ("vector", VECTOR, {"terminal": None}, "terminal must be True or False, got None"),
        ("vector", VECTOR, {"terminal": np.nan}, "terminal must be True or False, got nan"),
        ("vector", VECTOR, {"timeout": 2}, "timeout must be True or False, got 2"),
        ("ids", IDS, {"action": 3}, "action must be an id from 0 to 2, got 3"),
        ("ids", IDS, {"action": -1}, "action must be an id from 0 to 2, got -1"),
        ("ids", IDS, {"action": 0.5}, "action must be an id, a whole number below 3, got 0.5"),
        ("ids", IDS, {"action": [0.1, 0.2]}, "action must be an id, a whole number below 3, got"),
        (
            "image",
            IMAGE,
            {"observation": np.zeros((1, 2, 2))},
            "observation has dtype float64, but images must be uint8",
        ),
        ("image", IMAGE, {"next_observation": np.zeros((2, 2), np.uint8)}, r"next_observation has shape \(2, 2\)"),
    ],
)
def test_a_bad_step_is_named_and_changes_nothing(kind, good, bad, message):
    buffer, same = buffer_of(kind, 3), buffer_of(kind, 3)
    for _ in range(4):
        buffer.append(**good)
        same.append(**good)
    with pytest.raises(ValueError, match=message):
        buffer.append(**good | bad)
    for name, value in vars(same.rows).items():
        np.testing.assert_array_equal(getattr(buffer.rows, name), value, err_msg=name)


def test_numbers_of_every_kind_are_taken():
    buffer = buffer_of("ids", 10)
    buffer.append(np.array([1]), np.int32(2), np.float64(0.5), np.bool_(False), 0)
    buffer.append((2,), np.array(1), np.array(1.5), 1.0, np.False_)
    dataset = buffer.to_mdp_dataset()
    assert dataset.actions.tolist() == [2, 1]
    assert dataset.rewards.tolist() == [0.5, 1.5]
    assert dataset.terminals.tolist() == [False, True]


def test_what_is_appended_is_copied():
    buffer, state = buffer_of("ids", 10), np.zeros(1, np.float32)
    for k in range(4):
        following = np.full(1, k + 1, np.float32)
        buffer.append(state, 0, 0.0, terminal=False, next_observation=following)
        state[:] = following
        following[:] = -1
    assert buffer.to_mdp_dataset().observations.reshape(-1).tolist() == [0, 1, 2, 3]
    assert buffer.to_mdp_dataset().report.cut_links == 0


SHAPES = {"observation_shape": (1,), "action_size": 2, "discrete_action": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maxlen": 0} | SHAPES, "maxlen must be a whole number from 1 to .*, got 0"),
        ({"maxlen": 1.5} | SHAPES, "maxlen must be a whole number from 1 to .*, got 1.5"),
        ({"maxlen": 10}, r"what does the buffer hold\? Give env=, episodes= or dataset="),
        ({"maxlen": 10, "observation_shape": (3,)}, "all of observation_shape=, action_size= and discrete_action="),
        ({"maxlen": 10} | SHAPES | {"observation_shape": (2, 2)}, r"got observation_shape=\(2, 2\)"),
        ({"maxlen": 10} | SHAPES | {"action_size": 0}, "action_size must be a whole number of at least 1, got 0"),
        ({"maxlen": 10, "dataset": small(), "observation_shape": (2,)}, r"is \(2,\) so far, but the data has \(1,\)"),
        ({"maxlen": 10, "dataset": small(), "discrete_action": False}, "discrete_action is False so far, but the data"),
        ({"maxlen": 10, "dataset": small(), "episodes": small().episodes}, "episodes= and dataset= are both given"),
        ({"maxlen": 10, "episodes": []}, "episodes is empty: leave it out"),
        ({"maxlen": 10, "seed": -1} | SHAPES, "seed must be None, a whole number of at least 0 .*, got -1"),
    ],
)
def test_a_buffer_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReplayBuffer(**arguments)


def test_environments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"observation_shape is \(4,\) so far, but the data has \(1,\)"):
        ReplayBuffer(10, gymnasium.make("CartPole-v1"), dataset=small())
    with pytest.raises(ValueError, match="discrete_action is False so far, but env has True"):
        ReplayBuffer(10, gymnasium.make("CartPole-v1"), discrete_action=False)

    class Images(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 1.0, (1, 8, 8))
        action_space = gymnasium.spaces.Discrete(2)

    with pytest.raises(ValueError, match="env has images of dtype float32, but images must be uint8"):
        ReplayBuffer(10, Images())
    with pytest.raises(TypeError, match="dataset must be an MDPDataset, got list; a list goes to episodes="):
        ReplayBuffer(10, dataset=small().episodes)
    with pytest.raises(TypeError, match="episodes must be a list of Episode, but item 0 is Transition"):
        ReplayBuffer(10, episodes=list(small()[0]))


def test_extending_needs_the_same_kind_and_no_open_episode():
    buffer = buffer_of("ids", 10)
    buffer.append_episode(small()[0])
    assert len(buffer) == 4
    with pytest.raises(ValueError, match="discrete_action is True so far, but the data has False"):
        buffer.extend(MDPDataset(np.zeros((2, 1)), np.full((2, 1), 0.5), np.zeros(2), flags(2, 1)))
    with pytest.raises(ValueError, match=r"action_size is 3 so far, but the data has 4"):
        buffer.extend(small(4))
    steps(buffer, 1)
    with pytest.raises(ValueError, match=r"last episode is open: end it with clip_episode\(\)"):
        buffer.extend(small())
    assert buffer.n_rows == 5


def test_batches_that_cannot_be_are_refused():
    buffer = buffer_of("ids", 10)
    sampler = buffer.make_sampler(3)
    for sample in (sampler.sample, lambda: buffer.sample(3)):
        with pytest.raises(ValueError, match="batch_size=3, but the buffer holds 0 transitions: append more first"):
            sample()
    steps(buffer, 10)
    for make in (buffer.sample, buffer.make_sampler):
        with pytest.raises(ValueError, match="batch_size=11 is more than the buffer can hold, maxlen=10"):
            make(11)
        with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
            make(0)
        with pytest.raises(ValueError, match="n_frames=2 needs uint8 images"):
            make(3, n_frames=2)
        with pytest.raises(ValueError, match="n_steps must be a whole number from 1 to 8191, got 0"):
            make(3, n_steps=0)
        with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\], got 2"):
            make(3, gamma=2)
    with pytest.raises(ValueError, match="the buffer holds no transition: append steps before to_mdp_dataset"):
        buffer_of("ids", 10).to_mdp_dataset()
    assert buffer_of("ids", 10).episodes == []
    with pytest.raises(TypeError, match="may run across the end of its arrays: use to_mdp_dataset"):
        buffer.rows.bounds()
    with pytest.raises(ValueError, match="read-only"):
        buffer.rows.links[0] = 3


def test_the_kernels_refuse_rows_that_cannot_be():
    links = np.array([0, 0, _kernels.NO_TRANSITION], np.uint16)
    for call in (_kernels.count_back, _kernels.count_all):
        for row, most in ((-1, 1), (3, 1), (2, 0), (2, _kernels.MOST_STEPS + 1)):
            with pytest.raises(ValueError, match="cannot be"):
                call(links, row, most)
    with pytest.raises(ValueError, match="newest=0 of 3 rows or most=1 cannot be"):
        _kernels.count_all(links, 0, 1)  # something follows on it
    _kernels.count_all(links, 2, 5)
    assert links.tolist() == [1, 0, _kernels.NO_TRANSITION]  # nothing is known of what comes after row 1 but its state


def test_states_that_do_not_fit_are_refused():
    sampler = buffer_of("ids", 10).make_sampler(3)
    state = sampler.get_state()
    with pytest.raises(ValueError, match="a sampler with batch_size=4, this one has 3"):
        sampler.set_state(state | {"batch_size": 4})
    with pytest.raises(ValueError, match="a sampler with sampler=RandomSampler, this one has RingSampler"):
        sampler.set_state(state | {"sampler": "RandomSampler"})
    with pytest.raises(ValueError, match="the state is damaged: cursor must be a whole number from 0 to 64, got 65"):
        sampler.set_state(state | {"cursor": 65})
    with pytest.raises(ValueError, match="the state is damaged: generator"):
        sampler.set_state(state | {"generator": None})
    with pytest.raises(TypeError, match="takes a dictionary of get_state, got list"):
        sampler.set_state([])


def test_a_dumped_buffer_is_also_a_data_set(tmp_path):
    buffer, twin, _ = changed("vector", 20, [("", False, False)] * 12 + [("timeout", True, False)] * 3)
    buffer.dump(tmp_path / "buffer.h5")
    dataset = MDPDataset.load(tmp_path / "buffer.h5")
    assert_same = np.testing.assert_array_equal
    assert_same(dataset.observations, buffer.to_mdp_dataset().observations)
    assert dataset.report.transitions == len(twin.transitions())
    small().dump(tmp_path / "data.h5")
    with pytest.raises(ValueError, match="data.h5: this is a data set, not a replay buffer"):
        ReplayBuffer.load(tmp_path / "data.h5")


def test_damaged_files_are_refused(tmp_path):
    path, buffer = tmp_path / "buffer.h5", buffer_of("ids", 300)
    steps(buffer, 200)
    buffer.dump(path)
    whole = path.read_bytes()
    for content in (b"", b"no file of ours", whole[:1000], whole[:-1], whole[:3000] + b"?" + whole[3001:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="buffer.h5 is truncated, damaged or was not written by ReplayBuffer.dump"):
            ReplayBuffer.load(path)
    with pytest.raises(FileNotFoundError, match="there is no file .*none.h5"):
        ReplayBuffer.load(tmp_path / "none.h5")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("maxlen", 3, "maxlen must be a whole number of at least 5, got 3"),
        ("action_size", 1, "actions has the id 2 in row 0, but action_size=1"),
        ("generator", "{}", "the state is damaged: generator"),
        ("generator", "{", "Expecting property name"),
    ],
)
def test_files_with_a_right_checksum_and_wrong_content_are_refused(tmp_path, name, value, message):
    import h5py

    path, buffer = tmp_path / "buffer.h5", buffer_of("ids", 10)
    for _ in range(5):
        buffer.append([0.0], 2, 0.0, False)
    buffer.dump(path)
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    content = path.read_bytes()
    path.write_bytes(hdf5.make_head(zlib.crc32(content[hdf5.HEAD_SIZE :])) + content[hdf5.HEAD_SIZE :])
    with pytest.raises(ValueError, match=rf"buffer.h5: {message}"):
        ReplayBuffer.load(path)

"""What becomes of the rows: episodes, ends, links, drops, and the list behaviour of a data set."""

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from sklearn.model_selection import KFold, train_test_split

from d3rlpy.dataset import Episode, MDPDataset, gather, rows_of

from .generated import dataset_of, flags, logs

MODEST = settings(deadline=None, max_examples=80)


def counting(rows=6, **options):
    """Observations 0, 1, 2, ..., ids 0 and 1, rewards 10, 20, ...; terminal in row 2, timeout in the last."""
    arguments = {
        "observations": np.arange(rows, dtype=np.float32)[:, None],
        "actions": np.arange(rows) % 2,
        "rewards": 10 * np.arange(1, rows + 1, dtype=np.float32),
        "terminals": flags(rows, 2),
        "timeouts": flags(rows, rows - 1),
    }
    return MDPDataset(**(arguments | options))


@MODEST
@given(log=logs())
def test_rows_in_are_transitions_plus_drops(log):
    assume(log.transitions())
    report = dataset_of(log).report
    assert report.rows == len(log.rewards)
    assert report.rows == report.transitions + sum(report.dropped.values())
    assert report.transitions == len(log.transitions())
    assert report.episodes == sum(log.ends(row) for row in range(len(log.rewards)))


@MODEST
@given(log=logs())
def test_episodes_hold_the_rows_up_to_each_end(log):
    assume(log.transitions())
    ends = [row for row in range(len(log.rewards)) if log.ends(row)]
    expected, start = [], 0
    for end in ends:
        if any(log.is_transition(row) for row in range(start, end + 1)):
            expected.append(log.rewards[start : end + 1])
        start = end + 1
    episodes = dataset_of(log).episodes
    assert [e.rewards.tolist() for e in episodes] == [r.tolist() for r in expected]
    assert sum(len(e) for e in episodes) == len(log.transitions())


def test_rewards_belong_to_the_action_of_their_row():
    first, second = counting().episodes
    assert [t.reward for t in first] == [10, 20, 30]
    assert [t.action for t in first] == [0, 1, 0]
    assert [t.terminal for t in first] == [0, 0, 1]
    assert [t.next_observation.tolist() for t in first] == [[1], [2], [0]]
    assert [t.reward for t in second] == [40, 50]  # the last row only is the successor of the one before
    assert second[1].next_observation.tolist() == [5]
    assert (second.compute_return(), second.size(), second.observations.shape) == (150.0, 2, (3, 1))


def test_next_observations_make_every_row_a_transition():
    following = np.array([1, 2, 77, 4, 5, 88], np.float32)[:, None]
    dataset = counting(next_observations=following)
    assert dataset.report.to_dict() == {
        "rows": 6, "transitions": 6, "episodes": 2, "dropped": {}, "cut_links": 0, "unfinished_rows": 0,
    }  # fmt: skip
    assert dataset[0][2].next_observation.tolist() == [77]
    assert dataset[1][2].next_observation.tolist() == [88]
    assert dataset[1][2].terminal == 0


def test_a_mismatch_inside_an_episode_cuts_the_link_there_and_is_reported():
    following = np.array([1, 2, 0, 99, 5, 88], np.float32)[:, None]
    dataset = counting(next_observations=following)
    assert dataset.report.cut_links == 1
    second = dataset[1]
    assert second[0].next_observation.tolist() == [99]
    assert second[0].next_transition is None
    assert second[1].prev_transition is None
    batch = gather(*rows_of([second[0]]), n_steps=3)
    assert (batch.n_steps.item(), batch.rewards.item(), batch.next_observations.item()) == (1, 40, 99)


def test_arrays_without_an_end_flag_are_one_timed_out_episode():
    with pytest.warns(UserWarning, match="no end flag in the last 4 of 4 rows") as caught:
        dataset = MDPDataset(np.zeros((4, 2)), [0, 1, 0, 1], np.ones(4), np.zeros(4))
    assert caught[0].filename == __file__
    assert (len(dataset), dataset.report.transitions, dataset.report.unfinished_rows) == (1, 3, 4)
    assert dataset.timeouts.tolist() == [False, False, False, True]
    assert list(dataset.report.dropped.values()) == [1]


def test_a_missing_last_flag_warns_once_with_the_count():
    with pytest.warns(UserWarning, match="no end flag in the last 3 of 6 rows") as caught:
        dataset = counting(timeouts=None)
    assert len(caught) == 1
    assert dataset.report.transitions == 5


def test_terminal_wins_over_timeout_on_the_same_row():
    timeouts = flags(6, 2, 5)
    with pytest.warns(UserWarning, match=r"both set in 1 rows \(2\): taken as terminals") as caught:
        dataset = counting(timeouts=timeouts)
    assert len(caught) == 1
    assert dataset.terminals.tolist() == flags(6, 2).tolist()
    assert dataset.timeouts.tolist() == flags(6, 5).tolist()
    assert timeouts.tolist() == flags(6, 2, 5).tolist()


def test_episode_terminals_mark_any_end():
    dataset = counting(timeouts=None, episode_terminals=flags(6, 2, 5))
    assert dataset.timeouts.tolist() == flags(6, 5).tolist()
    assert dataset.episode_terminals.tolist() == flags(6, 2, 5).tolist()


def test_a_terminal_that_is_no_episode_terminal_ends_the_episode_with_a_warning():
    with pytest.warns(UserWarning, match=r"episode_terminals is not in 1 rows \(2\)"):
        dataset = counting(timeouts=None, episode_terminals=flags(6, 5))
    assert len(dataset) == 2


def test_a_clean_data_set_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counting()


def test_one_step_terminal_episodes_work():
    dataset = MDPDataset(np.eye(3), [0, 1, 2], [1, 2, 3], np.ones(3))
    assert [len(e) for e in dataset] == [1, 1, 1]
    batch = gather(*rows_of(dataset), n_steps=4)
    assert batch.rewards.reshape(-1).tolist() == [1, 2, 3]
    assert batch.discounts.reshape(-1).tolist() == [0, 0, 0]


def test_an_episode_of_one_row_that_timed_out_is_counted_as_dropped():
    dataset = MDPDataset(np.zeros((3, 1)), [0, 1, 0], np.ones(3), flags(3, 0, 2), timeouts=flags(3, 1))
    assert len(dataset) == 2
    assert (dataset.report.episodes, sum(dataset.report.dropped.values())) == (3, 1)


def as_tuple(t):
    return t.observation.item(), t.action, t.reward, t.next_observation.item(), t.terminal


def test_delayed_rewards_move_to_the_action_that_caused_them():
    # s0 -a0-> (r 5) s1 -a1-> (r 7) s2, the end; then s3 -a3-> (r 1) s4, cut there
    dataset = MDPDataset.from_delayed(
        observations=np.arange(5, dtype=np.float32)[:, None],
        actions=[1, 0, 3, 2, 3],
        rewards=[0, 5, 7, 0, 1],
        terminals=flags(5, 2),
        timeouts=flags(5, 4),
        columns={"step": np.arange(5)},
    )
    first, second = dataset.episodes
    assert [as_tuple(t) for t in first] == [
        (0, 1, 5, 1, 0), (1, 0, 7, 2, 1),
    ]  # fmt: skip
    assert [as_tuple(t) for t in second] == [
        (3, 2, 1, 4, 0),
    ]  # fmt: skip
    assert second.columns["step"].tolist() == [3]
    assert (dataset.report.rows, dataset.report.transitions) == (5, 3)
    assert sum(dataset.report.dropped.values()) == 2
    assert dataset.get_action_size() == 4


def test_a_first_reward_that_would_be_lost_is_pointed_out():
    with pytest.warns(UserWarning, match=r"first row of 1 episodes has a reward \(rows 0\)"):
        MDPDataset.from_delayed(np.zeros((3, 1)), [0, 1, 0], [9, 1, 1], flags(3, 2))


def test_delayed_rows_without_a_transition_are_an_error():
    with pytest.raises(ValueError, match="at least two rows"):
        MDPDataset.from_delayed(np.zeros((2, 1)), [0, 1], [0, 0], [1, 1])


def test_right_typed_arrays_are_used_in_place_and_never_changed():
    observations = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    actions, rewards, terminals = np.arange(4), np.arange(4, dtype=np.float32), flags(4, 3)
    dataset = MDPDataset(observations, actions, rewards, terminals)
    for mine, given_array in [
        (dataset.observations, observations),
        (dataset.actions, actions),
        (dataset.rewards, rewards),
        (dataset.terminals, terminals),
    ]:
        assert np.shares_memory(mine, given_array)
    dataset.clip_reward(low=1.0, high=2.0)
    assert dataset.rewards.tolist() == [1, 1, 2, 2]
    assert rewards.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.tolist(),
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: a.astype(a.dtype.newbyteorder(">")) if a.dtype.itemsize > 1 else a,
        lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a,
    ],
    ids=["lists", "fortran order", "strided", "big endian", "float64"],
)
def test_unusual_but_legal_arrays_give_the_same_data_set(convert):
    generator = np.random.default_rng(1)
    arrays = {
        "observations": generator.normal(size=(6, 2)).astype(np.float32),
        "actions": generator.integers(0, 3, 6),
        "rewards": generator.normal(size=6).astype(np.float32),
        "terminals": flags(6, 2, 5),
    }
    plain = MDPDataset(**arrays)
    other = MDPDataset(**{name: convert(array) for name, array in arrays.items()})
    for name in arrays:
        np.testing.assert_array_equal(getattr(plain, name), getattr(other, name))
        assert getattr(plain, name).dtype == getattr(other, name).dtype


@pytest.mark.parametrize("kind", [np.bool_, np.int64, np.float64, np.uint8])
def test_flags_and_rewards_may_be_a_column_of_any_number_type(kind):
    dataset = counting(
        rewards=np.arange(6)[:, None],
        terminals=flags(6, 2).astype(kind)[:, None],
        timeouts=flags(6, 5).astype(kind),
    )
    assert dataset.rewards.shape == dataset.terminals.shape == (6,)
    assert dataset.terminals.dtype == np.bool_


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, np.uint32, np.int32, np.int64])
def test_integer_actions_are_ids(kind):
    dataset = counting(actions=(np.arange(6) % 2).astype(kind))
    assert dataset.is_action_discrete()
    assert dataset.discrete_action
    assert dataset.get_action_size() == 2
    assert dataset.actions.dtype in (np.int32, np.int64)


def test_float_actions_are_continuous():
    dataset = counting(actions=np.linspace(-1, 1, 6))
    assert not dataset.is_action_discrete()
    assert (dataset.get_action_size(), dataset.actions.shape) == (1, (6, 1))


def test_whole_floats_warn_and_stay_continuous():
    with pytest.warns(UserWarning, match="discrete_action=True if they are ids") as caught:
        dataset = counting(actions=np.arange(6.0))
    assert caught[0].filename == __file__
    assert not dataset.discrete_action


def test_discrete_action_overrides_the_type():
    assert counting(actions=np.arange(6.0), discrete_action=True).actions.tolist() == [0, 1, 2, 3, 4, 5]
    assert counting(actions=np.arange(6)[:, None], discrete_action=False).actions.shape == (6, 1)


def test_action_size_may_exceed_the_ids():
    assert counting(action_size=7).get_action_size() == 7


def test_images_stay_uint8_and_vectors_become_float32():
    images = np.zeros((6, 1, 4, 5), np.uint8)
    assert counting(observations=images).get_observation_shape() == (1, 4, 5)
    assert counting(observations=images).observations is not None
    assert counting(observations=np.zeros((6, 3), np.uint8)).observations.dtype == np.float32


def test_a_data_set_behaves_like_a_list_of_episodes():
    dataset = counting()
    assert dataset.size() == len(dataset) == 2
    assert list(dataset) == dataset.episodes == [dataset[0], dataset[1]] == dataset[:]
    assert dataset[-1] == dataset[1]
    with pytest.raises(IndexError):
        dataset[2]
    assert not hasattr(dataset, "shape")


def test_train_test_split_gives_plain_lists_of_episodes():
    dataset = MDPDataset(np.zeros((20, 1)), np.arange(20) % 2, np.arange(20), np.arange(20) % 2)
    train, test = train_test_split(dataset, test_size=0.2, random_state=0)
    assert type(train) is type(test) is list
    assert (len(train), len(test)) == (8, 2)
    assert all(isinstance(e, Episode) for e in train + test)
    assert sorted(e.compute_return() for e in train + test) == [e.compute_return() for e in dataset]
    assert len(list(KFold(5).split(dataset))) == 5


def test_statistics_by_hand():
    stats = counting(actions=np.arange(6.0)[:, None] / 4).compute_stats()
    assert stats["return"] == {"mean": 105.0, "std": 45.0, "min": 60.0, "max": 150.0}
    assert stats["reward"]["mean"] == 35
    assert stats["reward"]["std"] == pytest.approx(np.std([10, 20, 30, 40, 50, 60]))
    assert stats["observation"]["mean"].tolist() == [2.5]
    assert stats["action"]["max"].tolist() == [1.25]
    assert counting().compute_stats()["action"]["frequencies"].tolist() == [3, 3]


def test_statistics_of_many_rows_are_taken_in_parts():
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 200, 200), dtype=np.uint8)
    stats = MDPDataset(images, np.zeros(40, int), np.ones(40), flags(40, 39)).compute_stats()["observation"]
    np.testing.assert_allclose(stats["mean"], images.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats["std"], images.std(axis=0), rtol=1e-12)
    assert stats["min"].dtype == np.uint8


@MODEST
@given(log=logs())
def test_pickles_hold_the_same_data(log):
    assume(log.transitions())
    dataset = dataset_of(log)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.report == dataset.report
    mine, theirs = gather(*rows_of(dataset), n_steps=3), gather(*rows_of(copy), n_steps=3)
    np.testing.assert_array_equal(mine.rewards, theirs.rewards)
    np.testing.assert_array_equal(mine.next_observations, theirs.next_observations)


def test_pickled_episodes_share_one_copy_of_the_storage():
    dataset = MDPDataset(np.zeros((5000, 8), np.float32), np.zeros(5000, int), np.ones(5000), np.arange(5000) % 2)
    one, all_of_them = len(pickle.dumps(dataset[0])), len(pickle.dumps(dataset.episodes))
    assert all_of_them < 1.5 * one
    copies = pickle.loads(pickle.dumps(dataset.episodes))
    assert all(e._rows is copies[0]._rows for e in copies)
    assert len(rows_of(copies)[1]) == 5000
    transitions = pickle.loads(pickle.dumps(dataset[0].transitions))
    assert transitions[0].next_transition == transitions[1]


def test_named_columns_travel_with_their_rows():
    dataset = counting(columns={"action_mask": np.ones((6, 2)), "step": np.arange(6, dtype=np.float64)})
    assert dataset.columns["action_mask"].dtype == np.bool_
    assert dataset[1].columns["step"].tolist() == [3, 4, 5]
    assert dataset[1][1].columns["step"] == 4
    batch = gather(*rows_of(dataset[1].transitions))
    assert batch.columns["step"].tolist() == [3, 4]
    dataset.extend(dataset)
    assert dataset.columns["step"].tolist() == [0, 1, 2, 3, 4, 5] * 2


def test_repr_says_what_there_is():
    assert repr(counting()) == ("MDPDataset(2 episodes, 5 transitions, observations (1,), discrete actions of size 2)")
    assert "transitions=5" in repr(counting().report)

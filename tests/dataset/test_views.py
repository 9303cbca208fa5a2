"""``Episode`` and ``Transition``, as views and made by hand, and how ``rows_of`` brings them together."""

import copy
import pickle

import numpy as np
import pytest
from joblib import Parallel, delayed

from d3rlpy.dataset import Episode, MDPDataset, Transition, TransitionMiniBatch, gather, rows_of

from .generated import flags


def counting(first=0, rows=6, **options):
    """Observations and rewards count up from ``first``; a terminal in row 2, a timeout in the last."""
    numbers = np.arange(first, first + rows, dtype=np.float32)
    arguments = {"terminals": flags(rows, 2), "timeouts": flags(rows, rows - 1)} | options
    return MDPDataset(numbers[:, None], np.arange(rows) % 3, numbers, **arguments)


def hand_made(number, following=None, terminal=False, action=0, **links):
    """A transition from the state ``number`` to ``following``, its reward is ``number``."""
    following = number + 1 if following is None else following
    return Transition((1,), 3, [float(number)], action, float(number), [float(following)], terminal, **links)


def test_links_lead_to_both_ends_of_the_episode():
    transition = counting()[0][1]
    assert transition.next_transition.reward == 2
    assert transition.next_transition.next_transition is None
    assert transition.prev_transition.reward == 0
    assert transition.prev_transition.prev_transition is None
    assert transition.prev_transition.next_transition == transition


def test_walking_the_links_as_in_the_documents():
    transition, seen = counting()[1][0], 1
    while transition.next_transition:
        transition = transition.next_transition
        seen += 1
    assert seen == len(counting()[1]) == 2


def test_next_action_is_the_next_rows_and_none_at_an_end():
    first, second = counting().episodes
    assert [t.next_action for t in first] == [1, 2, None]
    assert [t.next_action for t in second] == [
        1,
        2,
    ]  # the last row is no transition, but its action is recorded
    dataset = counting(next_observations=np.arange(1, 7, dtype=np.float32)[:, None])
    assert dataset[1][2].next_action is None


def test_next_reward_is_the_reward_with_a_warning():
    transition = counting()[0][1]
    with pytest.warns(FutureWarning, match="Write reward") as caught:
        assert transition.next_reward == transition.reward == 1
    assert caught[0].filename == __file__
    batch = TransitionMiniBatch([transition])
    with pytest.warns(FutureWarning, match="Write rewards"):
        assert batch.next_rewards.item() == 1


def test_a_transition_knows_its_kind():
    transition = counting()[0][2]
    assert transition.get_observation_shape() == (1,)
    assert transition.get_action_size() == 3
    assert transition.is_discrete
    assert isinstance(transition.action, int)
    assert repr(transition) == "Transition(observation (1,), discrete action, reward 2, terminal 1)"
    continuous = MDPDataset(np.zeros((2, 1)), [[0.5, 1.0], [0.25, 0]], [1, 1], [0, 1])[0][0]
    assert not continuous.is_discrete
    assert continuous.action.tolist() == [0.5, 1.0]
    assert continuous.next_action.tolist() == [0.25, 0.0]


def test_transitions_of_a_data_set_are_views():
    images = np.zeros((3, 1, 4, 4), np.uint8)
    dataset = MDPDataset(images, [0, 1, 0], np.ones(3), flags(3, 2))
    assert np.shares_memory(dataset[0][1].observation, images)
    assert dataset[0][1].observation.shape == (1, 4, 4)
    assert np.shares_memory(dataset[0][0].next_observation, images)


def test_an_episode_is_a_list_of_transitions():
    episode = counting()[0]
    assert len(episode) == episode.size() == len(episode.transitions) == len(episode.build_transitions()) == 3
    assert list(episode) == episode.transitions == episode[:] == [episode[0], episode[1], episode[2]]
    assert episode[-1] == episode[2]
    assert episode[1:] == episode.transitions[1:]
    with pytest.raises(IndexError):
        episode[3]
    assert (episode.get_observation_shape(), episode.get_action_size()) == ((1,), 3)
    assert episode.is_action_discrete()
    assert episode.terminal
    assert episode.terminals.tolist() == [False, False, True]
    assert not counting()[1].terminal
    assert repr(episode) == "Episode(3 transitions, return 3, terminal True)"


def test_equal_views_are_equal_and_hash_alike():
    dataset = counting()
    assert dataset[0][1] == dataset.episodes[0].transitions[1]
    assert len({dataset[0][1], dataset[0][1], dataset[0][2], dataset[0], dataset[0]}) == 3
    assert dataset[0] != counting()[0]
    assert dataset[0][0] != "a"
    assert dataset[0] != "a"


def test_an_episode_made_by_hand():
    episode = Episode((2,), 3, np.ones((4, 2)), np.array([0, 1, 2, 0]), [1, 2, 3, 4])
    assert (len(episode), episode.compute_return(), episode.terminal, episode.actions.tolist()) == (
        4, 10.0, True, [0, 1, 2, 0],
    )  # fmt: skip
    cut = Episode((2,), 2, np.ones((4, 2)), np.zeros((4, 2)), np.ones((4, 1)), terminal=False)
    assert (len(cut), cut.terminal, cut.rewards.tolist(), cut.is_action_discrete()) == (
        3,
        False,
        [1] * 4,
        False,
    )


def test_an_episode_made_by_hand_is_checked():
    with pytest.raises(ValueError, match=r"rows of shape \(2,\), but observation_shape=\(3,\)"):
        Episode((3,), 2, np.ones((4, 2)), [0, 1, 1, 0], np.ones(4))
    with pytest.raises(ValueError, match="the id 2 in row 1, but action_size=2"):
        Episode((2,), 2, np.ones((4, 2)), [0, 2, 1, 0], np.ones(4))
    with pytest.raises(ValueError, match="no transition"):
        Episode((2,), 2, np.ones((1, 2)), [0], np.ones(1), terminal=False)


def test_a_transition_made_by_hand():
    t = Transition((2,), 2, np.zeros(2), np.array([0.5, -0.5]), 2.0, np.ones(2), False)
    assert (t.reward, t.terminal, t.action.tolist(), t.is_discrete) == (2.0, 0.0, [0.5, -0.5], False)
    assert t.next_observation.tolist() == [1, 1]
    assert (t.prev_transition, t.next_transition, t.next_action) == (None, None, None)
    assert hand_made(1, action=np.int32(2)).action == 2


def test_a_transition_made_by_hand_is_checked():
    with pytest.raises(ValueError, match=r"next_observation has shape \(3,\), but observation_shape=\(2,\)"):
        Transition((2,), 2, np.zeros(2), 0, 0.0, np.zeros(3), False)
    with pytest.raises(ValueError, match="action_size=2"):
        Transition((2,), 2, np.zeros(2), 2, 0.0, np.zeros(2), False)
    with pytest.raises(ValueError, match=r"action is the single number 0.5: ids are whole numbers, .* an array"):
        Transition((2,), 2, np.zeros(2), 0.5, 0.0, np.zeros(2), False)
    with pytest.raises(ValueError, match="observation is a masked array"):
        Transition((2,), 2, np.ma.masked_equal([1.0, 2.0], 2), 0, 0.0, np.zeros(2), False)
    with pytest.raises(ValueError, match="reward has NaN"):
        Transition((2,), 2, np.zeros(2), 0, float("nan"), np.zeros(2), False)


def test_hand_made_neighbours_are_linked_both_ways_and_summed():
    first = hand_made(1)
    second = hand_made(2, prev_transition=first, action=2)
    third = hand_made(3, terminal=True)
    second.next_transition = third
    assert first.next_transition is second
    assert third.prev_transition is second
    assert first.next_action == 2
    batch = TransitionMiniBatch([second, first, hand_made(50)], n_steps=3, gamma=0.5)
    assert batch.rewards.reshape(-1).tolist() == [2 + 1.5, 1 + 1 + 0.75, 50]
    assert batch.next_observations.reshape(-1).tolist() == [4, 4, 51]
    assert batch.terminals.reshape(-1).tolist() == [1, 1, 0]


def test_links_that_form_a_circle_are_refused():
    first = hand_made(1)
    second = hand_made(2, prev_transition=first)
    third = hand_made(3, prev_transition=second)
    for link in (
        lambda: setattr(first, "prev_transition", third),
        lambda: setattr(third, "next_transition", first),
        lambda: setattr(third, "next_transition", second),
        lambda: setattr(second, "next_transition", second),
    ):
        with pytest.raises(ValueError, match="would form a circle: cut one of its links first, by setting it to None"):
            link()
    assert first.next_transition is second
    assert second.next_transition is third
    assert rows_of([third])[1].tolist() == [2]


def test_a_new_neighbour_replaces_the_old_one_on_both_sides():
    first, old, new = hand_made(1), hand_made(2), hand_made(2)
    first.next_transition = old
    first.next_transition = new
    assert old.prev_transition is None
    assert new.prev_transition is first
    assert rows_of([old])[1].tolist() == [0]
    new.prev_transition = None
    assert first.next_transition is None
    assert new.prev_transition is None
    batch = TransitionMiniBatch([first, new], n_steps=2, gamma=1.0)
    assert batch.rewards.reshape(-1).tolist() == [1, 2]


def test_only_transitions_become_neighbours():
    with pytest.raises(TypeError, match="a neighbour must be a Transition or None, got int"):
        hand_made(1).next_transition = 3


def test_a_shallow_copy_of_a_hand_made_transition_has_no_neighbours():
    first = hand_made(1)
    second = hand_made(2, prev_transition=first)
    copied = copy.copy(second)
    assert copied.prev_transition is None
    assert rows_of([copied, second])[1].tolist() == [0, 2]


def test_transitions_of_a_data_set_cannot_be_linked_anew():
    with pytest.raises(ValueError, match="only transitions made by hand can be linked"):
        counting()[0][0].next_transition = hand_made(1)
    with pytest.raises(ValueError, match="only transitions made by hand can be linked"):
        counting()[0][0].next_transition = None


def test_rows_of_a_data_set_share_its_storage():
    dataset = counting()
    rows, indices = rows_of(dataset)
    assert rows is dataset.rows
    assert indices.dtype == np.int64
    assert indices.tolist() == [0, 1, 2, 3, 4]
    same, picked = rows_of([dataset[1], dataset[0]])
    assert same is rows
    assert picked.tolist() == [3, 4, 0, 1, 2]
    same, picked = rows_of([dataset[1][1], dataset[0][0]])
    assert same is rows
    assert picked.tolist() == [4, 0]


def test_rows_of_several_storages_are_copied_together():
    a, b = counting(0), counting(100)
    rows, indices = rows_of([b[1], a[0], b[0]])
    batch = gather(rows, indices, n_steps=2, gamma=1.0)
    assert batch.observations.reshape(-1).tolist() == [103, 104, 0, 1, 2, 100, 101, 102]
    assert batch.rewards.reshape(-1).tolist() == [207, 104, 1, 3, 2, 201, 203, 102]
    assert batch.next_observations.reshape(-1).tolist() == [105, 105, 2, 0, 0, 102, 0, 0]


def test_transitions_of_several_storages_keep_their_neighbours():
    a, b = counting(0), counting(100)
    picked = [b[0][1], a[1][0], hand_made(7), b[0][0], b[0][1]]
    rows, indices = rows_of(picked)
    assert len(rows) == 3 + 3 + 1  # each episode once
    batch = gather(rows, indices, n_steps=2, gamma=1.0)
    assert batch.rewards.reshape(-1).tolist() == [203, 7, 7, 201, 203]
    assert rows.action_size == 3


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], ValueError, "the list of episodes or transitions is empty"),
        (3, TypeError, "expected an MDPDataset, episodes or transitions, got int"),
        ("text", TypeError, "got str"),
        ([1.0], TypeError, "got a list of float"),
        (np.zeros((3, 2)), TypeError, "got a list of ndarray"),
        ((e for e in counting()), TypeError, r"an iterator can be read only once: pass list\(...\)"),
    ],
)
def test_anything_else_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        rows_of(data)


def test_episodes_and_transitions_do_not_mix():
    dataset = counting()
    with pytest.raises(TypeError, match="starts with Episode, but item 1 is Transition"):
        rows_of([dataset[0], dataset[0][0]])
    with pytest.raises(TypeError, match="takes a list of Transition"):
        TransitionMiniBatch([dataset[0]])
    with pytest.raises(ValueError, match="do not fit"):
        rows_of([dataset[0], Episode((2,), 3, np.ones((4, 2)), [0, 1, 1, 0], np.ones(4))])


def test_views_and_hand_made_objects_pickle_and_copy():
    for thing in (counting()[0], counting()[0][1], hand_made(3)):
        for other in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
            assert repr(other) == repr(thing)
    pair = [hand_made(1)]
    pair.append(hand_made(2, prev_transition=pair[0]))
    first, second = pickle.loads(pickle.dumps(pair))
    assert first.next_transition is second


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_batches_pickle_and_copy(copied):
    dataset = counting(columns={"discount": np.full(6, 0.5)})
    doubled = gather(*rows_of(dataset), n_steps=2, rewards=2 * dataset.rewards)
    linked = hand_made(1)
    made = TransitionMiniBatch([hand_made(2, prev_transition=linked), linked], n_steps=3, gamma=0.5)
    for batch in (doubled, made):
        other = copied(batch)
        for name in ("observations", "actions", "rewards", "next_observations", "terminals", "n_steps", "discounts"):
            np.testing.assert_array_equal(getattr(other, name), getattr(batch, name))
        assert other.gamma == batch.gamma
        assert [t.reward for t in other.transitions] == [t.reward for t in batch.transitions]


@pytest.mark.slow
def test_worker_processes_get_episodes_with_memory_mapped_storage():
    def sum_of_rewards(episodes):
        return float(gather(*rows_of(episodes), n_steps=2, gamma=1.0).rewards.sum())

    rows = 40_000  # above 1 MB, from where on joblib maps arrays into the workers' memory, read-only
    dataset = MDPDataset(np.zeros((rows, 8), np.float32), np.zeros(rows, int), np.ones(rows), np.arange(rows) % 2)
    parts = [dataset.episodes[:100], dataset.episodes[100:300]]
    results = Parallel(n_jobs=2)(delayed(sum_of_rewards)(part) for part in parts)
    assert results == [sum_of_rewards(part) for part in parts] == [300.0, 600.0]

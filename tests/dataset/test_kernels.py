"""The gathering kernels against the slow twin, and against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from d3rlpy.dataset import MDPDataset, TransitionMiniBatch, _kernels, gather, rows_of
from d3rlpy.dataset.batch import reusable_batch

from .generated import dataset_of, flags, logs

MODEST = settings(deadline=None, max_examples=150)


def assert_equals_reference(batch, expected):
    for name, array in expected.items():
        np.testing.assert_allclose(getattr(batch, name), array, rtol=1e-6, atol=1e-7, err_msg=name)


@MODEST
@given(log=logs(), n_steps=st.integers(1, 8), gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]), data=st.data())
def test_a_batch_equals_the_slow_twin(log, n_steps, gamma, data):
    assume(log.transitions())
    n_frames = data.draw(st.integers(1, 5)) if log.observations.ndim == 4 else 1
    rows, indices = rows_of(dataset_of(log))
    assert indices.tolist() == log.transitions()
    picks = data.draw(st.lists(st.sampled_from(log.transitions()), min_size=1, max_size=12))
    batch = gather(rows, picks, n_frames, n_steps, gamma)
    assert_equals_reference(batch, log.batch(picks, n_frames, n_steps, gamma))
    assert batch.observations.dtype == log.observations.dtype
    assert batch.actions.dtype == log.actions.dtype


@MODEST
@given(log=logs(), n_steps=st.integers(1, 8))
def test_a_replaced_reward_column_is_summed_instead(log, n_steps):
    assume(log.transitions())
    rows, indices = rows_of(dataset_of(log))
    scaled = log.rewards * np.float32(-3.0)
    batch = gather(rows, indices, n_steps=n_steps, rewards=scaled)
    log.rewards = scaled
    assert_equals_reference(batch, log.batch(indices.tolist(), 1, n_steps, 0.99) if not rows.is_image else {})
    np.testing.assert_allclose(
        batch.rewards, log.batch(indices.tolist(), 1, n_steps, 0.99)["rewards"], rtol=1e-6, atol=1e-7
    )


@MODEST
@given(log=logs(), n_steps=st.integers(1, 8))
def test_scaling_a_finished_batch_scales_before_the_sum(log, n_steps):
    assume(log.transitions())
    rows, indices = rows_of(dataset_of(log))
    scaled = gather(rows, indices, n_steps=n_steps).with_rewards(lambda r: np.clip(r, -0.5, 0.5))
    expected = gather(rows, indices, n_steps=n_steps, rewards=np.clip(log.rewards, -0.5, 0.5))
    np.testing.assert_array_equal(scaled.rewards, expected.rewards)
    np.testing.assert_array_equal(scaled.next_observations, expected.next_observations)


@MODEST
@given(
    log=logs(),
    n_steps=st.integers(1, 8),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    shift=st.sampled_from([-2, 0, 5]),
)
def test_returns_to_go_equal_the_slow_twin(log, n_steps, gamma, shift):
    assume(log.transitions())
    rows, indices = rows_of(dataset_of(log))
    batch = gather(rows, indices, n_steps=n_steps, gamma=gamma).with_rewards(lambda r: r + np.float32(shift))
    log.rewards = log.rewards + np.float32(shift)
    returns = batch.returns_to_go()
    assert (returns.shape, returns.dtype) == ((len(indices), 1), np.float32)
    expected = [log.return_to_go(row, gamma) for row in indices.tolist()]
    np.testing.assert_allclose(returns[:, 0], expected, rtol=1e-5, atol=1e-6)


def by_hand(rewards, terminals=(), timeouts=(), gamma=0.5, **options):
    """Returns-to-go of a data set with vectors of one number and no other flags."""
    n = len(rewards)
    dataset = MDPDataset(
        np.arange(n, dtype=np.float32)[:, None], np.zeros(n, np.int64), rewards, flags(n, *terminals),
        timeouts=flags(n, *timeouts), **options,
    )  # fmt: skip
    rows, indices = rows_of(dataset)
    return dict(zip(indices.tolist(), gather(rows, indices, gamma=gamma).returns_to_go()[:, 0].tolist(), strict=True))


def test_returns_to_go_by_hand():
    # a terminal ends rows 0 to 2; a time limit cuts behind row 5, whose successor is unknown but whose reward isn't
    assert by_hand([1, 2, 4, 8, 16, 32], terminals=[2], timeouts=[5]) == {
        0: 1 + 2 / 2 + 4 / 4, 1: 2 + 4 / 2, 2: 4, 3: 8 + 16 / 2 + 32 / 4, 4: 16 + 32 / 2,
    }  # fmt: skip
    # the worst reward, -3, goes on behind the cut: -3 / (1 - 0.5) = -6; nothing does behind the terminal
    assert by_hand([1, -3, 8, 2, 32], terminals=[1], timeouts=[4]) == {
        0: 1 - 3 / 2, 1: -3, 2: 8 + 2 / 2 + 32 / 4 - 6 / 8, 3: 2 + 32 / 2 - 6 / 4,
    }  # fmt: skip
    # what was seen after row 1 is not row 2
    jump = np.array([[1.0], [9.0], [3.0], [0.0]], np.float32)
    assert by_hand([1, 2, -1, 4], terminals=[3], next_observations=jump) == {
        0: 1 + 2 / 2 - 2 / 4, 1: 2 - 2 / 2, 2: -1 + 4 / 2, 3: 4,
    }  # fmt: skip


def test_without_a_discount_a_cut_return_has_no_bound_unless_no_reward_is_negative():
    assert by_hand([1, 2, 4, 8], terminals=[1], timeouts=[3], gamma=1.0) == {0: 3, 1: 2, 2: 12}
    assert by_hand([1, 2, -4, 8], terminals=[1], timeouts=[3], gamma=1.0) == {0: 3, 1: 2, 2: -np.inf}
    discount = [0.5, 0.0, 1.0, 1.0]  # nothing counts behind row 1
    assert by_hand([1, 2, -4, 8], timeouts=[3], columns={"discount": discount}) == {0: 2, 1: 2, 2: -np.inf}


def test_a_cut_return_is_that_of_an_episode_which_goes_on_with_the_worst_reward():
    rewards = np.array([1.0, -2.0, 3.0, 0.5])
    longer = np.concatenate([rewards, np.full(3000, -2.0)])
    cut = by_hand(rewards, timeouts=[3], gamma=0.99, next_observations=np.arange(1, 5, dtype=np.float32)[:, None])
    gone_on = by_hand(longer, terminals=[len(longer) - 1], gamma=0.99)
    assert cut == pytest.approx({row: gone_on[row] for row in range(4)}, rel=1e-5)


def test_returns_to_go_follow_episodes_farther_than_a_link_looks():
    n = 2 * _kernels.MOST_STEPS + 100
    assert by_hand(np.ones(n), terminals=[n - 1], gamma=1.0)[50] == n - 50


def test_returns_to_go_check_what_they_are_given():
    rows, _ = rows_of(MDPDataset(np.zeros((3, 1)), [0, 0, 0], [1, 1, 1], flags(3), timeouts=flags(3, 2)))
    picks = np.array([0, 1])
    batch = reusable_batch(rows, picks)
    with pytest.raises(ValueError, match="one place for each pick"):
        batch._gather.sum_rest(0.0, np.zeros(3, np.float32))
    picks[1] = 2
    with pytest.raises(IndexError, match="row 2 is not a transition of a storage of 3 rows"):
        batch.returns_to_go()


@MODEST
@given(log=logs())
def test_links_equal_the_slow_twin(log):
    assume(log.transitions())
    rows, _ = rows_of(dataset_of(log))
    for row in range(len(rows)):
        assert rows.is_transition(row) == log.is_transition(row)
        assert bool(rows.ends()[row]) == log.ends(row)
        if log.is_transition(row):
            assert rows.has_next(row) == log.linked(row)
            np.testing.assert_array_equal(rows.next_observation(row), log.successor(row))


def test_n_step_sum_by_hand():
    # episode of 4 rows with a terminal, then one of 3 rows cut by a time limit
    rows, indices = rows_of(
        MDPDataset(
            np.arange(7, dtype=np.float32)[:, None],
            np.zeros(7, np.int64),
            [1, 2, 4, 8, 16, 32, 64],
            flags(7, 3),
            timeouts=flags(7, 6),
        )
    )
    assert indices.tolist() == [0, 1, 2, 3, 4, 5]
    batch = gather(rows, indices, n_steps=3, gamma=0.5)
    # 1 + 2/2 + 4/4, 2 + 4/2 + 8/4, 4 + 8/2, 8, then 16 + 32/2, 32
    assert batch.rewards.reshape(-1).tolist() == [3.0, 6.0, 8.0, 8.0, 32.0, 32.0]
    assert batch.n_steps.reshape(-1).tolist() == [3, 3, 2, 1, 2, 1]
    assert batch.terminals.reshape(-1).tolist() == [0, 1, 1, 1, 0, 0]
    assert batch.discounts.reshape(-1).tolist() == [0.125, 0, 0, 0, 0.25, 0.5]
    assert batch.next_observations.reshape(-1).tolist() == [3, 0, 0, 0, 6, 6]


def test_n_step_sum_with_a_discount_column_by_hand():
    dataset = MDPDataset(
        np.zeros((3, 1), np.float32), [0, 1, 0], [1, 1, 1], flags(3), timeouts=flags(3, 2),
        next_observations=np.array([[0.0], [0.0], [9.0]]), columns={"discount": [0.5, 0.25, 0.125]},
    )  # fmt: skip
    batch = gather(*rows_of(dataset), n_steps=3, gamma=0.9)
    assert batch.rewards.reshape(-1).tolist() == [1 + 0.5 + 0.125, 1 + 0.25, 1]
    assert batch.discounts.reshape(-1).tolist() == [0.5 * 0.25 * 0.125, 0.25 * 0.125, 0.125]
    assert batch.next_observations.reshape(-1).tolist() == [9, 9, 9]


def test_frame_stack_by_hand():
    # frame t is an image of the number t + 1; terminal after row 2, then an episode cut after row 5
    frames = np.arange(1, 7, dtype=np.uint8).reshape(6, 1, 1, 1)
    dataset = MDPDataset(frames, np.zeros(6, int), np.zeros(6), flags(6, 2), timeouts=flags(6, 5))
    batch = gather(*rows_of(dataset), n_frames=3)
    assert batch.observations.reshape(5, 3).tolist() == [
        [1, 1, 1], [1, 1, 2], [1, 2, 3], [4, 4, 4], [4, 4, 5],
    ]  # fmt: skip
    assert batch.next_observations.reshape(5, 3).tolist() == [
        [1, 1, 2], [1, 2, 3], [2, 3, 0], [4, 4, 5], [4, 5, 6],
    ]  # fmt: skip


def test_frame_stack_of_an_n_step_successor_starts_from_the_last_row_visited():
    frames = np.arange(1, 7, dtype=np.uint8).reshape(6, 1, 1, 1)
    dataset = MDPDataset(frames, np.zeros(6, int), np.zeros(6), flags(6, 5))
    batch = gather(*rows_of(dataset), n_frames=2, n_steps=2)
    assert batch.next_observations.reshape(6, 2).tolist() == [[2, 3], [3, 4], [4, 5], [5, 6], [6, 0], [6, 0]]


def test_channels_of_one_frame_stay_together():
    frames = np.arange(8, dtype=np.uint8).reshape(4, 2, 1, 1)  # frame t has the channels 2t, 2t + 1
    dataset = MDPDataset(frames, np.zeros(4, int), np.zeros(4), flags(4, 3))
    batch = gather(*rows_of(dataset), n_frames=2)
    assert batch.observations.reshape(4, 4)[2].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("bad", [-1, 5, 2**40, -(2**60)])
def test_a_row_outside_is_an_index_error_and_never_a_crash(bad):
    rows, _ = rows_of(MDPDataset(np.zeros((5, 2)), [0, 1, 0, 1, 0], np.zeros(5), flags(5, 4)))
    with pytest.raises(IndexError, match=r"\[0, 5\)"):
        gather(rows, [0, bad])
    picks = np.array([0, 1])
    batch = reusable_batch(rows, picks)
    batch._gather.fill()
    picks[1] = bad  # behind the back of the checks in Python
    with pytest.raises(IndexError, match=f"row {bad} is not a transition"):
        batch._gather.fill()


def test_a_row_without_known_successor_is_no_transition():
    rows, _ = rows_of(MDPDataset(np.zeros((3, 2)), [0, 1, 0], np.zeros(3), flags(3), timeouts=flags(3, 2)))
    with pytest.raises(IndexError, match="row 2 is not a transition"):
        gather(rows, [0, 2])
    batch = reusable_batch(rows, np.array([2]))
    with pytest.raises(IndexError, match="row 2 is not a transition of a storage of 3 rows"):
        batch._gather.fill()


def test_the_kernel_refuses_buffers_that_do_not_fit():
    rows, _ = rows_of(MDPDataset(np.zeros((5, 2)), [0, 1, 0, 1, 0], np.zeros(5), flags(5, 4)))
    batch = reusable_batch(rows, np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="one row for each pick"):
        _kernels.Gather(rows, rows.rewards, None, np.zeros(5, np.int64), batch, 1, 1, 0.99)
    with pytest.raises(ValueError, match="same number of rows"):
        _kernels.Gather(rows, rows.rewards[:4], None, batch.indices, batch, 1, 1, 0.99)
    with pytest.raises(ValueError, match="mismatch"):
        _kernels.Gather(rows, rows.rewards.astype(np.float64), None, batch.indices, batch, 1, 1, 0.99)
    with pytest.raises(ValueError, match="must end an episode"):
        _kernels.link_rows(flags(2), flags(2), np.array([-1]), np.zeros(2, np.uint16))


def test_long_episodes_keep_their_links():
    n = 3 * _kernels.MOST_STEPS
    dataset = MDPDataset(np.arange(n, dtype=np.float32)[:, None], np.zeros(n, int), np.ones(n), flags(n, n - 1))
    rows, indices = rows_of(dataset)
    batch = gather(rows, indices, n_steps=_kernels.MOST_STEPS, gamma=1.0)
    expected = np.minimum(_kernels.MOST_STEPS, n - np.arange(n))
    np.testing.assert_array_equal(batch.n_steps.reshape(-1), expected)
    np.testing.assert_array_equal(batch.rewards.reshape(-1), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_steps": 0}, "n_steps must be a whole number from 1"),
        ({"n_steps": -1}, "n_steps must be a whole number from 1"),
        ({"n_steps": 10_000}, "n_steps must be a whole number from 1 to 8191"),
        ({"n_frames": 0}, "n_frames must be a whole number of at least 1"),
        ({"n_frames": 2}, "n_frames=2 needs uint8 images"),
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\], got 1.5"),
        ({"gamma": float("nan")}, "gamma must lie in"),
        ({"rewards": np.zeros(5)}, "rewards must be a contiguous float32 array of shape"),
        ({"rewards": np.zeros(4, np.float32)}, "rewards must be a contiguous float32 array of shape"),
    ],
)
def test_settings_that_cannot_be_followed_are_named(arguments, message):
    dataset = MDPDataset(np.zeros((5, 2)), [0, 1, 0, 1, 0], np.zeros(5), flags(5, 4))
    with pytest.raises(ValueError, match=message):
        gather(*rows_of(dataset), **arguments)


@pytest.mark.parametrize("indices", [[], [[0, 1]]])
def test_indices_must_be_a_list_of_rows(indices):
    rows, _ = rows_of(MDPDataset(np.zeros((5, 2)), [0, 1, 0, 1, 0], np.zeros(5), flags(5, 4)))
    with pytest.raises(ValueError, match="indices must name at least one row"):
        gather(rows, indices)


def test_a_batch_of_transition_objects_holds_their_rows():
    dataset = MDPDataset(np.arange(5.0)[:, None], [0, 1, 2, 3, 0], np.arange(5), flags(5, 4))
    episode = dataset[0]
    batch = TransitionMiniBatch([episode[3], episode[0]], n_steps=2, gamma=0.5)
    assert batch.observations.reshape(-1).tolist() == [3, 0]
    assert batch.rewards.reshape(-1).tolist() == [3 + 0.5 * 4, 0 + 0.5 * 1]
    assert batch.actions.tolist() == [3, 0]
    assert batch.next_actions.tolist() == [0, 2]  # none after the terminal: zero
    assert (batch.size(), len(batch), batch.gamma) == (2, 2, 0.5)
    assert batch.transitions == [episode[3], episode[0]] == list(batch) == batch[0:2]
    assert batch[-1] == episode[0]

"""``append``, ``extend`` and ``clip_reward``: what changes a data set that is there."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3rlpy.dataset import MDPDataset, gather, rows_of

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


def test_append_adds_episodes():
    dataset = counting()
    dataset.append(np.array([[7.0], [8.0]]), [3, 0], [1, 2], [0, 1])
    assert len(dataset) == 3
    assert dataset[2].observations.tolist() == [[7], [8]]
    assert dataset.get_action_size() == 4
    assert dataset.report.rows == 8
    assert dataset.report.rows == dataset.report.transitions + sum(dataset.report.dropped.values())


@MODEST
@given(discrete=st.booleans(), with_discount=st.booleans(), n_steps=st.integers(1, 4), data=st.data())
def test_extend_equals_both_one_after_the_other(discrete, with_discount, n_steps, data):
    pair = logs(kinds=["vector"], alike=(discrete, with_discount)).filter(lambda log: log.transitions())
    a, b = dataset_of(data.draw(pair)), dataset_of(data.draw(pair))
    parts = [gather(*rows_of(d), n_steps=n_steps) for d in (a, b)]
    a.extend(b)
    both = gather(*rows_of(a), n_steps=n_steps)
    for name in (
        "observations",
        "actions",
        "rewards",
        "next_observations",
        "terminals",
        "n_steps",
        "discounts",
    ):
        np.testing.assert_array_equal(getattr(both, name), np.concatenate([getattr(p, name) for p in parts]))
    assert a.report.transitions == len(both)


def test_extend_refuses_another_kind():
    dataset = counting()
    with pytest.raises(ValueError, match=r"observations of shape \(2,\) do not fit \(1,\)"):
        dataset.extend(counting(observations=np.zeros((6, 2))))
    with pytest.raises(ValueError, match="continuous actions do not fit discrete ones"):
        dataset.extend(counting(actions=np.linspace(0, 1, 6)))
    with pytest.raises(ValueError, match=r"columns .* do not fit"):
        dataset.extend(counting(columns={"x": np.zeros(6)}))
    with pytest.raises(TypeError, match="extend takes an MDPDataset"):
        dataset.extend([1])
    with pytest.raises(ValueError, match="action_size=2 was given, but the new data have 3 actions"):
        counting(action_size=2).extend(counting(action_size=3))
    with pytest.raises(ValueError, match="actions of size 2 do not fit 1"):
        counting(actions=np.full((6, 1), 0.5)).extend(counting(actions=np.full((6, 2), 0.5)))
    with pytest.raises(ValueError, match="rows of different shape"):
        counting(columns={"x": np.zeros(6)}).extend(counting(columns={"x": np.zeros((6, 2))}))


def test_append_refuses_an_id_beyond_the_action_size_that_was_given():
    with pytest.raises(ValueError, match="id 2 in row 0, but action_size=2"):
        counting(action_size=2).append([[0.0]], [2], [0], [1])


def test_clip_reward_needs_an_order():
    with pytest.raises(ValueError, match="low must not exceed high"):
        counting().clip_reward(low=1, high=0)
    dataset = counting()
    dataset.clip_reward(high=15)
    dataset.clip_reward()
    assert dataset.rewards.tolist() == [10, 15, 15, 15, 15, 15]


@pytest.mark.parametrize("limit", [np.nan, np.inf, -np.inf, 1e300, "1", [0, 1]])
def test_clip_reward_needs_numbers(limit):
    dataset = counting()
    message = "must be a finite number within float32, or None for an open side, got"
    with pytest.raises(ValueError, match=f"low {message}"):
        dataset.clip_reward(limit, 1)
    with pytest.raises(ValueError, match=f"high {message}"):
        dataset.clip_reward(high=limit)
    assert dataset.rewards.tolist() == [10, 20, 30, 40, 50, 60]


def test_append_of_ids_without_the_largest_one_keeps_the_width_of_masks():
    dataset = MDPDataset([[0.0], [1.0]], [0, 2], [0, 0], [0, 1], columns={"action_mask": np.ones((2, 3))})
    dataset.append([[0.0], [1.0]], [0, 1], [0, 0], [0, 1], columns={"action_mask": np.ones((2, 3))})
    assert dataset.columns["action_mask"].shape == (4, 3)
    assert dataset.get_action_size() == 3


def test_append_of_few_rows_does_not_call_known_ids_sparse():
    dataset = MDPDataset(np.zeros((1500, 1)), np.arange(1500), np.zeros(1500), flags(1500, 1499))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.append([[0.0]], [1400], [0], [1])
    with pytest.warns(UserWarning, match="largest id is 9000, but only 1 ids occur"):
        dataset.append([[0.0]], [9000], [0], [1])


def test_append_of_floats_to_ids_says_what_ids_are():
    with pytest.raises(ValueError, match=r"^discrete actions are whole numbers, but actions has 0.5 in row 1"):
        counting().append([[0.0], [1.0]], [0.0, 0.5], [0, 0], [0, 1])

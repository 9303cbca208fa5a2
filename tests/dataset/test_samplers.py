"""Samplers: every row is seen, batches are full, states can be saved, seeds decide."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from d3rlpy.dataset import MDPDataset, PermutationSampler, RandomSampler, gather, rows_of

from .generated import dataset_of, flags, logs

MODEST = settings(deadline=None, max_examples=60)
KINDS = [PermutationSampler, RandomSampler]


def numbered(rows):
    """One episode whose observation is the row number; every row is a transition."""
    observations = np.arange(rows, dtype=np.float32)[:, None]
    return rows_of(MDPDataset(observations, np.zeros(rows, int), np.ones(rows), flags(rows, rows - 1)))


def drawn(sampler, batches):
    """The rows of some batches, one after the other."""
    return [int(row) for _ in range(batches) for row in sampler.sample().observations.reshape(-1)]


@MODEST
@given(rows=st.integers(1, 40), batch_size=st.integers(1, 50), passes=st.integers(1, 4), seed=st.integers(0, 99))
def test_each_pass_of_permutations_sees_every_row_once(rows, batch_size, passes, seed):
    sampler = PermutationSampler(*numbered(rows), batch_size, seed=seed)
    seen = drawn(sampler, -(-rows * passes // batch_size))
    for k in range(passes):
        assert sorted(seen[k * rows : (k + 1) * rows]) == list(range(rows))


@MODEST
@given(rows=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_without_shuffling_the_order_is_kept_and_repeated(rows, batch_size):
    sampler = PermutationSampler(*numbered(rows), batch_size, shuffle=False)
    assert drawn(sampler, 3) == [k % rows for k in range(3 * batch_size)]
    assert sampler.n_batches == (rows + batch_size - 1) // batch_size
    assert sampler.n_transitions == rows


@MODEST
@given(log=logs(), kind=st.sampled_from(KINDS), n_steps=st.integers(1, 4), data=st.data())
def test_a_sampled_batch_equals_a_gathered_one(log, kind, n_steps, data):
    assume(log.transitions())
    n_frames = data.draw(st.integers(1, 3)) if log.observations.ndim == 4 else 1
    rows, indices = rows_of(dataset_of(log))
    scaled = log.rewards * 2
    sampler = kind(rows, indices, 5, n_frames, n_steps, 0.9, seed=0, rewards=scaled)
    for _ in range(3):
        batch = sampler.sample()
        assert set(batch.indices.tolist()) <= set(indices.tolist())
        fresh = gather(rows, batch.indices, n_frames, n_steps, 0.9, rewards=scaled)
        for name in (
            "observations",
            "actions",
            "rewards",
            "next_observations",
            "discounts",
            "terminals",
            "n_steps",
        ):
            np.testing.assert_array_equal(getattr(batch, name), getattr(fresh, name))


@MODEST
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 30),
    before=st.integers(0, 150),
    after=st.integers(1, 150),
)
def test_a_saved_state_continues_the_same_sequence(kind, rows, before, after):
    sampler, other = kind(*numbered(rows), 4, seed=1), kind(*numbered(rows), 4, seed=2)
    drawn(sampler, before)
    state = json.loads(json.dumps(sampler.get_state()))
    other.set_state(state)
    assert drawn(sampler, after) == drawn(other, after)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind):
    rows, indices = numbered(1000)
    first, same, other = (drawn(kind(rows, indices, 50, seed=seed), 30) for seed in (3, 3, 4))
    assert first == same != other
    child = np.random.SeedSequence(3).spawn(1)[0]
    assert drawn(kind(rows, indices, 50, seed=child), 2) != first[:100]


def test_random_draws_are_even_and_repeat():
    sampler = RandomSampler(*numbered(10), 100, seed=0)
    counts = np.bincount(drawn(sampler, 200), minlength=10)
    assert counts.sum() == 20_000
    assert abs(counts - 2000).max() < 5 * np.sqrt(20_000 * 0.1 * 0.9)


def test_buffers_are_the_same_objects_every_time():
    sampler = PermutationSampler(*numbered(10), 3, seed=0)
    first = sampler.sample()
    arrays = (first.observations, first.rewards, first.discounts)
    second = sampler.sample()
    assert all(a is b for a, b in zip(arrays, (second.observations, second.rewards, second.discounts), strict=True))


def test_only_the_given_transitions_are_sampled():
    rows, _ = numbered(10)
    sampler = PermutationSampler(rows, np.array([2, 5, 7]), 3, seed=0)
    assert sorted(drawn(sampler, 1)) == [2, 5, 7]


def test_a_state_of_another_sampler_is_refused():
    state = PermutationSampler(*numbered(10), 3, seed=0).get_state()
    with pytest.raises(ValueError, match="batch_size=3, this one has 4"):
        PermutationSampler(*numbered(10), 4, seed=0).set_state(state)
    with pytest.raises(ValueError, match="transitions=10, this one has 11"):
        PermutationSampler(*numbered(11), 3, seed=0).set_state(state)
    with pytest.raises(ValueError, match="sampler=PermutationSampler, this one has RandomSampler"):
        RandomSampler(*numbered(10), 3, seed=0).set_state(state)


@pytest.mark.parametrize("batch_size", [0, -3, 1.5])
def test_batch_size_must_be_positive(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be a whole number of at least 1, got {batch_size}"):
        PermutationSampler(*numbered(10), batch_size)


def test_rows_that_are_no_transitions_are_refused():
    rows, _ = rows_of(MDPDataset(np.zeros((3, 1)), [0, 1, 0], np.ones(3), flags(3), timeouts=flags(3, 2)))
    with pytest.raises(IndexError, match="row 2 is not a transition"):
        PermutationSampler(rows, [0, 1, 2], 2)
    with pytest.raises(IndexError, match=r"\[0, 3\), got 0 to 3"):
        RandomSampler(rows, [0, 3], 2)
    with pytest.raises(ValueError, match="at least one row"):
        RandomSampler(rows, [], 2)
    for mask in ([True, False, True], np.ones(3, bool)):
        with pytest.raises(TypeError, match=r"row numbers, integers, got bool: for a mask pass np.flatnonzero\(mask\)"):
            RandomSampler(rows, mask, 2)
        with pytest.raises(TypeError, match="got bool"):
            gather(rows, mask)
    with pytest.raises(TypeError, match="row numbers, integers, got float64"):
        gather(rows, [0.7, 1.2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cursor", [-1, 10**6, 1.5, None, "3"])
def test_a_state_with_a_cursor_outside_its_draw_is_refused_and_changes_nothing(kind, cursor):
    sampler, same = (kind(*numbered(10), 3, seed=0) for _ in range(2))
    with pytest.raises(ValueError, match=r"the state is damaged: cursor must be a whole number from 0 to \d+, got"):
        sampler.set_state(sampler.get_state() | {"cursor": cursor})
    assert drawn(sampler, 3) == drawn(same, 3)


@pytest.mark.parametrize("generator", [None, {}, {"bit_generator": "MT19937"}, {"bit_generator": "PCG64", "state": 3}])
def test_a_state_with_a_damaged_generator_is_refused(generator):
    sampler = PermutationSampler(*numbered(10), 3, seed=0)
    with pytest.raises(ValueError, match="the state is damaged: generator"):
        sampler.set_state(sampler.get_state() | {"generator": generator})
    with pytest.raises(TypeError, match="takes a dictionary of get_state, got list"):
        sampler.set_state([1])


def test_settings_that_are_no_numbers_are_named():
    rows, indices = numbered(10)
    with pytest.raises(ValueError, match="n_steps must be a whole number from 1 to 8191, got nan"):
        RandomSampler(rows, indices, 2, n_steps=float("nan"))
    with pytest.raises(ValueError, match="n_frames must be a whole number of at least 1, got 'two'"):
        RandomSampler(rows, indices, 2, n_frames="two")
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\], got 'high'"):
        RandomSampler(rows, indices, 2, gamma="high")
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got nan"):
        RandomSampler(rows, indices, float("nan"))
    for seed in (-1, 1.5, "a"):
        with pytest.raises(ValueError, match=f"seed must be None, a whole number of at least 0 .*, got {seed!r}"):
            RandomSampler(rows, indices, 2, seed=seed)
    with pytest.raises(ValueError, match=r"rewards must be a contiguous float32 array of shape \(10,\), got list"):
        RandomSampler(rows, indices, 2, rewards=[0.0] * 10)
    with pytest.raises(ValueError, match=r"float32 array of shape \(10,\), got float64 \(10,\)"):
        RandomSampler(rows, indices, 2, rewards=np.zeros(10))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize(
    ("kind", "options"), [(PermutationSampler, {}), (PermutationSampler, {"shuffle": False}), (RandomSampler, {})]
)
def test_a_copied_sampler_goes_on_from_the_same_place_on_its_own(kind, options, copied):
    rows, indices = numbered(10)
    sampler = kind(rows, indices, 3, n_steps=2, gamma=0.5, rewards=3 * rows.rewards, seed=0, **options)
    drawn(sampler, 2)
    other = copied(sampler)
    for _ in range(9):
        mine, theirs = sampler.sample(), other.sample()
        np.testing.assert_array_equal(mine.observations, theirs.observations)
        np.testing.assert_array_equal(mine.rewards, theirs.rewards)
        np.testing.assert_array_equal(mine.discounts, theirs.discounts)

"""The device's columns, the kernels and the slow twin say the same; the device's sampler sees every row once."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from d3rlpy.columns import DeviceColumns, DeviceSampler, fits
from d3rlpy.dataset import MDPDataset, gather, rows_of
from d3rlpy.online.buffers import ReplayBuffer
from tests.dataset.generated import dataset_of, logs

CPU = torch.device("cpu")
MODEST = settings(deadline=None, max_examples=150)
NAMES = ("observations", "actions", "rewards", "next_observations", "terminals", "n_steps", "discounts")


def assert_equals_batch(found, batch):
    for name in NAMES:
        wanted = getattr(batch, name)
        assert found[name].numpy().dtype == wanted.dtype, name
        np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-6, atol=1e-7, err_msg=name)


@MODEST
@given(log=logs(), n_steps=st.integers(1, 8), gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]), data=st.data())
def test_columns_kernels_and_the_slow_twin_agree(log, n_steps, gamma, data):
    assume(log.transitions())
    n_frames = data.draw(st.integers(1, 5)) if log.observations.ndim == 4 else 1
    rows, _ = rows_of(dataset_of(log))
    picks = data.draw(st.lists(st.sampled_from(log.transitions()), min_size=1, max_size=12))
    found = DeviceColumns(rows, CPU).batch(torch.tensor(picks), n_frames, n_steps, gamma)
    assert_equals_batch(found, gather(rows, picks, n_frames, n_steps, gamma))
    for name, array in log.batch(picks, n_frames, n_steps, gamma).items():
        np.testing.assert_allclose(found[name].numpy(), array, rtol=1e-6, atol=1e-7, err_msg=name)


def test_scaled_rewards_are_summed_instead():
    rows, indices = rows_of(walk(20))
    scaled = rows.rewards * np.float32(-3.0)
    found = DeviceColumns(rows, CPU, scaled).batch(torch.from_numpy(indices), 1, 4, 0.9)
    assert_equals_batch(found, gather(rows, indices, 1, 4, 0.9, scaled))


def walk(n, image=False):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(n, 2)).astype("float32")
    if image:
        observations = rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    rewards = rng.normal(size=n).astype("float32")
    ends = (np.arange(n) % 7 == 6) | (np.arange(n) == n - 1)
    return MDPDataset(observations, rng.integers(0, 3, n), rewards, ends)


def test_a_ring_that_has_turned_is_read_across_its_seam():
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(maxlen=13, observation_shape=(2,), action_size=3, discrete_action=True)
    for t in range(30):
        following = rng.normal(size=2).astype("float32") if t % 5 == 4 else None
        buffer.append(
            rng.normal(size=2).astype("float32"), t % 3, float(t), t % 10 == 9, timeout=t % 10 == 4,
            next_observation=following,
        )  # fmt: skip
    sampler = buffer.make_sampler(4, 1, 3, 0.9, seed=0)
    rows = sampler.sample().rows
    indices = rows.transition_indices()
    found = DeviceColumns(rows, CPU).batch(torch.from_numpy(indices), 1, 3, 0.9)
    assert_equals_batch(found, gather(rows, indices, 1, 3, 0.9))


@given(
    n=st.integers(7, 40), batch_size=st.integers(1, 50), ahead=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None, max_examples=100)
def test_each_pass_sees_every_row_once(n, batch_size, ahead, seed):
    rows, indices = rows_of(walk(n))
    columns = DeviceColumns(rows, CPU, np.arange(n, dtype=np.float32))
    sampler = DeviceSampler(columns, rows, indices, batch_size, seed=seed, most_ahead=4)
    drawn = []
    for n_batches in ahead:
        sampler.refill(n_batches)
        drawn += [sampler.draw()["rewards"] for _ in range(n_batches)]
        sampler.taken(n_batches)
    seen = torch.cat(drawn).flatten().int().tolist()
    size = len(indices)
    for start in range(0, len(seen) - size + 1, size):
        assert sorted(seen[start : start + size]) == indices.tolist()
    assert len(set(seen[len(seen) // size * size :])) == len(seen) % size


def test_without_shuffling_the_order_is_kept_and_the_seed_decides_otherwise():
    rows, indices = rows_of(walk(14))
    columns = DeviceColumns(rows, CPU, np.arange(14, dtype=np.float32))

    def drawn(**arguments):
        sampler = DeviceSampler(columns, rows, indices, 5, **arguments)
        return torch.cat([sampler.sample()["rewards"] for _ in range(4)]).flatten().int().tolist()

    assert drawn(shuffle=False) == (indices.tolist() * 2)[:20]
    assert drawn(seed=1) == drawn(seed=1)
    assert drawn(seed=1) != drawn(seed=2)


def test_the_line_of_rows_stays_where_it_is():
    """A captured graph reads from its memory."""
    rows, indices = rows_of(walk(40))
    sampler = DeviceSampler(DeviceColumns(rows, CPU), rows, indices, 8, seed=0, most_ahead=4)
    place = sampler.order.data_ptr()
    for _ in range(20):
        sampler.refill(4)
        for _ in range(4):
            sampler.draw()
        sampler.taken(4)
    assert sampler.order.data_ptr() == place


def test_columns_of_a_cpu_always_fit_and_their_size_is_told():
    rows, _ = rows_of(walk(40, image=True))
    assert fits(rows, CPU)
    size = DeviceColumns.bytes_of(rows)
    assert 40 * (16 + 8 + 4 + 1) < size < 40 * (16 + 8 + 4 + 1 + 16) + 100


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"batch_size": 0}, "batch_size"), ({"n_frames": 2}, "n_frames=2 needs"), ({"gamma": 2.0}, "gamma")],
)
def test_settings_that_cannot_be_followed_are_named(arguments, complaint):
    rows, indices = rows_of(walk(14))
    with pytest.raises(ValueError, match=complaint):
        DeviceSampler(DeviceColumns(rows, CPU), rows, indices, **{"batch_size": 4, **arguments})

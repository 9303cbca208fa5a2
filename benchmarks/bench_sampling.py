"""How fast are mini-batches made, and how soon is a data set ready to sample? One thread.

Sampling counts everything: drawing indices, gathering, the batch object. Each figure is the median of several
windows, taken in turns with those of the other figures; the spread shows how quiet the machine was. "Ready"
is from arrays in memory, or from a file in the page cache, to the first sampled batch; h5py is imported
before.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import h5py  # noqa: F401  its import is not part of a load
import numpy as np

from d3rlpy.dataset import MDPDataset, PermutationSampler, RandomSampler, rows_of
from d3rlpy.online import ReplayBuffer

Arrays = dict[str, np.ndarray]
VECTOR, N_STEP = "vector, 1 step, million samples/s", "vector, 3 steps, million samples/s"


def vector_arrays(n_rows: int) -> Arrays:
    """Gaussian rows of 11 observations and 3 actions; episodes of 1000 rows, every third with a terminal."""
    rng = np.random.default_rng(0)
    row = np.arange(n_rows)
    ends = (row % 1000 == 999) | (row == n_rows - 1)
    terminals = ends & (row // 1000 % 3 == 0)
    return {
        "observations": rng.normal(size=(n_rows, 11)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (n_rows, 3)).astype(np.float32),
        "rewards": rng.normal(size=n_rows).astype(np.float32),
        "terminals": terminals,
        "timeouts": ends & ~terminals,
    }


def image_arrays(n_rows: int) -> Arrays:
    """Grey frames of 84x84 noise, 4 actions."""
    rng = np.random.default_rng(0)
    arrays = vector_arrays(n_rows)
    arrays["observations"] = rng.integers(0, 256, (n_rows, 1, 84, 84), dtype=np.uint8)
    arrays["actions"] = rng.integers(0, 4, n_rows)
    return arrays


def sampler_of(dataset: MDPDataset, kind: type, batch_size: int, **options) -> Callable[[], float]:
    """A function that samples for about 0.2 seconds and returns millions of samples a second."""
    return speed_of(kind(*rows_of(dataset), batch_size, seed=0, **options).sample, batch_size)


def speed_of(sample: Callable[[], object], batch_size: int) -> Callable[[], float]:
    def window() -> float:
        count, start = 0, perf_counter()
        while perf_counter() - start < 0.2:
            for _ in range(50):
                sample()
            count += 50
        return count * batch_size / (perf_counter() - start) / 1e6

    window()
    return window


def returns_of(dataset: MDPDataset, batch_size: int) -> Callable[[], float]:
    """The same for the returns-to-go of a batch, without sampling."""
    batch = PermutationSampler(*rows_of(dataset), batch_size, seed=0).sample()
    return speed_of(batch.returns_to_go, batch_size)


def step_and_sample(dataset: MDPDataset, batch_size: int) -> Callable[[], float]:
    """The same for a full replay buffer: one step is appended before each batch."""
    buffer = ReplayBuffer(len(dataset.rows), dataset=dataset)
    sample, observations, action = buffer.make_sampler(batch_size, seed=0).sample, dataset.observations, np.zeros(3)
    time = iter(range(10**9))

    def step() -> None:
        t = next(time) % (len(observations) - 1)
        buffer.append(observations[t], action, 0.5, False, t % 1000 == 999, observations[t + 1])
        sample()

    return speed_of(step, batch_size)


def time_to_sample(make: Callable[[], MDPDataset]) -> Callable[[], float]:
    """A function that makes a data set and returns the milliseconds until its first batch."""

    def run() -> float:
        start = perf_counter()
        PermutationSampler(*rows_of(make()), 256, seed=0).sample()
        return (perf_counter() - start) * 1e3

    return run


def measure(windows: int, folder: str) -> dict[str, list[float]]:
    """Every figure ``windows`` times, in turns, because a busy machine slows down for seconds at a time."""
    arrays, large = vector_arrays(100_000), vector_arrays(1_000_000)
    vectors, frames = MDPDataset(**arrays), MDPDataset(**image_arrays(20_000))
    small_file, large_file = Path(folder) / "small.h5", Path(folder) / "large.h5"
    vectors.dump(small_file)
    MDPDataset(**large).dump(large_file)
    runs = {
        VECTOR: sampler_of(vectors, PermutationSampler, 256),
        N_STEP: sampler_of(vectors, PermutationSampler, 256, n_steps=3),
        "vector, with replacement, million samples/s": sampler_of(vectors, RandomSampler, 256),
        "vector, returns-to-go, million transitions/s": returns_of(vectors, 256),
        "vector, a step and a batch, million samples/s": step_and_sample(vectors, 256),
        "4 frames of 84x84, million samples/s": sampler_of(frames, PermutationSampler, 32, n_frames=4),
        "100k rows ready from arrays, ms": time_to_sample(lambda: MDPDataset(**arrays)),
        "1M rows ready from arrays, ms": time_to_sample(lambda: MDPDataset(**large)),
        "100k rows ready from HDF5, ms": time_to_sample(lambda: MDPDataset.load(small_file)),
        "1M rows ready from HDF5, ms": time_to_sample(lambda: MDPDataset.load(large_file)),
    }
    values: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(windows):
        for name, run in runs.items():
            values[name].append(run())
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="also write the medians to this file")
    parser.add_argument("--windows", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        values = measure(args.windows, folder)
    values["3 steps over 1 step"] = [n / one for n, one in zip(values[N_STEP], values[VECTOR], strict=True)]
    medians = {name: statistics.median(runs) for name, runs in values.items()}
    print(f"{'':46s} {'median':>8s} {'lowest':>8s} {'highest':>8s}")
    for name, runs in values.items():
        print(f"{name:46s} {medians[name]:8.3f} {min(runs):8.3f} {max(runs):8.3f}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(medians, file, indent=2)


if __name__ == "__main__":
    main()

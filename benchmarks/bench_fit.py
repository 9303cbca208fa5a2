"""How much does ``fit`` cost over the bare loop of sampling and updating, and how long does ``predict`` take?

The bare loop and ``fit`` make the same updates in one process, in turns; the ratio of the medians is the figure, so a
machine that slows down hurts both alike. One thread.
"""

import argparse
import json
import statistics
import tempfile
from time import perf_counter

import numpy as np
import torch

from d3rlpy.algos import DQN, TD3PlusBC
from d3rlpy.dataset import MDPDataset, PermutationSampler, rows_of
from d3rlpy.impl import Batch


def make_dataset(discrete: bool, n: int = 100_000) -> MDPDataset:
    """Gaussian rows like those of a small robot: 11 observations, 3 actions, episodes of 500 rows."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 4, n) if discrete else rng.uniform(-1, 1, (n, 3)).astype(np.float32)
    observations = rng.normal(size=(n, 11)).astype(np.float32)
    return MDPDataset(observations, actions, rng.normal(size=n).astype(np.float32), np.arange(n) % 500 == 499)


def bare_loop(algo, dataset, n_updates: int) -> float:
    """Seconds an update: sample, convert, update."""
    rows, indices = rows_of(dataset)
    sampler = PermutationSampler(rows, indices, algo.batch_size, gamma=algo.gamma, seed=0)
    impl = algo.impl.train()
    start = perf_counter()
    for _ in range(n_updates):
        impl.step(Batch.of(sampler.sample(), algo.fitted_scalers_, impl.device))
    seconds = (perf_counter() - start) / n_updates
    impl.eval()
    return seconds


def whole_fit(algo, dataset, n_updates: int) -> float:
    """Seconds an update of ``fit`` with logs, progress bar and checkpoint."""
    with tempfile.TemporaryDirectory() as logdir:
        start = perf_counter()
        algo.fit(dataset, n_steps=n_updates, logdir=logdir, verbose=False)
        return (perf_counter() - start) / n_updates


def fit_overhead(algo, dataset, n_updates: int, rounds: int) -> dict[str, float]:
    """Medians of both loops and their ratio."""
    algo.build_with_dataset(dataset)
    bare_loop(algo, dataset, 50)
    pairs = [(bare_loop(algo, dataset, n_updates), whole_fit(algo, dataset, n_updates)) for _ in range(rounds)]
    bare, fit = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"bare_us": bare * 1e6, "fit_us": fit * 1e6, "overhead": fit / bare - 1}


def predict_latency(algo, n_rows: int, repeats: int = 2000) -> float:
    """Median microseconds of one call."""
    x = np.random.default_rng(0).normal(size=(n_rows, 11)).astype(np.float32)
    times = []
    for _ in range(repeats):
        start = perf_counter()
        algo.predict(x)
        times.append(perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name, algo, discrete in (
        ("TD3PlusBC", TD3PlusBC(random_state=0), False),
        ("DQN", DQN(random_state=0), True),
    ):
        dataset = make_dataset(discrete)
        for key, value in fit_overhead(algo, dataset, args.updates, args.rounds).items():
            figures[f"{name}.{key}"] = value
        for n_rows in (1, 1024):
            figures[f"{name}.predict_{n_rows}_us"] = predict_latency(algo, n_rows)
    for name, value in figures.items():
        print(f"{name:28s} {value:10.3f}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()

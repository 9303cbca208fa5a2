"""Does memory grow while training? Resident memory of 100,000 updates through ``fit``, after the first 10,000."""

import argparse
import json
import resource

import numpy as np
import torch

from d3rlpy.algos import DQN, TD3PlusBC
from d3rlpy.dataset import MDPDataset
from d3rlpy.models.encoders import VectorEncoderFactory


def resident_megabytes() -> float:
    """Present resident memory of the process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def growth(algo, dataset, n_updates: int) -> float:
    """Megabytes by which the process grows between update 10,000 and the last."""
    start = 0.0
    epochs = algo.fitter(
        dataset, n_steps=n_updates, n_steps_per_epoch=10_000, save_metrics=False, verbose=False, show_progress=False
    )
    for epoch, _ in epochs:
        start = resident_megabytes() if epoch == 1 else start
    return resident_megabytes() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--updates", type=int, default=100_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    n = 20_000
    columns = rng.normal(size=(n, 11)).astype(np.float32), rng.normal(size=n), np.arange(n) % 500 == 499
    small = VectorEncoderFactory(hidden_units=(32, 32))  # the size of networks does not matter here
    discrete = MDPDataset(columns[0], rng.integers(0, 4, n), *columns[1:])
    continuous = MDPDataset(columns[0], rng.uniform(-1, 1, (n, 3)).astype(np.float32), *columns[1:])
    td3 = TD3PlusBC(actor_encoder_factory=small, critic_encoder_factory=small, batch_size=32)
    figures = {
        "DQN.growth_mb": growth(DQN(encoder_factory=small), discrete, args.updates),
        "TD3PlusBC.growth_mb": growth(td3, continuous, args.updates),
    }
    for name, value in figures.items():
        print(f"{name:28s} {value:10.3f}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()

"""Eight runs of one algorithm, updated as one and one after the other: how many times as fast?

In every round each case trains both ways, one right after the other, through what ``ManyRuns`` calls; a ratio belongs
to one round. One thread, random data of Hopper's shape, logging to files off::

    python benchmarks/bench_many_runs.py --docs
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from peers.report import commit, cpu_model, write_page

from d3rlpy import algos
from d3rlpy.dataset import MDPDataset
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.training.loop import OfflineRun, offline_run
from d3rlpy.training.run import progress_bar
from d3rlpy.training.together import pays, train_as_one

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
N_RUNS, N_ROWS, WINDOW = 8, 10_000, 1.0
SMALL = VectorEncoderFactory(hidden_units=(64, 64))
ACTOR_CRITIC = {"actor_encoder_factory": SMALL, "critic_encoder_factory": SMALL}


@dataclass(frozen=True)
class Case:
    algorithm: str
    batch_size: int
    units: int = 256
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.algorithm}, batch {self.batch_size}, {self.units} units"


CASES = [
    Case("DQN", 32),
    Case("TD3PlusBC", 32),
    Case("IQL", 32),
    Case("SAC", 32),
    Case("DQN", 256),
    Case("TD3PlusBC", 100),
    Case("TD3PlusBC", 256),
    Case("DQN", 32, 64, {"encoder_factory": SMALL}),
    Case("TD3PlusBC", 32, 64, ACTOR_CRITIC),
    Case("SAC", 32, 64, ACTOR_CRITIC),
    Case("TD3PlusBC", 256, 64, ACTOR_CRITIC),
]


def dataset(discrete: bool) -> MDPDataset:
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 4, N_ROWS) if discrete else rng.uniform(-1, 1, (N_ROWS, 3)).astype("float32")
    observations = rng.normal(size=(N_ROWS, 11)).astype("float32")
    rewards = rng.normal(size=N_ROWS).astype("float32")
    return MDPDataset(observations, actions, rewards, np.arange(N_ROWS) % 200 == 199)


def runs_of(case: Case) -> list[OfflineRun]:
    cls = getattr(algos, case.algorithm)
    data = dataset(cls.action_space == "discrete")
    estimators = [cls(batch_size=case.batch_size, random_state=seed, **case.params) for seed in range(N_RUNS)]
    quiet = {"n_steps": 1, "save_metrics": False, "verbose": False, "show_progress": False}
    return [offline_run(algo, data, **quiet) for algo in estimators]


def seconds(case: Case, runs: list[OfflineRun], as_one: bool, n_updates: int, clock: Any) -> float:
    """Time of ``n_updates`` of each run."""
    start = clock()
    if as_one:
        with progress_bar(1, "", show=False) as bar:
            train_as_one(runs, 1, n_updates, bar)
    else:
        for run in runs:
            run.train(1, n_updates, 1)
    return clock() - start


def measure(case: Case, rounds: int, clock: Any) -> dict[str, Any]:
    runs = runs_of(case)
    seconds(case, runs, True, 3, clock)  # the first step of an optimizer makes its state
    n_updates = max(5, int(WINDOW / (seconds(case, runs, False, 10, clock) / 10)))
    alone, as_one = [], []
    for _ in range(rounds):
        alone.append(seconds(case, runs, False, n_updates, clock) / n_updates)
        as_one.append(seconds(case, runs, True, n_updates, clock) / n_updates)
    times = [a / b for a, b in zip(alone, as_one, strict=True)]
    return {
        "case": case.name,
        "one after the other": N_RUNS / statistics.median(alone),
        "as one": N_RUNS / statistics.median(as_one),
        "times": statistics.median(times),
        "lowest": min(times),
        "highest": max(times),
        "chosen": pays([run.algo for run in runs]),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| 8 runs | updates/s, one after the other | as one | times as fast | single rounds | chosen |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {row['case']} | {row['one after the other']:.0f} | {row['as one']:.0f} | {row['times']:.2f} | "
        f"{row['lowest']:.2f} to {row['highest']:.2f} | {'as one' if row['chosen'] else 'one after the other'} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="windows of each case and way, default 5")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/performance.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = perf_counter if args.clock == "wall" else process_time
    rows = []
    for case in CASES:
        rows.append(measure(case, args.rounds, clock))
        print(markdown(rows[-1:]).splitlines()[-1], flush=True)
    facts = f"Commit {commit()}, {cpu_model()}, torch {torch.__version__}, {args.rounds} rounds by {args.clock} time."
    print(f"\n{markdown(rows)}\n\n{facts}")
    if args.json:
        Path(args.json).write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")
    if args.docs:
        write_page(PAGE, f"{markdown(rows)}\n\n{facts}", "many runs")


if __name__ == "__main__":
    main()

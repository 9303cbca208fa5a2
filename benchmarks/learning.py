"""How well each algorithm learns, on data: built-in CartPole and Pendulum, and Hopper from ``--data-dir``.

Every run is evaluated five times on its way, in episodes that start from fixed seeds. As it ends it appends one row to
``results/learning.jsonl``; a run that is in the file with the same settings is skipped, so the script can be stopped
and started at will, also twice at once::

    python benchmarks/learning.py --data-dir DIR --workers 2          # DIR/mujoco/hopper-*-local-v0.hdf5
    python benchmarks/learning.py --only 'pendulum-.*/(IQL|BC)/0'     # a regular expression of dataset/algorithm/seed
    python benchmarks/learning.py --table                             # what there is so far
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from learning_cases import Case, all_cases
from learning_table import claims, markdown

import d3rlpy
from d3rlpy.dataset import MDPDataset
from d3rlpy.metrics import evaluate_on_environment
from d3rlpy.preprocessing import create_reward_scaler

RESULTS = Path(__file__).parent / "results" / "learning.jsonl"
POINTS = 5
TIME_LIMIT = 45 * 60
FIRST_START = 1_000
"""Seed of the first evaluation episode; the others follow it."""
RANDOM, EXPERT = -20.272305, 3234.3
"""Returns of Hopper that D4RL puts at 0 and 100 (Fu et al. 2020)."""


class TimeUpError(Exception):
    """A run took too long; what it had reached so far is kept."""


def load(name: str, data_dir: Path | None) -> tuple[MDPDataset, Any]:
    """Data set and environment."""
    if not name.startswith("hopper"):
        return d3rlpy.datasets.get_dataset(name)
    if data_dir is None:
        raise FileNotFoundError(f"{name} needs --data-dir")
    dataset = MDPDataset.load(data_dir / "mujoco" / f"{name}-local-v0.hdf5")
    try:
        return dataset, gymnasium.make("Hopper-v5")
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError("Hopper needs MuJoCo: pip install 'gymnasium[mujoco]', or the extra 'bench'") from error


def in_unit(mean_return: float, name: str) -> float:
    """D4RL-normalised for Hopper, as it is for the others."""
    return 100 * (mean_return - RANDOM) / (EXPERT - RANDOM) if name.startswith("hopper") else mean_return


def mean_of_data(dataset: MDPDataset, env: Any) -> float:
    """Mean return of the complete episodes: those that a terminal or the environment's limit ended."""
    limit = env.spec.max_episode_steps
    complete = [episode for episode in dataset.episodes if episode.terminal or len(episode.rewards) >= limit]
    return float(np.mean([episode.compute_return() for episode in complete]))


def estimator(case: Case) -> Any:
    """The algorithm, not built."""
    params = dict(case.params)
    if isinstance(scaler := params.get("reward_scaler"), list):
        params["reward_scaler"] = create_reward_scaler(scaler[0], **scaler[1])
    return getattr(d3rlpy.algos, case.algorithm)(**params, random_state=case.seed)


def train(case: Case, data_dir: Path | None, time_limit: float = TIME_LIMIT) -> dict[str, Any]:
    """The row of one run."""
    dataset, env = load(case.dataset, data_dir)
    start = time.process_time()

    def stop_in_time(*_: Any) -> None:
        if time.process_time() - start > time_limit:
            raise TimeUpError

    algo, scores = estimator(case), []
    n_trials = 10 if case.dataset.startswith("hopper") else 20
    epochs = algo.fitter(
        dataset,
        n_steps=case.n_steps,
        n_steps_per_epoch=-(-case.n_steps // POINTS),
        scorers={"environment": evaluate_on_environment(env, n_trials=n_trials, seed=FIRST_START)},
        callback=stop_in_time,
        save_metrics=False,
        verbose=False,
        show_progress=False,
    )
    try:
        for _, metrics in epochs:
            scores.append([algo.grad_step_, round(in_unit(metrics["environment"], case.dataset), 3)])
    except TimeUpError:
        print(f"{case.name}: stopped after {time_limit / 60:.0f} minutes, {algo.grad_step_} updates", flush=True)
        if not scores:
            raise
    values = [score for _, score in scores]
    return case.settings() | {
        "scores": scores,
        "last": values[-1],
        "best": max(values),
        "unit": "D4RL-normalised" if case.dataset.startswith("hopper") else "return",
        "data_mean": round(in_unit(mean_of_data(dataset, env), case.dataset), 3),
        "seconds": round(time.process_time() - start, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {name: version_of(name) for name in ("torch", "gymnasium", "mujoco", "d3rlpy")},
    }


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read(path: Path) -> list[dict[str, Any]]:
    """All whole rows; a line that a crash cut short does not count."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: passing over a broken line: {line[:60]}", file=sys.stderr)
    return rows


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one line, whole or not at all, beside other processes that do the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + json.dumps(row, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def is_done(case: Case, rows: Iterable[dict[str, Any]]) -> bool:
    settings = case.settings()
    return any(all(row.get(key) == value for key, value in settings.items()) for row in rows)


def run(case: Case, results: Path, data_dir: Path | None) -> bool:
    """Train, unless another process has, and keep the row; False if the run failed."""
    torch.set_num_threads(1)
    if is_done(case, read(results)):
        return True
    try:
        row = train(case, data_dir)
    except Exception:  # the other runs go on
        print(f"{case.name} failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return False
    append(results, row)
    print(f"{case.name}: last {row['last']:.1f}, best {row['best']:.1f}, {row['seconds']:.0f} s", flush=True)
    return True


def chosen(only: list[str], data_dir: Path | None) -> list[Case]:
    """The cases that ``--only`` and the data at hand leave."""
    cases = [case for case in all_cases() if not only or any(re.search(pattern, case.name) for pattern in only)]
    if data_dir is None:
        print("without --data-dir: only the built-in sets")
        cases = [case for case in cases if not case.dataset.startswith("hopper")]
    return cases


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with mujoco/hopper-*-local-v0.hdf5")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: benchmarks/results/learning.jsonl")
    parser.add_argument("--only", nargs="+", default=[], metavar="REGEX", help="dataset/algorithm/seed, any of these")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each, default 1")
    parser.add_argument("--list", action="store_true", help="say what would run")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error(f"--workers={args.workers} must be at least 1")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    done = [True]
    if not args.table:
        rows = read(args.results)
        cases = [case for case in chosen(args.only, args.data_dir) if not is_done(case, rows)]
        if args.list:
            print(*(f"{case.name} {case.n_steps} {case.params}" for case in cases), sep="\n")
            return 0
        work = partial(run, results=args.results, data_dir=args.data_dir)
        if args.workers == 1:
            done = [work(case) for case in cases]
        else:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(args.workers, mp_context=spawn) as pool:
                done = list(pool.map(work, cases))
    rows = read(args.results)
    print(f"\n{markdown(rows)}\n\n{claims(rows)}")
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())

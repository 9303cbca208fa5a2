"""How well each algorithm learns, on data: built-in CartPole and Pendulum, and Hopper from ``--data-dir``.

Every run is evaluated five times on its way, in episodes that start from fixed seeds. As it ends it appends one row to
``results/learning.jsonl``; a run that is in the file with the same settings is skipped, so the script can be stopped
and started at will, also twice at once::

    python benchmarks/learning.py --data-dir DIR --workers 2          # DIR/mujoco/hopper-*-local-v0.hdf5
    python benchmarks/learning.py --only 'pendulum-.*/(IQL|BC)/0'     # a regular expression of dataset/algorithm/seed
    python benchmarks/learning.py --table                             # what there is so far
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import runs
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
    found = {
        "scores": scores,
        "last": values[-1],
        "best": max(values),
        "unit": "D4RL-normalised" if case.dataset.startswith("hopper") else "return",
        "data_mean": round(in_unit(mean_of_data(dataset, env), case.dataset), 3),
    }
    return case.settings() | found | runs.circumstances(start)


def needs_files(case: Case) -> bool:
    return case.dataset.startswith("hopper")


def report(rows: list[dict[str, Any]]) -> str:
    return f"{markdown(rows)}\n\n{claims(rows)}"


def main(arguments: list[str] | None = None) -> int:
    return runs.main(arguments, __doc__ or "", RESULTS, all_cases(), needs_files, train, report)


if __name__ == "__main__":
    sys.exit(main())

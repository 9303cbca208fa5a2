"""How well algorithms learn while they act: from scratch, from an offline start, and with prior data.

Every run is evaluated ten times on its way, in 10 episodes that start from the same seeds. Rows and restarts are those
of ``learning.py``: as a run ends it appends one row to ``results/online_learning.jsonl``, and what is there with the
same settings is skipped::

    python benchmarks/online_learning.py --data-dir DIR --workers 2   # DIR/mujoco/hopper-medium-replay-local-v0.hdf5
    python benchmarks/online_learning.py --only '^MountainCar.*/RLPD/' # a regular expression of env/label/seed
    python benchmarks/online_learning.py --table                      # what there is so far
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import runs
from learning import in_unit, load
from online_cases import Case, all_cases
from online_table import RESULTS, report

import d3rlpy
from d3rlpy.dataset import MDPDataset
from d3rlpy.metrics import evaluate_on_environment
from d3rlpy.online import ReplayBuffer, explorers

POINTS = 10
EVALUATION_START = 1_000
"""Seed of the first evaluation episode; the others follow it."""

ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "CartPole": ("CartPole-v1", {"max_episode_steps": 200}),
    "Pendulum": ("Pendulum-v1", {}),
    "Hopper": ("Hopper-v5", {}),
    "MountainCarContinuous": ("MountainCarContinuous-v0", {}),
}


def make(name: str) -> gymnasium.Env[Any, Any]:
    """A fresh environment."""
    env_id, arguments = ENVIRONMENTS[name]
    return gymnasium.make(env_id, **arguments)


def pushes(n_episodes: int = 10, random_share: float = 0.9) -> MDPDataset:
    """Prior data of MountainCarContinuous: pushes with the motion, most of them replaced by random ones."""
    env, rng, columns = make("MountainCarContinuous"), np.random.default_rng(0), []
    for episode in range(n_episodes):
        observation, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            push = rng.uniform(-1, 1) if rng.random() < random_share else np.sign(observation[1])
            action = np.array([push], dtype=np.float32)
            following, reward, terminal, timeout, _ = env.step(action)
            columns.append((observation, action, reward, terminal, timeout, following))
            observation, ended = following, terminal or timeout
    observations, actions, rewards, terminals, timeouts, next_observations = map(np.array, zip(*columns, strict=True))
    return MDPDataset(observations, actions, rewards, terminals, timeouts=timeouts, next_observations=next_observations)


def prior_data(case: Case, data_dir: Path | None) -> MDPDataset | None:
    if case.prior is None:
        return None
    return pushes() if case.prior == "pushes" else load(case.prior, data_dir)[0]


def train(case: Case, data_dir: Path | None) -> dict[str, Any]:
    """The row of one run; the first score is that before the first step in the environment."""
    start, quiet = time.process_time(), {"save_metrics": False, "verbose": False, "show_progress": False}
    env, eval_env, prior = make(case.env), make(case.env), prior_data(case, data_dir)
    algo = getattr(d3rlpy.algos, case.algorithm)(**case.params, random_state=case.seed)
    if case.prior_use == "offline":
        algo.fit(prior, n_steps=case.offline_updates, **quiet)
    else:
        algo.build_with_dataset(prior) if prior else algo.build_with_env(env)
    before = evaluate_on_environment(make(case.env), n_trials=10, seed=EVALUATION_START)(algo)
    n_rows = case.n_steps + (len(prior.observations) if prior else 0)
    buffer = ReplayBuffer(n_rows, env=env, dataset=prior if case.prior_use in ("buffer", "offline") else None)
    explorer = getattr(explorers, case.explorer[0])(**case.explorer[1]) if case.explorer else None
    algo.fit_online(
        env,
        buffer,
        explorer,
        n_steps=case.n_steps,
        n_steps_per_epoch=-(-case.n_steps // POINTS),
        eval_env=eval_env,
        offline_dataset=prior if case.prior_use == "mix" else None,
        **case.fit,
        **quiet,
    )
    values = [round(in_unit(value, case.env.lower()), 3) for value in (before, *algo.eval_results_["evaluation"])]
    steps = [min(i * -(-case.n_steps // POINTS), case.n_steps) for i in range(len(values))]
    found = {
        "scores": list(zip(steps, values, strict=True)),
        "last": values[-1],
        "best": max(values),
        "unit": "D4RL-normalised" if case.env == "Hopper" else "return",
        "updates": algo.grad_step_,
    }
    return case.settings() | found | runs.circumstances(start)


def needs_files(case: Case) -> bool:
    return (case.prior or "").startswith("hopper")


def main(arguments: list[str] | None = None) -> int:
    return runs.main(arguments, __doc__ or "", RESULTS, all_cases(), needs_files, train, report)


if __name__ == "__main__":
    sys.exit(main())

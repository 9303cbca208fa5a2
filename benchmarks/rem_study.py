"""REM beside DQN, EnsembleDQN and QR-DQN on the log of one DQN agent: three questions of Agarwal et al. (2020).

Does the score fall again with more gradient steps? How does it depend on the share of the transitions? What is left
with the first tenth of them, from before the agent could do much? The log is the built-in replay of CartPole. Each run
appends a row to ``results/rem_study.jsonl`` as it ends, and runs in the file are skipped::

    python benchmarks/rem_study.py          # what is missing, then the tables and the picture of docs/rem_study.md
    python benchmarks/rem_study.py --docs   # tables and picture of what there is
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import runs
import torch

from d3rlpy.algos import DQN, REM, EnsembleDQN
from d3rlpy.dataset import MDPDataset
from d3rlpy.datasets import get_cartpole
from d3rlpy.models.encoders import VectorEncoderFactory

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "rem_study.jsonl"
PAGE = ROOT / "docs" / "rem_study.md"
PICTURE = ROOT / "docs" / "rem_study.svg"
SEEDS = (0, 1, 2)
N_EPISODES = 20
STEPS_BETWEEN = 1000
SETTINGS = {
    "learning_rate": 3e-4,
    "target_update_interval": 500,
    "encoder_factory": VectorEncoderFactory(hidden_units=(64, 64)),
}
ALGORITHMS: dict[str, Callable[..., Any]] = {
    "DQN": DQN,
    "QR-DQN": lambda **params: DQN(q_func_factory="qr", **params),
    "EnsembleDQN": EnsembleDQN,
    "REM": REM,
}
DATA = {"first 10 %": 15_000, "random 1 %": 15_000, "random 10 %": 15_000, "all": 30_000}
"""Which transitions, and the number of updates."""
Row = dict[str, Any]


def part_of_the_log(which: str, seed: int) -> MDPDataset:
    """The chosen transitions, each for itself; random ones differ between seeds."""
    log, _ = get_cartpole("replay")
    rows = [t for episode in log.episodes for t in episode.transitions]
    share = 1.0 if which == "all" else float(which.split()[1]) / 100
    n = round(share * len(rows))
    if which.startswith("first"):
        chosen = np.arange(n)
    else:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:n])
    picked = [rows[i] for i in chosen]
    ends = np.array([bool(t.terminal) for t in picked])
    return MDPDataset(
        np.stack([t.observation for t in picked]),
        np.array([int(t.action) for t in picked]),
        np.array([t.reward for t in picked], dtype=np.float32),
        ends,
        timeouts=~ends,
        next_observations=np.stack([t.next_observation for t in picked]),
    )


def mean_return(algo: Any, n_episodes: int = N_EPISODES) -> float:
    """Of episodes that start from fixed seeds and run side by side, so that one call chooses all actions."""
    envs = [gymnasium.make("CartPole-v1", max_episode_steps=200) for _ in range(n_episodes)]
    observations = np.stack([env.reset(seed=1000 + i)[0] for i, env in enumerate(envs)])
    running, total = np.ones(n_episodes, bool), 0.0
    while running.any():
        actions = algo.predict(observations)
        for i in np.flatnonzero(running):
            observations[i], reward, terminated, truncated, _ = envs[i].step(int(actions[i]))
            total += float(reward)
            running[i] = not (terminated or truncated)
    return total / n_episodes


def train(name: str, data: str, seed: int) -> Row:
    """The row of one run."""
    dataset, start = part_of_the_log(data, seed), time.process_time()
    algo = ALGORITHMS[name](random_state=seed, **SETTINGS)
    epochs = algo.fitter(
        dataset,
        n_steps=DATA[data],
        n_steps_per_epoch=STEPS_BETWEEN,
        save_metrics=False,
        verbose=False,
        show_progress=False,
    )
    scores = [[algo.grad_step_, mean_return(algo)] for _ in epochs]
    seconds = round(time.process_time() - start, 1)
    return {"algorithm": name, "data": data, "seed": seed, "n_steps": DATA[data], "scores": scores, "seconds": seconds}


def missing() -> Iterator[tuple[str, str, int]]:
    """Runs that are not in the file; everything once before any second seed."""
    done = {
        (row["algorithm"], row["data"], row["seed"])
        for row in runs.read(RESULTS)
        if row["n_steps"] == DATA.get(row["data"])
    }
    for seed in SEEDS:
        yield from ((name, data, seed) for data in DATA for name in ALGORITHMS if (name, data, seed) not in done)


def of(rows: list[Row], name: str, data: str) -> np.ndarray:
    """Scores ``(seeds, points)``."""
    return np.array([[s for _, s in r["scores"]] for r in rows if (r["algorithm"], r["data"]) == (name, data)])


def with_error(values: np.ndarray) -> str:
    """Mean and standard error over seeds."""
    return f"{values.mean():.0f} ± {values.std(ddof=1) / np.sqrt(len(values)):.0f}" if len(values) > 1 else "-"


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def tables(rows: list[Row]) -> str:
    """For each part of the log: the best evaluation, and the mean of the last five."""
    text = []
    for data in DATA:
        lines = []
        for name in ALGORITHMS:
            scores = of(rows, name, data)
            if len(scores) > 1:
                best, late = scores.max(axis=1), scores[:, -5:].mean(axis=1)
                peak, early = scores.mean(axis=0).argmax() + 1, scores[:, 4]
                worst = scores[:, -5:].min(axis=1)
                cells = [name, str(len(scores)), with_error(early), f"{peak * STEPS_BETWEEN:,}", with_error(best)]
                lines.append([*cells, with_error(late), with_error(worst)])
        head = ["", "seeds", "after 5,000", "peak of the mean at", "best", "mean of last 5", "worst of last 5"]
        text.append(f"**{data[0].upper()}{data[1:]}**, {DATA[data]:,} updates\n\n{table(head, lines)}")
    return "\n\n".join(text)


def draw(rows: list[Row]) -> None:
    """Score against gradient steps, one panel for each part of the log; bands are standard errors."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "rem", "svg.fonttype": "none"})  # the same file from the same rows
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(DATA), figsize=(13, 3), sharey=True, width_ratios=[1, 1, 1, 1.6])
    for axis, data in zip(axes, DATA, strict=True):
        for name in ALGORITHMS:
            scores = of(rows, name, data)
            if len(scores):
                steps = STEPS_BETWEEN * np.arange(1, scores.shape[1] + 1) / 1000
                mean = scores.mean(axis=0)
                error = scores.std(axis=0, ddof=min(1, len(scores) - 1)) / np.sqrt(len(scores))
                axis.plot(steps, mean, label=name, linewidth=1.2)
                axis.fill_between(steps, mean - error, mean + error, alpha=0.2, linewidth=0)
        axis.set_title(f"{data} of the log" if data != "all" else "the whole log", fontsize=10)
        axis.set_xlabel("gradient steps / 1000")
    axes[0].set_ylabel("return")
    axes[-1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def write_page() -> None:
    """Put tables between the marks of the page, and draw the picture."""
    rows = runs.read(RESULTS)
    marked = re.compile(r"(<!-- begin of the measured tables -->\n).*(<!-- end of the measured tables -->)", re.DOTALL)
    minutes = sum(row["seconds"] for row in rows) / 60
    text = f"\n{tables(rows)}\n\n{len(rows)} runs, {minutes:.0f} minutes of processor time.\n\n"
    PAGE.write_text(marked.sub(lambda m: m[1] + text + m[2], PAGE.read_text()))
    draw(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="no training, only the page")
    if not parser.parse_args().docs:
        torch.set_num_threads(1)
        for name, data, seed in missing():
            row = train(name, data, seed)
            runs.append(RESULTS, row)
            print(f"{data}, {name}, seed {seed}: last {row['scores'][-1][1]:.1f}, {row['seconds']} s", flush=True)
    write_page()


if __name__ == "__main__":
    main()

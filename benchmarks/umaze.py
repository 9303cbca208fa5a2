"""The U-maze of section 5.1 of the IQL paper (Kostrikov, Nair, Levine 2021): implicit Q-learning beside one step.

One trajectory of the optimal policy and 99 of a uniformly random one, in a maze where a random move replaces a quarter
of the moves. IQL with expectile 0.95 chains the good moves of the data; expectile 0.5 evaluates the policy of the data
and improves it once. Both are compared with exact value iteration, and their policies are evaluated exactly::

    python benchmarks/umaze.py          # table
    python benchmarks/umaze.py --docs   # table and picture of docs/umaze.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from d3rlpy.algos import DiscreteIQL
from d3rlpy.dataset import MDPDataset
from d3rlpy.models.encoders import VectorEncoderFactory

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURE = ROOT / "docs" / "umaze.md", ROOT / "docs" / "images" / "umaze.svg"
MAZE = ("S......", ".......", "#####..", ".......", "G......")
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right
GAMMA, NOISE = 0.9, 0.25
EPISODE_LENGTH = 100  # steps until a trajectory is cut
EXPECTILES = {"IQL, expectile 0.95": 0.95, "one step, expectile 0.5": 0.5}


class UMaze:
    """States are the free cells, row by row; entering the goal ends the episode with reward 1, the rest is 0."""

    def __init__(self) -> None:
        self.cells = [(r, c) for r, row in enumerate(MAZE) for c, mark in enumerate(row) if mark != "#"]
        index = {cell: i for i, cell in enumerate(self.cells)}
        self.n = len(self.cells)
        marks = [MAZE[r][c] for r, c in self.cells]
        self.start, self.goal = marks.index("S"), marks.index("G")
        self.next = np.array([[index.get((r + y, c + x), i) for y, x in MOVES] for i, (r, c) in enumerate(self.cells)])
        moved = np.eye(self.n)[self.next]  # (state, move, next state)
        self.transitions = (1 - NOISE) * moved + NOISE * moved.mean(axis=1, keepdims=True)
        self.transitions[self.goal] = 0.0
        self.rewards = self.transitions[:, :, self.goal]

    def action_values(self, v: np.ndarray) -> np.ndarray:
        """``r + gamma E[v(s')]``, ``(state, action)``; the value of the goal itself is 0."""
        return self.rewards + GAMMA * self.transitions @ np.where(np.arange(self.n) == self.goal, 0.0, v)

    def optimum(self) -> tuple[np.ndarray, np.ndarray]:
        """Value iteration: optimal values ``(state,)`` and actions ``(state,)``."""
        v = np.zeros(self.n)
        for _ in range(1000):
            v = self.action_values(v).max(axis=1)
        return v, self.action_values(v).argmax(axis=1)

    def values_of(self, actions: np.ndarray) -> np.ndarray:
        """Exact values of a deterministic policy, by iteration."""
        v = np.zeros(self.n)
        for _ in range(1000):
            v = self.action_values(v)[np.arange(self.n), actions]
        return v

    def success(self, actions: np.ndarray) -> float:
        """Exact probability that a deterministic policy reaches the goal from the start in an episode's length."""
        p = np.eye(self.n)[self.start]
        chain = self.transitions[np.arange(self.n), actions]
        reached = 0.0
        for _ in range(EPISODE_LENGTH):
            p = p @ chain
            reached += p[self.goal]
        return float(reached)

    def trajectory(self, policy: Callable[[int], int], rng: np.random.Generator) -> list[tuple[int, int, int]]:
        """Steps ``(state, action, next state)`` from the start to the goal or to an episode's length."""
        state, steps = self.start, []
        while state != self.goal and len(steps) < EPISODE_LENGTH:
            action = policy(state)
            following = rng.choice(self.n, p=self.transitions[state, action])
            steps.append((state, action, int(following)))
            state = int(following)
        return steps


def make_dataset(maze: UMaze, seed: int) -> MDPDataset:
    """One optimal and 99 random trajectories; states are one-hot vectors."""
    rng = np.random.default_rng(seed)
    best = maze.optimum()[1]
    trajectories = [maze.trajectory(lambda state: best[state], rng)]
    trajectories += [maze.trajectory(lambda _: rng.integers(len(MOVES)), rng) for _ in range(99)]
    state, action, following = np.array([step for steps in trajectories for step in steps]).T
    last = np.cumsum([len(steps) for steps in trajectories]) - 1
    done = following == maze.goal
    cut = np.isin(np.arange(len(state)), last) & ~done
    one_hot = np.eye(maze.n, dtype=np.float32)
    return MDPDataset(
        one_hot[state], action, done.astype(np.float32), done, timeouts=cut, next_observations=one_hot[following]
    )


def train(dataset: MDPDataset, expectile: float, n_steps: int, seed: int) -> DiscreteIQL:
    """The same settings for both methods."""
    encoder = VectorEncoderFactory(hidden_units=(64,))
    algo = DiscreteIQL(
        gamma=GAMMA, expectile=expectile, weight_temp=100.0, tau=0.02, batch_size=256, actor_learning_rate=3e-3,
        critic_learning_rate=3e-3, actor_encoder_factory=encoder, critic_encoder_factory=encoder,
        value_encoder_factory=encoder, random_state=seed,
    )  # fmt: skip
    return algo.fit(dataset, n_steps=n_steps, save_metrics=False, verbose=False, show_progress=False)


def judge(maze: UMaze, algo: DiscreteIQL) -> tuple[dict[str, float], np.ndarray]:
    """Figures of a trained algorithm, and its V of every state."""
    states = np.eye(maze.n, dtype=np.float32)
    with torch.no_grad():
        v = algo.impl.value_func(torch.from_numpy(states))[:, 0].numpy().astype(float)
    v[maze.goal] = 0.0
    optimal = maze.optimum()[0]
    actions = algo.predict(states)
    error = np.abs(v - optimal).sum() / optimal.sum()
    figures = {"error": error, "V(start)": v[maze.start], "value": maze.values_of(actions)[maze.start]}
    return {**figures, "success": maze.success(actions)}, v


def table(maze: UMaze, results: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard error over seeds, and the optimum."""
    optimal, best = maze.optimum()
    v = f"{optimal[maze.start]:.3f}"
    lines = [
        "| | error of V, % | V at the start | value of the policy | goal reached, % |",
        "| --- | --: | --: | --: | --: |",
    ]
    lines += [f"| optimum | 0 | {v} | {v} | {100 * maze.success(best):.1f} |"]
    for name, runs in results.items():
        row = [name]
        for key, scale, digits in (("error", 100, 1), ("V(start)", 1, 3), ("value", 1, 3), ("success", 100, 1)):
            values = scale * np.array([run[key] for run in runs])
            row.append(f"{values.mean():.{digits}f} ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def draw(maze: UMaze, values: dict[str, np.ndarray]) -> None:
    """The values of the cells side by side, on one scale."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "umaze", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(values), figsize=(3.4 * len(values), 2.9), layout="constrained")
    for axis, (name, v) in zip(axes, values.items(), strict=True):
        grid = np.full((len(MAZE), len(MAZE[0])), np.nan)
        for i, cell in enumerate(maze.cells):
            grid[cell] = v[i]
            label = "goal" if i == maze.goal else f"{v[i]:z.2f}"
            axis.text(
                cell[1],
                cell[0],
                label,
                ha="center",
                va="center",
                color="black" if v[i] > 0.45 or i == maze.goal else "white",
            )
        grid[maze.cells[maze.goal]] = 1.0
        axis.set_facecolor("0.6")
        axis.imshow(grid, vmin=0, vmax=1, cmap="viridis")
        axis.set(title=name, xticks=[], yticks=[])
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="also write the table and the picture of docs/umaze.md")
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    maze = UMaze()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in EXPECTILES}
    pictures = {"optimum": maze.optimum()[0]}
    for seed in range(args.seeds):
        dataset = make_dataset(maze, seed)
        for name, expectile in EXPECTILES.items():
            figures, v = judge(maze, train(dataset, expectile, args.updates, seed))
            results[name].append(figures)
            pictures.setdefault(name, v)
            print(seed, name, {key: round(value, 3) for key, value in figures.items()}, flush=True)
    print(table(maze, results))
    if args.docs:
        draw(maze, pictures)
        marks = "<!-- begin of the measured table -->\n\n{}\n\n<!-- end of the measured table -->"
        pattern = marks.format(".*").replace("\n\n", r"\s+")
        page = re.sub(pattern, lambda _: marks.format(table(maze, results)), PAGE.read_text(), flags=re.DOTALL)
        PAGE.write_text(page)


if __name__ == "__main__":
    main()

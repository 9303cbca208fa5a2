"""What the kernels must equal, written for the eye rather than for speed: row by row, from the raw arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Log:
    """Arrays as a user gives them; ``next_observations`` and ``discount`` may be None."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    next_observations: np.ndarray | None = None
    discount: np.ndarray | None = None

    def ends(self, row: int) -> bool:
        """The episode is over after this row."""
        return bool(self.terminals[row] or self.timeouts[row] or row == len(self.rewards) - 1)

    def is_transition(self, row: int) -> bool:
        """What comes after the row is known, or does not matter."""
        return bool(self.terminals[row]) or not self.ends(row) or self.next_observations is not None

    def successor(self, row: int) -> np.ndarray:
        """The observation after the row."""
        if self.next_observations is not None:
            return self.next_observations[row]
        if self.terminals[row]:
            return np.zeros_like(self.observations[row])
        return self.observations[row + 1]

    def linked(self, row: int) -> bool:
        """The row and the one after it are two transitions of the same segment."""
        if self.ends(row) or not self.is_transition(row + 1):
            return False
        return bool((self.successor(row) == self.observations[row + 1]).all())

    def transitions(self) -> list[int]:
        return [row for row in range(len(self.rewards)) if self.is_transition(row)]

    def visited(self, row: int, n_steps: int) -> list[int]:
        """The rows of an n-step sum."""
        rows = [row]
        while len(rows) < n_steps and self.linked(rows[-1]):
            rows.append(rows[-1] + 1)
        return rows

    def n_step(self, row: int, n_steps: int, gamma: float) -> tuple[float, float, float, int]:
        """Discounted sum of rewards, terminal flag, discount of the value after it, number of rewards."""
        total, product, rows = 0.0, 1.0, self.visited(row, n_steps)
        for visited in rows:
            total += product * float(self.rewards[visited])
            product *= gamma if self.discount is None else float(self.discount[visited])
        terminal = float(self.terminals[rows[-1]])
        return total, terminal, product * (1.0 - terminal), len(rows)

    def goes_on(self, row: int) -> bool:
        """The next row holds the state after this one."""
        if self.ends(row) or row + 1 == len(self.rewards):
            return False
        return bool((self.successor(row) == self.observations[row + 1]).all())

    def return_to_go(self, row: int, gamma: float) -> float:
        """All rewards to the terminal; where none comes, the worst reward of all for ever, if that is negative."""
        total, product = 0.0, 1.0
        while True:
            total += product * float(self.rewards[row])
            product *= gamma if self.discount is None else float(self.discount[row])
            if self.terminals[row]:
                return total
            if not self.goes_on(row):
                break
            row += 1
        worst, largest = float(self.rewards.min()), gamma if self.discount is None else float(self.discount.max())
        if worst >= 0 or product == 0:
            return total
        return total + product * worst / (1 - largest) if largest < 1 else -np.inf

    def history(self, row: int) -> list[int]:
        """The row and the ones before it in its segment, oldest first."""
        rows = [row]
        while rows[0] > 0 and self.is_transition(rows[0] - 1) and self.linked(rows[0] - 1):
            rows.insert(0, rows[0] - 1)
        return rows

    def stack(self, row: int, n_frames: int, following: bool = False) -> np.ndarray:
        """The last frames up to the row, or to its successor; the first frame fills the front."""
        frames = [self.observations[r] for r in self.history(row)]
        if following:
            frames.append(self.successor(row))
        while len(frames) < n_frames:
            frames.insert(0, frames[0])
        return np.concatenate(frames[-n_frames:]) if frames[0].ndim == 3 else frames[-1]

    def batch(self, rows: list[int], n_frames: int, n_steps: int, gamma: float) -> dict[str, np.ndarray]:
        """A mini-batch of the transitions that start in ``rows``."""
        last = [self.visited(row, n_steps)[-1] for row in rows]
        sums = np.array([self.n_step(row, n_steps, gamma) for row in rows])
        return {
            "observations": np.stack([self.stack(row, n_frames) for row in rows]),
            "next_observations": np.stack([self.stack(row, n_frames, following=True) for row in last]),
            "actions": self.actions[rows],
            "rewards": sums[:, 0:1],
            "terminals": sums[:, 1:2],
            "discounts": sums[:, 2:3],
            "n_steps": sums[:, 3:4],
        }

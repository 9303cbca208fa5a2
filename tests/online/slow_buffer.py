"""What a replay buffer must equal: a list of steps, all of them kept, of which the last ``maxlen`` count."""

from __future__ import annotations

import numpy as np

from ..dataset.reference import Log


class SlowBuffer(Log):
    """The logs' slow twin, with a successor known for some rows and an episode that may be open."""

    def __init__(self, maxlen):
        self.maxlen, self.steps, self.discount = maxlen, [], None

    def append(self, observation, action, reward, terminal, timeout=False, next_observation=None):
        self.steps.append(
            {
                "observation": observation,
                "action": action,
                "reward": reward,
                "terminal": terminal,
                "ends": terminal or timeout,
                "known": next_observation,
            }
        )
        del self.steps[: -self.maxlen]
        for name in ("observation", "action", "reward", "terminal"):
            setattr(self, f"{name}s", np.array([step[name] for step in self.steps]))

    def clip_episode(self):
        if self.steps:
            self.steps[-1]["ends"] = True

    @property
    def is_open(self):
        return bool(self.steps) and not self.steps[-1]["ends"]

    def ends(self, row):
        return self.steps[row]["ends"]

    def is_transition(self, row):
        step = self.steps[row]
        if step["terminal"] or step["known"] is not None:
            return True
        return not step["ends"] and row + 1 < len(self.steps)

    def successor(self, row):
        step = self.steps[row]
        if step["known"] is not None:
            return step["known"]
        return np.zeros_like(step["observation"]) if step["terminal"] else self.steps[row + 1]["observation"]

    def linked(self, row):
        if row + 1 == len(self.steps) or self.ends(row) or not self.is_transition(row + 1):
            return False
        return bool((self.successor(row) == self.steps[row + 1]["observation"]).all())

    def transitions(self):
        return [row for row in range(len(self.steps)) if self.is_transition(row)]

    def segment(self, row):
        """The row and all that are linked behind it."""
        rows = [row]
        while self.linked(rows[-1]):
            rows.append(rows[-1] + 1)
        return rows

"""Mini-batches from two sources: a share of each comes from offline data, the rest from a buffer."""

from __future__ import annotations

from typing import Any

import numpy as np

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminals", "n_steps", "discounts")


def offline_share(batch_size: int, ratio: float) -> int:
    """How many of ``batch_size`` transitions are offline ones: ``ratio``, rounded half up."""
    return int(batch_size * ratio + 0.5)


class MixedBatch:
    """The rows of two mini-batches, spread evenly, so that any run of rows holds about the same shares.

    Attributes
    ----------
    parts : ``(mini-batch, positions)`` of each source.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminals: np.ndarray
    n_steps: np.ndarray
    discounts: np.ndarray

    def __init__(self, offline: Any, online: Any):
        size = len(offline) + len(online)
        self.parts = [(offline, spread(len(offline), size))]
        self.parts.append((online, np.setdiff1d(np.arange(size), self.parts[0][1])))
        for name in COLUMNS:
            column = getattr(online, name)
            setattr(self, name, np.empty((size, *column.shape[1:]), column.dtype))

    def __len__(self) -> int:
        return len(self.rewards)

    def fill(self) -> MixedBatch:
        """Copy what the two mini-batches hold now."""
        for name in COLUMNS:
            column = getattr(self, name)
            for part, positions in self.parts:
                column[positions] = getattr(part, name)
        return self

    def returns_to_go(self) -> np.ndarray:
        """Those of the two mini-batches, ``(batch, 1)``."""
        returns = np.empty_like(self.rewards)
        for part, positions in self.parts:
            returns[positions] = part.returns_to_go()
        return returns


def spread(n: int, size: int) -> np.ndarray:
    """``n`` of the positions ``0 ... size - 1``, as evenly as they go: every other one for a half."""
    return np.arange(n) * size // max(n, 1)


class MixedSampler:
    """Draws from both and mixes.

    Parameters
    ----------
    offline, online : samplers of as many transitions as each contributes.
    """

    def __init__(self, offline: Any, online: Any):
        self.offline, self.online = offline, online
        self.batch: MixedBatch | None = None

    def sample(self) -> MixedBatch:
        """The next batch. Its arrays are the same objects every time, valid until the next call."""
        offline, online = self.offline.sample(), self.online.sample()
        if self.batch is None or self.batch.parts[0][0] is not offline or self.batch.parts[1][0] is not online:
            self.batch = MixedBatch(offline, online)
        return self.batch.fill()

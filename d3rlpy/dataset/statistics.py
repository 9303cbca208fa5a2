"""Mean, standard deviation, minimum and maximum of columns, without a float64 copy of the whole column."""

from __future__ import annotations

from typing import Any

import numpy as np

from .rows import Rows
from .validation import row_chunks


def describe(array: np.ndarray) -> dict[str, Any]:
    """Statistics over the rows: floats for ``(N,)``, otherwise arrays of a row's shape; float64 sums."""
    mean = sum(array[part].sum(axis=0, dtype=np.float64) for part in row_chunks(array)) / len(array)
    squares = sum(((array[part] - mean) ** 2).sum(axis=0) for part in row_chunks(array))
    stats = {
        "mean": mean,
        "std": np.sqrt(squares / len(array)),
        "min": array.min(axis=0),
        "max": array.max(axis=0),
    }
    return {name: float(value) if np.ndim(value) == 0 else np.asarray(value) for name, value in stats.items()}


def compute_stats(rows: Rows) -> dict[str, Any]:
    """``return``, ``reward``, ``observation``, ``action``: see ``MDPDataset.compute_stats``."""
    starts = rows.bounds()[:, 0]
    returns = np.add.reduceat(rows.rewards, starts, dtype=np.float64)
    stats = {
        "return": describe(returns),
        "reward": describe(rows.rewards),
        "observation": describe(rows.observations),
    }
    if rows.discrete_action:
        stats["action"] = {"frequencies": np.bincount(rows.actions, minlength=rows.action_size)}
    else:
        stats["action"] = describe(rows.actions)
    return stats

"""Statistics of some rows of a column, in chunks: no copy of the column, float64 sums."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..dataset import Rows

CHUNK_SIZE = 1 << 19  # numbers


def chunks(column: np.ndarray, indices: np.ndarray) -> Iterator[np.ndarray]:
    """Copies of the rows ``indices`` of ``column``, at most about ``CHUNK_SIZE`` numbers at a time."""
    step = max(1, CHUNK_SIZE // max(1, int(np.prod(column.shape[1:]))))
    for start in range(0, len(indices), step):
        yield column[indices[start : start + step]]


def minimum_maximum(column: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value at each entry, float64."""
    extremes = [(chunk.min(axis=0), chunk.max(axis=0)) for chunk in chunks(column, indices)]
    minima, maxima = zip(*extremes, strict=True)
    return np.min(minima, axis=0).astype(np.float64), np.max(maxima, axis=0).astype(np.float64)


def mean_std(column: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation at each entry, float64; chunks joined as by Chan et al. 1979."""
    n, mean, squares = 0, np.zeros(column.shape[1:]), np.zeros(column.shape[1:])
    for chunk in chunks(column, indices):
        k, part = len(chunk), chunk.astype(np.float64)
        part_mean = part.mean(axis=0)
        part -= part_mean
        shift = part_mean - mean
        squares += np.square(part, out=part).sum(axis=0) + shift**2 * (n * k / (n + k))
        mean += shift * (k / (n + k))
        n += k
    return mean, np.sqrt(squares / n)


def episode_returns(rows: Rows, indices: np.ndarray) -> np.ndarray:
    """Undiscounted returns of the whole episodes to which the rows ``indices`` belong."""
    starts = rows.bounds()[:, 0]
    returns = np.add.reduceat(rows.rewards, starts, dtype=np.float64)
    return returns[np.unique(np.searchsorted(starts, indices, side="right") - 1)]

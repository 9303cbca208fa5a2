"""Means of metrics over an epoch, summed on the device; the only place that reads a device scalar."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Meter:
    """Sums of named 0-d tensors and floats, read once per epoch."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add the metrics of one update; nothing waits for the device."""
        for name, value in metrics.items():
            if name in self._sums:
                self._sums[name] += value
                self._counts[name] += 1
            else:
                self._sums[name] = value.clone()
                self._counts[name] = 1

    def add_sums(self, sums: dict[str, Tensor], counts: dict[str, int]) -> None:
        """Add the sums of the metrics of several updates, and of how many each is one."""
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + counts[name]

    def add_time(self, name: str, seconds: float) -> None:
        """Add a duration."""
        self._sums[name] = self._sums.get(name, 0.0) + seconds
        self._counts[name] = self._counts.get(name, 0) + 1

    def split(self, n: int) -> list[Meter]:
        """One meter of each of n runs, whose metrics were added as tensors ``(n,)``; durations are divided."""
        meters = [Meter() for _ in range(n)]
        for name, total in self._sums.items():
            shares: Sequence[Tensor | float] = [total / n] * n if isinstance(total, float) else total.unbind()
            for meter, share in zip(meters, shares, strict=True):
                meter._sums[name], meter._counts[name] = share, self._counts[name]
        return meters

    def means(self) -> dict[str, float]:
        """Mean of each metric over the calls that had it."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}

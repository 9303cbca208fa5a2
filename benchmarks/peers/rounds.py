"""Interleaved rounds: in each, every (case, library) runs one window, and only one worker is active at a time."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from .cases import Case
from .process import WorkerProcess

CALIBRATION_SECONDS = 0.3


@dataclass
class Windows:
    """What was measured, in the order of the rounds.

    Attributes
    ----------
    updates : updates/s of each window by case and library.
    matmul : GFLOP/s by kernel.
    had_core : processor time over wall-clock time of each window; below 1 other processes took the core.
    """

    updates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    matmul: dict[str, list[float]] = field(default_factory=dict)
    had_core: list[float] = field(default_factory=list)

    def rates(self, case: str, best: bool = False) -> dict[str, float]:
        """Median window of each library, or the best."""
        choose = max if best else statistics.median
        return {library: choose(windows) for library, windows in self.updates[case].items()}

    def gflops(self) -> float:
        """Median rate of the best kernel."""
        return max(statistics.median(rates) for rates in self.matmul.values())

    def spread(self) -> float:
        """Typical (highest - lowest) / median of the windows of one case and library."""
        runs = [windows for libraries in self.updates.values() for windows in libraries.values()]
        return statistics.median((max(run) - min(run)) / statistics.median(run) for run in runs)


def calibrate(worker: WorkerProcess, case: Case, seconds: float) -> int:
    """Updates that fill a window of about ``seconds``, a multiple of ``case.multiple``; also the warm-up."""
    n_updates = 4
    while True:
        passed = worker.ask("run", case=case.name, n_updates=n_updates)["wall"]
        if passed >= CALIBRATION_SECONDS:
            return max(1, round(n_updates / passed * seconds / case.multiple)) * case.multiple
        n_updates = 2 * max(n_updates, min(8 * n_updates, round(n_updates / passed * CALIBRATION_SECONDS * 0.6)))


def prepare(workers: list[WorkerProcess], cases: Iterable[Case], seconds: float) -> dict[tuple[str, str], int]:
    """Updates of a window by ``(case, library)``; what a library lacks is said and left out."""
    lengths: dict[tuple[str, str], int] = {}
    for case in cases:
        for worker in workers:
            library = worker.library.name
            if not worker.ask("prepare", case=case.name)["available"]:
                print(f"skipped: {library} has no {case.algorithm}", flush=True)
                continue
            lengths[case.name, library] = calibrate(worker, case, seconds)
    return lengths


def run_rounds(
    workers: list[WorkerProcess], lengths: dict[tuple[str, str], int], rounds: int, clock: str = "wall"
) -> Windows:
    """Run all windows; the first library of a round is another in each.

    ``clock`` is "wall", or "cpu" for processor time, which tells more where other work takes the core.
    """
    windows = Windows()
    by_name = {worker.library.name: worker for worker in workers}
    names = list(by_name)
    cases = list(dict.fromkeys(case for case, _ in lengths))
    for turn in range(rounds):
        for kernel, rate in workers[0].ask("matmul", clock=clock).items():
            windows.matmul.setdefault(kernel, []).append(rate)
        first = turn % len(names)
        for case in cases:
            for library in names[first:] + names[:first]:
                if (case, library) not in lengths:
                    continue
                n_updates = lengths[case, library]
                passed = by_name[library].ask("run", case=case, n_updates=n_updates)
                windows.had_core.append(passed["cpu"] / passed["wall"])
                libraries = windows.updates.setdefault(case, {name: [] for name in names if (case, name) in lengths})
                libraries[library].append(n_updates / passed[clock])
        print(f"round {turn + 1} of {rounds}", flush=True)
    return windows

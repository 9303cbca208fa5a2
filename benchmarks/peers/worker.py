"""One library in a process of its own: reads commands as JSON lines, answers each with one line.

Every window is one call of the library's public ``fit`` with metrics saved to a temporary folder and no progress
bar. The clock runs inside its ``callback``, which all libraries call after each update: it starts after the first
``LEAD_IN`` updates and stops after ``n_updates`` more. So building networks, collecting transitions, the log folder
and the checkpoint at the end count for no library; sampling, updates, the loop and per-update logging count for all.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

from .cases import Case, Kind, case_of, make_arrays
from .matmul import matmul_rates

LEAD_IN = 4  # updates before the clock starts; even, because some algorithms update the actor every second time


@dataclass
class Clock:
    """A callback that notes when the window begins and ends."""

    n_updates: int
    calls: int = 0
    begin: tuple[float, float] = (0.0, 0.0)
    end: tuple[float, float] = (0.0, 0.0)

    def __call__(self, algo: Any, epoch: int, total_step: int) -> None:
        self.calls += 1
        if self.calls == LEAD_IN:
            self.begin = perf_counter(), process_time()
        elif self.calls == LEAD_IN + self.n_updates:
            self.end = perf_counter(), process_time()


class Worker:
    """The cases prepared so far; data sets of one kind are shared by their cases."""

    def __init__(self, adapter: Any):
        self.adapter = adapter
        self.datasets: dict[Kind, Any] = {}
        self.algorithms: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Versions, and where the library was imported from."""
        import d3rlpy

        return {
            "version": d3rlpy.__version__,
            "folder": str(Path(d3rlpy.__file__).resolve().parent),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        }

    def prepare(self, case: str) -> dict[str, Any]:
        """Make data and algorithm; ``available`` is False if the library has no such algorithm."""
        wanted = case_of(case)
        if not self.adapter.has(wanted):
            return {"available": False}
        if wanted.kind not in self.datasets:
            self.datasets[wanted.kind] = self.adapter.make_dataset(make_arrays(wanted.kind), wanted)
        self.algorithms[case] = self._algorithm(wanted)
        return {"available": True}

    def _algorithm(self, case: Case) -> Any:
        torch.manual_seed(0)
        return self.adapter.make_algorithm(case)

    def run(self, case: str, n_updates: int) -> dict[str, Any]:
        """Seconds of ``n_updates`` updates of ``fit``, and the processor time among them."""
        clock = Clock(n_updates)
        gc.collect()
        gc.freeze()  # what the other cases of this process keep alive is no work for the collector
        with tempfile.TemporaryDirectory() as folder:
            dataset = self.datasets[case_of(case).kind]
            self.adapter.fit(self.algorithms[case], dataset, LEAD_IN + n_updates, clock, folder)
            written = sum(1 for _ in Path(folder).rglob("*.csv"))
        if clock.calls != LEAD_IN + n_updates or not written:
            raise RuntimeError(
                f"{case}: fit made {clock.calls} of {LEAD_IN + n_updates} updates, {written} metric files"
            )
        wall, cpu = (end - begin for begin, end in zip(clock.begin, clock.end, strict=True))
        return {"wall": wall, "cpu": cpu}

    def matmul(self, clock: str) -> dict[str, Any]:
        """GFLOP/s by kernel."""
        return matmul_rates({"wall": perf_counter, "cpu": process_time}[clock])


def serve(new_worker: Callable[[Any], Any], adapters: Sequence[str]) -> None:
    """Answer commands until the input ends; ``new_worker`` is given the adapter's module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", choices=adapters)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--core", type=int, help="pin this process to one core, where the system can")
    args = parser.parse_args()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is kept out of the answers
    if args.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})
    torch.set_num_threads(args.threads)
    worker = new_worker(importlib.import_module(f"{__package__}.{args.adapter}"))
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(worker, command.pop("do"))(**command)
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    serve(Worker, ("version_1", "version_2"))

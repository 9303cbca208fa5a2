"""One side of ``benchmarks/online_speed.py`` in a process of its own; the protocol is that of ``peers.worker``.

The clock runs inside the environment: it starts when step ``LEAD_IN`` is asked for and stops when the step that is
``n_updates`` later is, so exactly ``n_updates`` rounds of step, row, sample, update and action lie between. No library
is given a callback. Where there is no environment, each update ticks.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Any, Protocol

import gymnasium
import torch

from .matmul import matmul_rates
from .speed_cases import OnlineCase, case_of
from .worker import serve

LEAD_IN = 4  # ticks before the clock starts


class Clock:
    """Counts ticks and notes when a window begins and ends; one that isn't set only counts."""

    def __init__(self, n_updates: int = 0):
        self.n_updates, self.ticks = n_updates, 0
        self.begin = self.end = (0.0, 0.0)

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == LEAD_IN:
            self.begin = perf_counter(), process_time()
        elif self.ticks == LEAD_IN + self.n_updates:
            self.end = perf_counter(), process_time()


class ClockedEnv(gymnasium.Wrapper):
    """Tells a clock when a step is asked for."""

    clock = Clock()

    def step(self, action: Any) -> Any:
        self.clock.tick()
        return self.env.step(action)


class Learner(Protocol):
    """What an adapter makes of a case: it goes on where the last call ended."""

    n_updates: int
    """Updates made so far."""

    def run(self, n_steps: int) -> None:
        """Make so many steps, each with an update."""


class OnlineWorker:
    """The cases prepared so far."""

    def __init__(self, adapter: Any):
        self.adapter = adapter
        self.learners: dict[str, tuple[Learner, Callable[[Clock], None]]] = {}

    def hello(self) -> dict[str, Any]:
        """Versions, and where the library was imported from."""
        return self.adapter.about() | {
            "torch": torch.__version__,
            "gymnasium": gymnasium.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        }

    def prepare(self, case: str) -> dict[str, Any]:
        """Make the algorithm and what it learns from; ``available`` is False if the adapter has no such case."""
        if case not in self.adapter.LEARNERS:
            return {"available": False}
        self.learners[case] = new_learner(self.adapter.LEARNERS[case], case_of(case))
        return {"available": True}

    def run(self, case: str, n_updates: int) -> dict[str, Any]:
        """Seconds of ``n_updates`` steps with an update each, and the processor time among them."""
        learner, set_clock = self.learners[case]
        clock, before = Clock(n_updates), learner.n_updates
        set_clock(clock)
        gc.collect()
        gc.freeze()  # what the other cases of this process keep alive is no work for the collector
        learner.run(LEAD_IN + n_updates)
        made = learner.n_updates - before
        if clock.ticks != LEAD_IN + n_updates or made != clock.ticks:
            raise RuntimeError(f"{case}: {clock.ticks} steps and {made} updates instead of {LEAD_IN + n_updates}")
        wall, cpu = (end - begin for begin, end in zip(clock.begin, clock.end, strict=True))
        return {"wall": wall, "cpu": cpu}

    def matmul(self, clock: str) -> dict[str, Any]:
        """GFLOP/s by kernel."""
        return matmul_rates({"wall": perf_counter, "cpu": process_time}[clock])


def new_learner(make: Callable[..., Learner], case: OnlineCase) -> tuple[Learner, Callable[[Clock], None]]:
    """A learner, and what gives it its clock: its environment, or itself."""
    if case.env is None:
        learner = make(case)
        return learner, lambda clock: setattr(learner, "clock", clock)
    env = ClockedEnv(gymnasium.make(case.env))
    return make(case, env), lambda clock: setattr(env, "clock", clock)


ADAPTERS: Sequence[str] = ("online_ours", "online_sb3", "online_loop")

if __name__ == "__main__":
    serve(OnlineWorker, ADAPTERS)

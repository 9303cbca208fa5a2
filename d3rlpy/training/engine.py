"""How updates are launched on a GPU: captured once, with their sampling, and replayed as a graph of kernels.

What makes small networks slow there is not arithmetic but the calls that start it. So the work of an update, and of
``FUSED`` updates in a row, is recorded the third time that it comes up, and replayed from then on. What an update does
can depend on its number (``is_due``, ``is_past``): each pattern of answers has a graph of its own. Learning rates and
their schedules are computed on the device; a change of a hyper-parameter drops all graphs. Numbers that the host keeps,
such as ``grad_step``, are put forward by what the recorded updates did to them.

A recorder decides what recording means: ``CudaRecorder`` makes a CUDA graph; ``PlainRecorder`` calls the same Python
code again with the host's numbers as they were, which is what a replay amounts to, and shows on a CPU whether anything
in an update depends on more than the engine knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..dataset.validation import warn_caller
from ..hyperparameters import fields_of
from ..impl import AlgorithmImpl, Batch, answer
from ..logger import Meter

if TYPE_CHECKING:
    from .feeds import Feed

FUSED = 8
"""Updates in one launch, where nobody wants to be called between them."""

WARM_UPS = 2
"""How often work is done as it is before it is recorded, so that whatever is made at first use is there."""

Work = Callable[[], None]
Numbers = tuple[int, tuple[int, ...]]


class Recorder(Protocol):
    """Makes work repeatable."""

    def warm_up(self, work: Work) -> None:
        """Do the work as it is."""

    def record(self, work: Work) -> Work:
        """What does the work again when it is called; it may have run the Python code of it, but did not do it."""


class PlainRecorder:
    """Repeats work by calling it."""

    def warm_up(self, work: Work) -> None:
        work()

    def record(self, work: Work) -> Work:
        return work


class CudaRecorder:
    """Repeats work as a CUDA graph; all graphs share one pool of memory."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool: Any = None

    def warm_up(self, work: Work) -> None:
        """On the stream that records, so that autograd and libraries meet it before."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            work()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            work()
        self.pool = graph.pool()
        replay: Work = graph.replay
        return replay


def recorder_for(device: torch.device) -> Recorder | None:
    """What records on this device; None where updates are launched one by one."""
    return CudaRecorder(device) if device.type == "cuda" else None


def reason_uncaptured(impl: AlgorithmImpl) -> str | None:
    """Why the updates of an impl are launched one by one; None if they can be captured."""
    if impl.alone:
        return impl.alone
    if impl.batch_type is not Batch:
        return "its mini-batches hold sums that the host computes"
    return next((reason for optim in impl.optimizers().values() if (reason := optim.uncaptured)), None)


@dataclass
class Recording:
    """Work that can be repeated."""

    replay: Work
    start: Numbers  # of the host, when it was recorded
    states: Sequence[object]  # of the optimizers
    change: Numbers | None = None  # what it does to the host's numbers
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class Engine:
    """Launches the updates of one impl.

    Parameters
    ----------
    impl : built, with its optimizers.
    feed : where mini-batches come from.
    recorder : what records; None launches update by update.
    """

    def __init__(self, impl: AlgorithmImpl, feed: Feed, recorder: Recorder | None):
        self.impl, self.feed, self.recorder = impl, feed, recorder
        self.optims = list(impl.optimizers().values())
        self.names = list(fields_of(type(impl.hp)))
        if recorder is not None:
            for optim in self.optims:
                optim.keep_rate_on_device()
        self.questions: set[tuple[str, int]] = set()
        self.forget()

    def forget(self) -> None:
        """Drop all recordings."""
        self.recordings: dict[Any, Recording] = {}
        self.seen: Counter[Any] = Counter()
        self.settings = self.current_settings()

    def current_settings(self) -> list[Any]:
        return [getattr(self.impl.hp, name) for name in self.names]

    def run(self, n_updates: int, meter: Meter, fused: int = FUSED) -> None:
        """Make updates, as many as possible in launches of ``fused``; their metrics go to ``meter``."""
        while n_updates > 0:
            k = fused if n_updates >= fused else 1
            meter.add_sums(*self.launch(k))
            n_updates -= k

    def launch(self, k: int) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``k`` updates; the sums of their metrics, and how many updates had each."""
        self.feed.stage(k)
        if self.recorder is None:
            result = self.work(k)
        else:
            result = self.repeated(k, self.recorder)
        self.feed.done(k)
        return result

    def work(self, k: int) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``k`` updates with the batches that are staged."""
        sums: dict[str, Tensor] = {}
        counts: Counter[str] = Counter()
        for i in range(k):
            for name, value in self.impl.step(self.feed.batch(i)).items():
                sums[name] = sums[name] + value if name in sums else value.clone()
                counts[name] += 1
        return sums, dict(counts)

    def repeated(self, k: int, recorder: Recorder) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``work(k)``, recorded where it has come up before."""
        if self.current_settings() != self.settings:
            self.questions.clear()
            self.forget()
        key = self.key(k)
        if self.seen[key] < WARM_UPS:
            self.seen[key] += 1
            return self.warmed_up(k, recorder)
        recording = self.recordings.get(key)
        if recording is None or any(
            state is not optim.captured_state for state, optim in zip(recording.states, self.optims, strict=True)
        ):
            found = self.recorded(k, recorder)
            if found is None:
                return self.work(k)
            recording = self.recordings[key] = found
        return self.replayed(recording)

    def key(self, k: int) -> Any:
        """What the next ``k`` updates will be told when they ask about their number."""
        first = self.impl.grad_step + 1
        return tuple(tuple(answer(q, n) for q in sorted(self.questions)) for n in range(first, first + k))

    def warmed_up(self, k: int, recorder: Recorder) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``work(k)`` as it is, noting what it asks."""
        results: list[Any] = []
        asked: set[tuple[str, int]] = set()
        self.impl.questions = asked
        try:
            recorder.warm_up(lambda: results.append(self.work(k)))
        finally:
            self.impl.questions = None
        if not asked <= self.questions:
            self.questions |= asked
            self.forget()
        result: tuple[dict[str, Tensor], dict[str, int]] = results[0]
        return result

    def recorded(self, k: int, recorder: Recorder) -> Recording | None:
        """A recording of ``work(k)``; None, after a warning, if this can't be recorded."""
        start = self.numbers()
        recording = Recording(lambda: None, start, [optim.captured_state for optim in self.optims])

        def work() -> None:
            recording.sums, recording.counts = self.work(k)

        try:
            recording.replay = recorder.record(work)
        except RuntimeError as error:
            self.set_numbers(start)
            self.recorder = None
            name = type(self.impl.hp).__name__
            warn_caller(f"the updates of {name} can't be captured and are launched one by one: {error}")
            return None
        if self.numbers() != start:
            recording.change = difference(self.numbers(), start)
            self.set_numbers(start)
        return recording

    def replayed(self, recording: Recording) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Do recorded work."""
        now = self.numbers()
        self.set_numbers(recording.start)
        recording.replay()
        if recording.change is None:
            recording.change = difference(self.numbers(), recording.start)
        steps, each = recording.change
        self.set_numbers((now[0] + steps, tuple(n + m for n, m in zip(now[1], each, strict=True))))
        return recording.sums, recording.counts

    def numbers(self) -> Numbers:
        """What the host counts."""
        return self.impl.grad_step, tuple(optim.n_steps for optim in self.optims)

    def set_numbers(self, numbers: Numbers) -> None:
        self.impl.grad_step = numbers[0]
        for optim, n in zip(self.optims, numbers[1], strict=True):
            optim.n_steps = n


def difference(a: Numbers, b: Numbers) -> Numbers:
    return a[0] - b[0], tuple(m - n for m, n in zip(a[1], b[1], strict=True))

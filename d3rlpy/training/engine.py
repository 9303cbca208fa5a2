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
from ..impl import AlgorithmImpl, Batch, Metrics, answer
from ..joint import Joint, plain_attributes
from ..logger import Meter

if TYPE_CHECKING:
    from ..base import Algo
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

    def register(self, generators: Sequence[torch.Generator]) -> None:
        """Generators besides the default one that the work draws from."""

    def forget(self) -> None:
        """What was recorded is not used any more."""


class PlainRecorder:
    """Repeats work by calling it."""

    def warm_up(self, work: Work) -> None:
        work()

    def record(self, work: Work) -> Work:
        return work

    def register(self, generators: Sequence[torch.Generator]) -> None:
        pass

    def forget(self) -> None:
        pass


class CudaRecorder:
    """Repeats work as a CUDA graph; all graphs share one pool of memory."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool: Any = None
        self.generators: Sequence[torch.Generator] = ()

    def register(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def forget(self) -> None:
        self.pool = None  # tensors of old graphs may still be held, which a new capture in their pool does not bear

    def warm_up(self, work: Work) -> None:
        """On the stream that records, so that autograd and libraries meet it before."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            work()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        before = torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(before)  # a capture that fails leaves its own
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


def recorder_of(algo: Algo) -> Recorder | None:
    """What captures the updates of a built estimator; None, perhaps after a warning, where they go one by one."""
    recorder = recorder_for(algo.impl.device) if algo.cuda_graph else None
    if recorder is not None and (reason := reason_uncaptured(algo.impl)):
        warn_caller(f"the updates of {type(algo).__name__} are launched one by one: {reason}")
        return None
    return recorder


@dataclass
class Recording:
    """Work that can be repeated."""

    replay: Work
    start: Numbers  # of the host, when it was recorded
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
    joint : of the members that ``impl`` stands for, where it stands for several.
    """

    def __init__(self, impl: AlgorithmImpl, feed: Feed, recorder: Recorder | None, joint: Joint | None = None):
        self.impl, self.feed, self.recorder, self.joint = impl, feed, recorder, joint
        self.optims = list(impl.optimizers().values())
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
        self.known = self.states()  # after load_model they are others, and what is made at first use is to be made
        if self.recorder is not None:
            self.recorder.forget()

    def current_settings(self) -> list[Any]:
        if self.joint is not None:
            return self.joint.settings()
        return [getattr(self.impl.hp, name) for name in fields_of(type(self.impl.hp))]

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
            for name, value in self.step(i).items():
                sums[name] = sums[name] + value if name in sums else value.clone()
                counts[name] += 1
        return sums, dict(counts)

    def step(self, i: int) -> Metrics:
        """The update with the ``i``-th batch that is staged."""
        batch = self.feed.batch(i)
        return self.impl.step(batch) if self.joint is None else self.joint.step_joined(self.impl, batch)

    def repeated(self, k: int, recorder: Recorder) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``work(k)``, recorded where it has come up before."""
        if self.current_settings() != self.settings or replaced(self.known, self.states()):
            self.questions.clear()
            self.forget()
        key = self.key(k)
        if self.seen[key] < WARM_UPS:
            self.seen[key] += 1
            return self.warmed_up(k, recorder)
        recording = self.recordings.get(key)
        if recording is None:
            found = self.recorded(k, recorder)
            if found is None:
                return self.work(k)
            recording = self.recordings[key] = found
        return self.replayed(recording)

    def states(self) -> list[object]:
        """What the optimizers work on."""
        return [optim.captured_state for optim in self.optims]

    def key(self, k: int) -> Any:
        """What the next ``k`` updates will be told when they ask about their number."""
        first = self.impl.grad_step + 1
        return tuple(tuple(answer(q, n) for q in sorted(self.questions)) for n in range(first, first + k))

    def warmed_up(self, k: int, recorder: Recorder) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``work(k)`` as it is, noting what it asks."""
        results: list[Any] = []
        asked: set[tuple[str, int]] = set()
        self.impl.questions = asked
        before = plain_attributes(self.impl)
        try:
            recorder.warm_up(lambda: results.append(self.work(k)))
        finally:
            self.impl.questions = None
        after = plain_attributes(self.impl)
        if after != before:
            changed = [name for name in after if after[name] != before.get(name)]
            self.give_up(f"an update changes {changed}, which the device does not know")
        if not asked <= self.questions:
            self.questions |= asked
            self.forget()
        self.known = self.states()
        result: tuple[dict[str, Tensor], dict[str, int]] = results[0]
        return result

    def recorded(self, k: int, recorder: Recorder) -> Recording | None:
        """A recording of ``work(k)``; None, after a warning, if this can't be recorded."""
        start = self.numbers()
        recording = Recording(lambda: None, start)

        def work() -> None:
            recording.sums, recording.counts = self.work(k)

        try:
            recording.replay = recorder.record(work)
        except RuntimeError as error:
            self.set_numbers(start)
            self.give_up(str(error))
            return None
        if self.numbers() != start:
            recording.change = difference(self.numbers(), start)
            self.set_numbers(start)
        return recording

    def give_up(self, reason: str) -> None:
        """Launch one by one from now on."""
        self.recorder = None
        name = type(self.impl).__name__.removesuffix("Impl")
        warn_caller(f"the updates of {name} can't be captured and are launched one by one: {reason}")

    def replayed(self, recording: Recording) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Do recorded work."""
        now = self.numbers()
        try:
            self.set_numbers(recording.start)
            recording.replay()
            if recording.change is None:
                recording.change = difference(self.numbers(), recording.start)
        finally:  # also if the user interrupts the wait for the device
            self.set_numbers(now)
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


def replaced(before: Sequence[object], now: Sequence[object]) -> bool:
    """Whether a state that was there is no longer, or is another."""
    return any(a is not None and a != b for a, b in zip(before, now, strict=True))


def difference(a: Numbers, b: Numbers) -> Numbers:
    return a[0] - b[0], tuple(m - n for m, n in zip(a[1], b[1], strict=True))

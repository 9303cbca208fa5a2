"""``fit`` of several estimators at once: updated as one where that is possible and pays, else one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..joint import Joint, reason_apart
from ..logger import Meter, check_free
from .engine import FUSED, Engine
from .feeds import JointFeed
from .loop import OfflineRun, offline_run
from .run import progress_bar

if TYPE_CHECKING:
    from ..base import Algo

MOST_WORK = 20_000_000
"""Rows times the largest weight matrix, up to which updates of several as one were seen to be no slower on a CPU."""


def runs_of(algos: Sequence[Algo], names: Sequence[str], *args: Any, **kwargs: Any) -> list[OfflineRun]:
    """What trains each of some estimators with the same arguments of ``fit``; everything wrong is said here."""
    if kwargs.get("save_metrics", True) and not kwargs.get("with_timestamp", True):
        for name in names:  # a later one should not be found out when the first are trained
            check_free(Path(kwargs.get("logdir", "d3rlpy_logs")) / name)
    return [
        offline_run(algo, *args, experiment_name=name, verbose=False, show_progress=False, **kwargs)
        for algo, name in zip(algos, names, strict=True)
    ]


def epochs_of(
    runs: list[OfflineRun], verbose: bool, show_progress: bool
) -> Iterator[tuple[int, list[dict[str, float]]]]:
    """Train runs of one algorithm; ``(epoch, metrics of each)`` after each epoch."""
    last = len(runs[0].lengths)
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.logged(run.new_logger))
        for epoch, n_steps in enumerate(runs[0].lengths, start=1):
            title = f"{len(runs)} {type(runs[0].algo).__name__} epoch {epoch}/{last}"
            with progress_bar(n_steps * len(runs), title, show_progress) as bar:
                trained = train_epoch(runs, epoch, n_steps, last, bar)
            metrics = [run.report(epoch, last, own) for run, own in zip(runs, trained, strict=True)]
            if verbose:
                print(f"epoch={epoch} step={runs[0].step} runs={len(runs)} {_means(metrics)}", flush=True)
            yield epoch, metrics


def _means(metrics: Sequence[dict[str, float]]) -> str:
    names = [name for name in metrics[0] if not name.startswith("time_")]
    return " ".join(f"{name}={sum(m[name] for m in metrics) / len(metrics):.6g}" for name in names)


def train_epoch(runs: list[OfflineRun], epoch: int, n_steps: int, last: int, bar: Any) -> list[dict[str, float]]:
    """The updates of one epoch of all; the mean metrics of each."""
    algos = [run.algo for run in runs]
    if len(runs) > 1 and reason_apart(algos) is None and pays(algos):
        return train_as_one(runs, epoch, n_steps, bar)
    metrics = []
    for run in runs:
        metrics.append(run.train(epoch, n_steps, last))
        bar.update(n_steps)
    return metrics


def train_as_one(runs: list[OfflineRun], epoch: int, n_steps: int, bar: Any) -> list[dict[str, float]]:
    """``train_epoch``, updating all as one."""
    joint = Joint([run.algo for run in runs])
    if runs[0].has_engine:
        return train_by_engine(joint, runs, epoch, n_steps, bar)
    meter = Meter()
    for run in runs:
        run.current_sampler()
    with joint.training() as impl:
        for _ in range(n_steps):
            start = perf_counter()
            with joint.members.apart():
                batches = [run.next_batch() for run in runs]
            sampled = perf_counter()
            meter.add(joint.step(impl, batches))
            updated = perf_counter()
            meter.add_time("time_sample_batch", sampled - start)
            meter.add_time("time_algorithm_update", updated - sampled)
            if runs[0].callbacks:
                with joint.paused(impl):
                    call_back(runs, epoch)
            bar.update(len(runs))
            meter.add_time("time_step", perf_counter() - start)
    return [run.means(own) for run, own in zip(runs, meter.split(len(runs)), strict=True)]


def train_by_engine(joint: Joint, runs: list[OfflineRun], epoch: int, n_steps: int, bar: Any) -> list[dict[str, float]]:
    """``train_as_one`` where the device gathers batches, or repeats what it has been shown."""
    meter, recorder = Meter(), runs[0].recorder
    feeds = [run.current_feed() for run in runs]
    start, k = perf_counter(), 1 if runs[0].callbacks else FUSED
    with joint.training() as impl:
        if recorder is not None:
            recorder.register(joint.members.generators)
        engine = Engine(impl, JointFeed(joint, feeds), recorder, joint)
        for first in range(0, n_steps, k):
            n = min(k, n_steps - first)
            engine.run(n, meter)
            if runs[0].callbacks:
                with joint.paused(impl):
                    call_back(runs, epoch)
            bar.update(n * len(runs))
    means = [run.means(own) for run, own in zip(runs, meter.split(len(runs)), strict=True)]
    seconds = (perf_counter() - start) / n_steps / len(runs)
    return [own | {"time_step": seconds} for own in means]


def call_back(runs: list[OfflineRun], epoch: int) -> None:
    """What the user wants to be told after each update, member by member."""
    for run in runs:
        for callback in run.callbacks:
            callback(run.algo, epoch, run.step)


def pays(algos: Sequence[Algo]) -> bool:
    """Whether updates as one are faster: on a GPU always, on a CPU where products are small and images are none."""
    impl, batch_size = algos[0].impl, algos[0].batch_size
    if impl.device.type != "cpu":
        return True
    weights = [p for p in impl.parameters() if p.dim() > 1]
    return all(p.dim() == 2 and batch_size * p.numel() <= MOST_WORK for p in weights)

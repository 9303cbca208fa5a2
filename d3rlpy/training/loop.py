"""The training loop: epochs of updates, then scorers, logs and a checkpoint.

::

    for each epoch:
        for each step:  batch = sampler.sample();  impl.step(Batch.of(batch))
        for each scorer:  metrics[name] = scorer(algo, eval_episodes)
        log metrics, save the model
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import Episode, MDPDataset, PermutationSampler, Rows, Transition, rows_of
from ..dataset.validation import warn_caller
from ..hyperparameters import warn_old_name
from ..impl import Batch, training_mode
from ..logger import Logger, Meter
from ..metrics.scorer import check_scorer, get_scorer
from .checks import check_settings
from .engine import FUSED, Engine, recorder_of
from .feeds import Feed, feed_of, from_device
from .run import Callback, Run, Scorer, at_least_one, callback_list

if TYPE_CHECKING:
    from ..base import Algo

Data = MDPDataset | Sequence[Episode] | Sequence[Transition]
Scorers = Mapping[str, str | Scorer] | Sequence[str | Scorer] | str | Scorer

DEFAULT_EPOCHS = 1000
UPDATES_PER_EPOCH = 10_000


def offline_run(
    algo: Algo,
    dataset: Data,
    *,
    n_epochs: int | None = None,
    n_steps: int | None = None,
    n_steps_per_epoch: int | None = None,
    save_metrics: bool = True,
    experiment_name: str | None = None,
    with_timestamp: bool = True,
    logdir: str | os.PathLike[str] = "d3rlpy_logs",
    verbose: bool = True,
    show_progress: bool = True,
    tensorboard_dir: str | os.PathLike[str] | None = None,
    eval_episodes: Data | None = None,
    save_interval: int = 1,
    scorers: Scorers | None = None,
    shuffle: bool = True,
    callback: Callback | Sequence[Callback] | None = None,
    tensorboard: bool | None = None,
) -> OfflineRun:
    """What trains epoch by epoch; everything that can be wrong is said here, before the first update.

    Parameters
    ----------
    dataset : ``MDPDataset``, list of episodes or list of transitions.
    n_epochs : passes over the data, ``ceil(transitions / batch_size)`` updates each; 1000 if no length is given.
    n_steps : number of updates instead of ``n_epochs`` (the constructor's ``n_steps`` is the TD horizon).
    n_steps_per_epoch : updates between two evaluations if ``n_steps`` is given, 10,000 by default; the last epoch may
        be shorter.
    save_metrics : False writes nothing to disk.
    experiment_name : name of the log folder; the class name by default.
    with_timestamp : append the time to that name.
    logdir : folder of the log folders.
    verbose : print metrics after each epoch.
    show_progress : show a progress bar.
    tensorboard_dir : also write TensorBoard files there.
    eval_episodes : data for the scorers.
    save_interval : epochs between two checkpoints ``model_{step}.pt``; the last epoch always leaves one.
    scorers : ``{metric name: scorer}`` or a list of scorers, each a function of ``(algo, episodes)`` or the short
        name of one of the library ("td_error").
    shuffle : False walks through the transitions in order.
    callback : called as ``callback(algo, epoch, total_step)`` after each update; one or a list.
    tensorboard : name of the 2020 documentation; write ``tensorboard_dir="runs"``.

    Raises
    ------
    ValueError : the data doesn't suit the algorithm, a hyper-parameter is out of bounds, or both lengths are given.
    OSError : the log folder can't be written.
    """
    if tensorboard is not None:
        warn_old_name("tensorboard", "write tensorboard_dir='runs', or nothing for no TensorBoard files")
        tensorboard_dir = "runs" if tensorboard and tensorboard_dir is None else tensorboard_dir
    check_settings(algo)
    dataset, eval_episodes = as_list(dataset), as_list(eval_episodes)
    rows, indices = rows_of(dataset)
    lengths = epoch_lengths(n_epochs, n_steps, n_steps_per_epoch, -(-len(indices) // algo.batch_size))
    callbacks = callback_list(callback)
    algo.build_with_rows(rows, indices)
    chosen = _choose_scorers(algo, scorers, eval_episodes)
    run = OfflineRun(algo, chosen, eval_episodes, save_interval, show_progress)
    run.use(rows, indices, shuffle, callbacks)
    run.lengths = lengths
    run.new_logger = partial(
        Logger,
        experiment_name or type(algo).__name__,
        logdir=logdir,
        with_timestamp=with_timestamp,
        save_metrics=save_metrics,
        tensorboard_dir=tensorboard_dir,
        verbose=verbose,
    )
    return run


def as_list(data: Any) -> Any:
    """What an iterator yields, which could be read only once; anything else as it is."""
    return list(data) if isinstance(data, Iterator) else data


def epoch_lengths(
    n_epochs: int | None, n_steps: int | None, n_steps_per_epoch: int | None, batches_per_epoch: int
) -> list[int]:
    """Number of updates of each epoch."""
    if n_epochs is not None and n_steps is not None:
        raise ValueError(f"n_epochs={n_epochs} and n_steps={n_steps} both set the length of training: give one")
    if n_steps is None:
        if n_steps_per_epoch is not None:
            raise ValueError(f"n_steps_per_epoch={n_steps_per_epoch} needs n_steps: an epoch of n_epochs is a pass")
        return [batches_per_epoch] * at_least_one("n_epochs", DEFAULT_EPOCHS if n_epochs is None else n_epochs)
    per_epoch = at_least_one("n_steps_per_epoch", UPDATES_PER_EPOCH if n_steps_per_epoch is None else n_steps_per_epoch)
    full, rest = divmod(at_least_one("n_steps", n_steps), per_epoch)
    return [per_epoch] * full + [rest] * (rest > 0)


def named_scorers(scorers: Scorers | None) -> dict[str, Scorer]:
    """Scorers by the name of their metric."""
    if scorers is None:
        return {}
    if isinstance(scorers, str) or callable(scorers):
        scorers = [scorers]
    if not isinstance(scorers, Mapping):
        names = [s if isinstance(s, str) else getattr(s, "__name__", repr(s)).removesuffix("_scorer") for s in scorers]
        if len(set(names)) < len(names):
            raise ValueError(f"scorers={names} have a name twice: give a dictionary {{name: scorer}}")
        scorers = dict(zip(names, scorers, strict=True))
    return {name: get_scorer(scorer) for name, scorer in scorers.items()}


def _choose_scorers(algo: Algo, scorers: Scorers | None, eval_episodes: Data | None) -> dict[str, Scorer]:
    """Scorers by the name of their metric, each known to work."""
    if scorers is None and eval_episodes is not None:
        warn_caller("eval_episodes has no effect without scorers: pass scorers=, for instance ['td_error']")
    chosen = named_scorers(scorers)
    for name, scorer in chosen.items():
        if not name or set(name) & set("/\\") or name == "loss" or name.endswith("_loss") or name.startswith("time_"):
            raise ValueError(f"{name!r} can't name a scorer: it is the name of a log file, and losses have theirs")
        check_scorer(name, scorer, algo, eval_episodes)
    return chosen


class OfflineRun(Run):
    """One call of ``fit``: ``lengths`` of its epochs, and what makes its logger."""

    lengths: list[int]
    new_logger: Callable[[], Logger]

    def all_epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """``(epoch, metrics)`` after each epoch, counted from 1. Errors are logged as they are, not negated."""
        return self.epochs(self.lengths, self.new_logger)

    def next_batch(self) -> Batch:
        """The next mini-batch, on the device."""
        impl = self.algo.impl
        return impl.batch_type.of(self.sampler.sample(), self.algo.fitted_scalers_, impl.device)

    def use(self, rows: Rows, indices: np.ndarray, shuffle: bool, callbacks: list[Callback]) -> None:
        """What is learned from, and what is called after each update."""
        self.rows, self.indices, self.shuffle, self.callbacks = rows, indices, shuffle, callbacks
        self.sampled_as: tuple[Any, ...] = ()
        self.engine: Engine | None = None
        self.feed: Feed | None = None
        self.fed_as: tuple[Any, ...] = ()
        self.recorder = recorder_of(self.algo)
        self.has_engine = self.recorder is not None or from_device(self.algo.impl)
        if not self.has_engine:
            self.current_sampler()

    def window(self) -> tuple[int, int, int, float]:
        """The present ``batch_size``, ``n_frames``, ``n_steps`` and ``gamma``, which may change between epochs."""
        algo = self.algo
        return algo.batch_size, algo.n_frames, getattr(algo, "n_steps", 1), getattr(algo, "gamma", 1.0)

    def current_engine(self) -> Engine:
        """What launches updates, for the present window."""
        feed = self.current_feed()
        if self.engine is None or self.engine.feed is not feed:
            self.engine = Engine(self.algo.impl, feed, self.recorder)
        return self.engine

    def current_feed(self) -> Feed:
        """Where an engine's batches come from, for the present window."""
        if self.feed is None or self.fed_as != self.window():
            self.feed, self.fed_as = feed_of(self), self.window()
        return self.feed

    def current_sampler(self) -> PermutationSampler:
        """The sampler for the present window."""
        algo, wanted = self.algo, self.window()
        if wanted != self.sampled_as:
            scaler = algo.fitted_scalers_.reward
            rewards = None if scaler is None else scaler.transform_numpy(self.rows.rewards)
            seed = int(algo.stream_.numpy.integers(2**31))
            self.sampled_as = wanted
            self.sampler = PermutationSampler(
                self.rows, self.indices, *wanted, shuffle=self.shuffle, seed=seed, rewards=rewards
            )
        return self.sampler

    def train(self, epoch: int, n_steps: int, n_epochs: int) -> dict[str, float]:
        """The updates of one epoch; their mean metrics."""
        if self.has_engine:
            return self.train_by_engine(epoch, n_steps, n_epochs)
        algo, impl, sample = self.algo, self.algo.impl, self.current_sampler().sample
        meter, device, scalers = Meter(), impl.device, algo.fitted_scalers_
        with training_mode(impl), algo.stream_, self.progress(epoch, n_steps, n_epochs) as bar:
            for _ in range(n_steps):
                start = perf_counter()
                mini_batch = sample()
                sampled = perf_counter()
                meter.add(impl.step(impl.batch_type.of(mini_batch, scalers, device)))
                updated = perf_counter()
                meter.add_time("time_sample_batch", sampled - start)
                meter.add_time("time_algorithm_update", updated - sampled)
                for callback in self.callbacks:
                    callback(algo, epoch, impl.grad_step)
                bar.update()
                meter.add_time("time_step", perf_counter() - start)
        return self.means(meter)

    def train_by_engine(self, epoch: int, n_steps: int, n_epochs: int) -> dict[str, float]:
        """``train`` where the device gathers batches, or repeats what it has been shown."""
        algo, impl, meter = self.algo, self.algo.impl, Meter()
        engine = self.current_engine()
        with training_mode(impl), algo.stream_, self.progress(epoch, n_steps, n_epochs) as bar:
            start, k = perf_counter(), 1 if self.callbacks else FUSED
            for first in range(0, n_steps, k):
                n = min(k, n_steps - first)
                engine.run(n, meter)
                for callback in self.callbacks:
                    callback(algo, epoch, impl.grad_step)
                bar.update(n)
        means = self.means(meter)  # waits for the device
        return means | {"time_step": (perf_counter() - start) / n_steps}

"""The training loop: epochs of updates, then scorers, logs and a checkpoint.

::

    for each epoch:
        for each step:  batch = sampler.sample();  impl.step(Batch.of(batch))
        for each scorer:  metrics[name] = scorer(algo, eval_episodes)
        log metrics, save the model
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..dataset import Episode, MDPDataset, PermutationSampler, Transition, rows_of
from ..hyperparameters import check_hyperparameters, warn_old_name
from ..impl import Batch
from ..logger import Logger, Meter
from ..metrics.scorer import get_scorer, natural_value
from .checks import check_data

if TYPE_CHECKING:
    from ..base import Algo

Data = MDPDataset | Sequence[Episode] | Sequence[Transition]
Callback = Callable[["Algo", int, int], Any]
Scorers = Mapping[str, str | Callable[..., float]] | Sequence[str | Callable[..., float]]

DEFAULT_EPOCHS = 1000


def fit_epochs(
    algo: Algo,
    dataset: Data,
    *,
    n_epochs: int | None = None,
    n_steps: int | None = None,
    n_steps_per_epoch: int = 10_000,
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
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train epoch by epoch; everything that can be wrong is said before the first update.

    Parameters
    ----------
    dataset : ``MDPDataset``, list of episodes or list of transitions.
    n_epochs : passes over the data, ``ceil(transitions / batch_size)`` updates each; 1000 if no length is given.
    n_steps : number of updates instead of ``n_epochs`` (the constructor's ``n_steps`` is the TD horizon).
    n_steps_per_epoch : updates between two evaluations if ``n_steps`` is given; the last epoch may be shorter.
    save_metrics : False writes nothing to disk.
    experiment_name : name of the log folder; the class name by default.
    with_timestamp : append the time to that name.
    logdir : folder of the log folders.
    verbose : print metrics after each epoch.
    show_progress : show a progress bar.
    tensorboard_dir : also write TensorBoard files there.
    eval_episodes : data for the scorers.
    save_interval : epochs between two checkpoints ``model_{step}.pt``.
    scorers : ``{metric name: scorer}`` or a list of scorers, each a function of ``(algo, episodes)`` or the short
        name of one of the library ("td_error").
    shuffle : False walks through the transitions in order.
    callback : called as ``callback(algo, epoch, total_step)`` after each update; one or a list.
    tensorboard : name of the 2020 documentation; write ``tensorboard_dir="runs"``.

    Yields
    ------
    ``(epoch, metrics)`` after each epoch, counted from 1. Errors are logged as they are, not negated.

    Raises
    ------
    ValueError : the data doesn't suit the algorithm, a hyper-parameter is out of bounds, or both lengths are given.
    OSError : the log folder can't be written.
    """
    if tensorboard is not None:
        warn_old_name("tensorboard", "write tensorboard_dir='runs', or nothing for no TensorBoard files")
        tensorboard_dir = "runs" if tensorboard and tensorboard_dir is None else tensorboard_dir
    check_hyperparameters(algo)
    chosen = _choose_scorers(scorers, eval_episodes)
    rows, indices = rows_of(dataset)
    check_data(algo, rows, indices)
    batches_per_epoch = -(-len(indices) // algo.batch_size)
    lengths = epoch_lengths(n_epochs, n_steps, n_steps_per_epoch, batches_per_epoch)
    _at_least_one("save_interval", save_interval)
    logger = Logger(
        experiment_name or type(algo).__name__,
        logdir=logdir,
        with_timestamp=with_timestamp,
        save_metrics=save_metrics,
        tensorboard_dir=tensorboard_dir,
        verbose=verbose,
    )
    algo.build_with_dataset(dataset)
    scaler = algo.fitted_scalers_.reward
    sampler = PermutationSampler(
        rows,
        indices,
        algo.batch_size,
        n_frames=algo.n_frames,
        n_steps=getattr(algo, "n_steps", 1),
        gamma=getattr(algo, "gamma", 1.0),
        shuffle=shuffle,
        seed=int(algo.stream_.numpy.integers(2**31)),
        rewards=None if scaler is None else scaler.transform_numpy(rows.rewards),
    )
    algo.history_, algo.eval_results_, algo.logdir_ = [], {}, logger.logdir
    logger.save_params(algo.saved_params())
    callbacks = [callback] if callable(callback) else list(callback or [])
    run = _Run(algo, sampler, logger, callbacks, chosen, eval_episodes, save_interval, show_progress)
    return run.epochs(lengths)


def epoch_lengths(
    n_epochs: int | None, n_steps: int | None, n_steps_per_epoch: int, batches_per_epoch: int
) -> list[int]:
    """Number of updates of each epoch."""
    if n_epochs is not None and n_steps is not None:
        raise ValueError(f"n_epochs={n_epochs} and n_steps={n_steps} both set the length of training: give one")
    if n_steps is None:
        n_epochs = DEFAULT_EPOCHS if n_epochs is None else n_epochs
        return [batches_per_epoch] * _at_least_one("n_epochs", n_epochs)
    _at_least_one("n_steps", n_steps)
    _at_least_one("n_steps_per_epoch", n_steps_per_epoch)
    full, rest = divmod(n_steps, n_steps_per_epoch)
    return [n_steps_per_epoch] * full + [rest] * (rest > 0)


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name}={value!r} of fit must be a whole number of at least 1")
    return int(value)


def _choose_scorers(scorers: Scorers | None, eval_episodes: Data | None) -> dict[str, Callable[..., float]]:
    if scorers is None:
        return {}
    if not isinstance(scorers, Mapping):
        scorers = {s if isinstance(s, str) else s.__name__.removesuffix("_scorer"): s for s in scorers}
    chosen = {name: get_scorer(scorer) for name, scorer in scorers.items()}
    for name, scorer in chosen.items():
        if eval_episodes is None and getattr(scorer, "needs_episodes", True):
            raise ValueError(f"the scorer {name!r} needs episodes: pass eval_episodes=")
    return chosen


@dataclass
class _Run:
    """One call of ``fit``: what its epochs share."""

    algo: Algo
    sampler: PermutationSampler
    logger: Logger
    callbacks: list[Callback]
    scorers: dict[str, Callable[..., float]]
    eval_episodes: Data | None
    save_interval: int
    show_progress: bool

    def epochs(self, lengths: list[int]) -> Iterator[tuple[int, dict[str, float]]]:
        algo = self.algo
        try:
            for epoch, n_updates in enumerate(lengths, start=1):
                metrics = self.updates(epoch, n_updates, len(lengths)) | self.scores()
                algo.history_.append((epoch, metrics))
                self.logger.commit(epoch, algo.grad_step_, metrics)
                if epoch % self.save_interval == 0:
                    self.logger.save_model(algo.grad_step_, algo.save_model)
                yield epoch, metrics
        finally:
            self.logger.close()

    def updates(self, epoch: int, n_updates: int, n_epochs: int) -> dict[str, float]:
        """The updates of one epoch; their mean metrics."""
        algo, impl, sample = self.algo, self.algo.impl, self.sampler.sample
        meter, device, scalers = Meter(), impl.device, algo.fitted_scalers_
        impl.train()
        try:
            with algo.stream_, self.progress(epoch, n_updates, n_epochs) as bar:
                for _ in range(n_updates):
                    start = perf_counter()
                    mini_batch = sample()
                    sampled = perf_counter()
                    meter.add(impl.step(Batch.of(mini_batch, scalers, device)))
                    updated = perf_counter()
                    meter.add_time("time_sample_batch", sampled - start)
                    meter.add_time("time_algorithm_update", updated - sampled)
                    for callback in self.callbacks:
                        callback(algo, epoch, impl.grad_step)
                    bar.update()
                    meter.add_time("time_step", perf_counter() - start)
        finally:
            impl.eval()
        metrics = meter.means()
        for name, value in metrics.items():
            if value != value:
                warnings.warn(
                    f"{name} is not a number after {impl.grad_step} updates: training has diverged, "
                    "lower the learning rate or scale rewards and observations",
                    UserWarning,
                    stacklevel=5,
                )
        return metrics

    def scores(self) -> dict[str, float]:
        """What the scorers say after an epoch, errors in their natural sign."""
        found = {}
        for name, scorer in self.scorers.items():
            found[name] = natural_value(scorer, scorer(self.algo, self.eval_episodes))
            self.algo.eval_results_.setdefault(name, []).append(found[name])
        return found

    def progress(self, epoch: int, n_updates: int, n_epochs: int) -> Any:
        from tqdm.auto import tqdm

        return tqdm(
            total=n_updates,
            disable=not self.show_progress,
            desc=f"{type(self.algo).__name__} epoch {epoch}/{n_epochs}",
            mininterval=0.5,
            leave=False,
        )

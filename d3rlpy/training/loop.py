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
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import Episode, MDPDataset, PermutationSampler, Rows, Transition, rows_of
from ..dataset.validation import warn_caller
from ..hyperparameters import check_hyperparameters, warn_old_name
from ..impl import training_mode
from ..logger import Logger, Meter
from ..metrics.scorer import check_scorer, get_scorer, natural_value

if TYPE_CHECKING:
    from ..base import Algo

Data = MDPDataset | Sequence[Episode] | Sequence[Transition]
Callback = Callable[["Algo", int, int], Any]
Scorer = Callable[..., float]
Scorers = Mapping[str, str | Scorer] | Sequence[str | Scorer] | str | Scorer

DEFAULT_EPOCHS = 1000
UPDATES_PER_EPOCH = 10_000


def fit_epochs(
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
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train epoch by epoch; everything that can be wrong is said before the first update.

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
    dataset, eval_episodes = _as_list(dataset), _as_list(eval_episodes)
    rows, indices = rows_of(dataset)
    lengths = epoch_lengths(n_epochs, n_steps, n_steps_per_epoch, -(-len(indices) // algo.batch_size))
    callbacks = list(callback) if isinstance(callback, Sequence) else [] if callback is None else [callback]
    if not all(map(callable, callbacks)):
        raise TypeError(f"callback={callback!r} must be a function of (algo, epoch, total_step), or a list of such")
    algo.build_with_rows(rows, indices)
    run = _Run(
        algo,
        rows,
        indices,
        shuffle,
        callbacks,
        _choose_scorers(algo, scorers, eval_episodes),
        eval_episodes,
        _at_least_one("save_interval", save_interval),
        show_progress,
    )
    new_logger = partial(
        Logger,
        experiment_name or type(algo).__name__,
        logdir=logdir,
        with_timestamp=with_timestamp,
        save_metrics=save_metrics,
        tensorboard_dir=tensorboard_dir,
        verbose=verbose,
    )
    return run.epochs(lengths, new_logger)


def _as_list(data: Any) -> Any:
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
        return [batches_per_epoch] * _at_least_one("n_epochs", DEFAULT_EPOCHS if n_epochs is None else n_epochs)
    per_epoch = _at_least_one(
        "n_steps_per_epoch", UPDATES_PER_EPOCH if n_steps_per_epoch is None else n_steps_per_epoch
    )
    full, rest = divmod(_at_least_one("n_steps", n_steps), per_epoch)
    return [per_epoch] * full + [rest] * (rest > 0)


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name}={value!r} of fit must be a whole number of at least 1")
    return int(value)


def _choose_scorers(algo: Algo, scorers: Scorers | None, eval_episodes: Data | None) -> dict[str, Scorer]:
    """Scorers by the name of their metric, each known to work."""
    if scorers is None:
        if eval_episodes is not None:
            warn_caller("eval_episodes has no effect without scorers: pass scorers=, for instance ['td_error']")
        return {}
    if isinstance(scorers, str) or callable(scorers):
        scorers = [scorers]
    if not isinstance(scorers, Mapping):
        names = [s if isinstance(s, str) else getattr(s, "__name__", repr(s)).removesuffix("_scorer") for s in scorers]
        if len(set(names)) < len(names):
            raise ValueError(f"scorers={names} have a name twice: give a dictionary {{name: scorer}}")
        scorers = dict(zip(names, scorers, strict=True))
    chosen = {name: get_scorer(scorer) for name, scorer in scorers.items()}
    for name, scorer in chosen.items():
        if not name or set(name) & set("/\\") or name == "loss" or name.endswith("_loss") or name.startswith("time_"):
            raise ValueError(f"{name!r} can't name a scorer: it is the name of a log file, and losses have theirs")
        check_scorer(name, scorer, algo, eval_episodes)
    return chosen


@dataclass
class _Run:
    """One call of ``fit``: what its epochs share."""

    algo: Algo
    rows: Rows
    indices: np.ndarray
    shuffle: bool
    callbacks: list[Callback]
    scorers: dict[str, Scorer]
    eval_episodes: Data | None
    save_interval: int
    show_progress: bool

    def __post_init__(self) -> None:
        self.sampled_as: tuple[Any, ...] = ()
        self.sampler = self.current_sampler()

    def current_sampler(self) -> PermutationSampler:
        """The sampler for the present ``batch_size``, ``n_steps`` and ``gamma``, which may change between epochs."""
        algo = self.algo
        wanted = (algo.batch_size, algo.n_frames, getattr(algo, "n_steps", 1), getattr(algo, "gamma", 1.0))
        if wanted != self.sampled_as:
            scaler = algo.fitted_scalers_.reward
            rewards = None if scaler is None else scaler.transform_numpy(self.rows.rewards)
            seed = int(algo.stream_.numpy.integers(2**31))
            self.sampled_as = wanted
            self.sampler = PermutationSampler(
                self.rows, self.indices, *wanted, shuffle=self.shuffle, seed=seed, rewards=rewards
            )
        return self.sampler

    def epochs(self, lengths: list[int], new_logger: Callable[[], Logger]) -> Iterator[tuple[int, dict[str, float]]]:
        """Train and report epoch by epoch; files appear when the first epoch is asked for."""
        algo = self.algo
        logger = new_logger()
        algo.history_, algo.eval_results_, algo.logdir_ = [], {}, logger.logdir
        try:
            if logger.logdir is not None:
                logger.save_params(algo.saved_params())
            for epoch, n_updates in enumerate(lengths, start=1):
                metrics = self.updates(epoch, n_updates, len(lengths)) | self.scores()
                algo.history_.append((epoch, metrics))
                logger.commit(epoch, algo.grad_step_, metrics)
                if epoch % self.save_interval == 0 or epoch == len(lengths):
                    logger.save_model(algo.grad_step_, algo.save_model)
                yield epoch, metrics
        finally:
            logger.close()

    def updates(self, epoch: int, n_updates: int, n_epochs: int) -> dict[str, float]:
        """The updates of one epoch; their mean metrics."""
        algo, impl, sample = self.algo, self.algo.impl, self.current_sampler().sample
        meter, device, scalers = Meter(), impl.device, algo.fitted_scalers_
        with training_mode(impl), algo.stream_, self.progress(epoch, n_updates, n_epochs) as bar:
            for _ in range(n_updates):
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
        metrics = meter.means()
        for name, value in metrics.items():
            if value != value:
                warn_caller(
                    f"{name} is not a number after {impl.grad_step} updates: training has diverged, "
                    "lower the learning rate or scale rewards and observations"
                )
        for text in impl.complaints():
            warn_caller(text)
        return metrics

    def scores(self) -> dict[str, float]:
        """What the scorers say after an epoch, errors in their natural sign."""
        found = {}
        for name, scorer in self.scorers.items():
            value = scorer(self.algo, self.eval_episodes)
            if value is None:
                raise TypeError(f"the scorer {name!r} returned None, it must return a number")
            found[name] = natural_value(scorer, value)
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

"""What every way of training shares: epochs, their metrics, scores, logs and checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..dataset.validation import warn_caller
from ..logger import Logger, Meter
from ..metrics.scorer import natural_value

if TYPE_CHECKING:
    from ..base import Algo

Callback = Callable[["Algo", int, int], Any]
Scorer = Callable[..., float]


class Run(ABC):
    """One call of ``fit`` or of its online relatives: what its epochs share.

    Parameters
    ----------
    algo : what is trained.
    scorers : by the name of their metric, each a function of ``(algo, eval_episodes)``.
    eval_episodes : their second argument.
    save_interval, eval_interval : epochs between two checkpoints and between two evaluations; the last epoch has both.
    show_progress : whether there is a progress bar.
    """

    method: ClassVar[str] = "fit"  # of the estimator, for errors

    def __init__(
        self,
        algo: Algo,
        scorers: dict[str, Scorer],
        eval_episodes: Any,
        save_interval: int,
        show_progress: bool,
        eval_interval: int = 1,
    ):
        self.algo = algo
        self.scorers = scorers
        self.eval_episodes = eval_episodes
        self.save_interval = at_least_one("save_interval", save_interval, self.method)
        self.eval_interval = at_least_one("eval_interval", eval_interval, self.method)
        self.show_progress = show_progress

    @property
    def step(self) -> int:
        """What counts as a step in logs and names of checkpoints."""
        return self.algo.grad_step_

    @abstractmethod
    def train(self, epoch: int, n_steps: int, n_epochs: int) -> dict[str, float]:
        """The steps of one epoch; their mean metrics."""

    def epochs(
        self, lengths: list[int], new_logger: Callable[[], Logger], first: int = 1
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Train and report epoch by epoch; files appear when the first epoch is asked for."""
        last = first + len(lengths) - 1
        with self.logged(new_logger):
            for epoch, n_steps in enumerate(lengths, start=first):
                yield epoch, self.report(epoch, last, self.train(epoch, n_steps, last))

    @contextmanager
    def logged(self, new_logger: Callable[[], Logger]) -> Iterator[None]:
        """A block whose epochs are reported to a new logger."""
        algo, self.logger = self.algo, new_logger()
        algo.history_, algo.eval_results_, algo.logdir_ = [], {}, self.logger.logdir
        try:
            if self.logger.logdir is not None:
                self.logger.save_params(algo.saved_params())
            yield
        except RuntimeError as error:
            if not is_lost_device(error):
                raise
            saved = self.logger.last_model
            rest = "nothing was saved" if saved is None else f"the last checkpoint is {saved}"
            raise RuntimeError(f"the GPU failed in training, a new process is needed; {rest}: {error}") from error
        finally:
            self.logger.close()

    def report(self, epoch: int, last: int, metrics: dict[str, float]) -> dict[str, float]:
        """Evaluate, log and save after an epoch; its metrics, scores included."""
        algo = self.algo
        if epoch % self.eval_interval == 0 or epoch == last:
            metrics |= self.scores()
        algo.history_.append((epoch, metrics))
        self.logger.commit(epoch, self.step, metrics)
        if epoch % self.save_interval == 0 or epoch == last:
            self.logger.save_model(self.step, algo.save_model)
        return metrics

    def means(self, meter: Meter) -> dict[str, float]:
        """Mean metrics of an epoch, with warnings about what went wrong in it."""
        metrics = meter.means()
        for name, value in metrics.items():
            if value != value:
                warn_caller(
                    f"{name} is not a number after {self.algo.grad_step_} updates: training has diverged, "
                    "lower the learning rate or scale rewards and observations"
                )
        for text in self.algo.impl.complaints():
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

    def progress(self, epoch: int, n_steps: int, n_epochs: int) -> Any:
        """The bar of one epoch."""
        return progress_bar(n_steps, f"{type(self.algo).__name__} epoch {epoch}/{n_epochs}", self.show_progress)


def is_lost_device(error: RuntimeError) -> bool:
    """Whether a GPU has failed in a way that leaves it useless for this process."""
    kind: Any = getattr(torch, "AcceleratorError", None)
    return (kind is not None and isinstance(error, kind)) or str(error).startswith("CUDA error")


def progress_bar(total: int, description: str, show: bool) -> Any:
    """A bar that vanishes when it is full."""
    from tqdm.auto import tqdm

    return tqdm(total=total, disable=not show, desc=description, mininterval=0.5, leave=False)


def callback_list(callback: Callback | Sequence[Callback] | None) -> list[Callback]:
    """One callback, several or none, as a list."""
    callbacks = list(callback) if isinstance(callback, Sequence) else [] if callback is None else [callback]
    if not all(map(callable, callbacks)):
        raise TypeError(f"callback={callback!r} must be a function of (algo, epoch, total_step), or a list of such")
    return callbacks


def at_least_one(name: str, value: Any, owner: str = "fit") -> int:
    """``value`` as a whole number; ``ValueError`` that names the argument of ``owner`` if it is not one from 1 on."""
    return whole_number(name, value, 1, owner)


def whole_number(name: str, value: Any, low: int, owner: str = "fit") -> int:
    """``value`` as a whole number from ``low`` on."""
    try:
        sound = not isinstance(value, bool) and int(value) == value and value >= low
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise ValueError(f"{name}={value!r} of {owner} must be a whole number of at least {low}")
    return int(value)

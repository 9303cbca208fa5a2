"""Where does the time of an update go, and what would change it?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from ..dataset import PermutationSampler, rows_of
from ..impl import training_mode
from ..kernels import backend
from ..logger import Meter
from .checks import check_settings

if TYPE_CHECKING:
    from ..base import Algo
    from .loop import Data

PARTS = ("sampling", "transfer", "forward", "backward", "optimizer", "logging")
WARM_UP = 20  # updates


@dataclass(frozen=True)
class Profile:
    """Seconds an update by part, and a sentence of advice.

    ``forward`` is the rest of the update: network passes, losses, and copies to target networks.
    """

    seconds: dict[str, float]
    advice: str

    @property
    def updates_per_second(self) -> float:
        return 1.0 / sum(self.seconds.values())

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        lines = [f"{name:10s} {1e6 * s:9.0f} us {s / total:6.1%}" for name, s in self.seconds.items()]
        return "\n".join([*lines, f"{self.updates_per_second:.0f} updates/s. {self.advice}"])


def profile(algo: Algo, dataset: Data, seconds: float = 3.0) -> Profile:
    """Time single updates for a few seconds on a copy, so that ``algo`` does not change.

    Parameters
    ----------
    dataset : what ``fit`` would be given.
    seconds : how long to measure.
    """
    from copy import deepcopy

    check_settings(algo)
    algo = deepcopy(algo)
    rows, indices = rows_of(dataset)
    algo.build_with_rows(rows, indices)
    window = (algo.batch_size, algo.n_frames, getattr(algo, "n_steps", 1), getattr(algo, "gamma", 1.0))
    sampler = PermutationSampler(rows, indices, *window, seed=0)
    spent = dict.fromkeys(PARTS, 0.0)
    impl, meter, scalers = algo.impl, Meter(), algo.fitted_scalers_

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = _now(impl.device)
            result = function(*args)
            spent[part] += _now(impl.device) - start
            return result

        return call

    with ExitStack() as stack:
        stack.enter_context(training_mode(impl))
        stack.enter_context(algo.stream_)
        for optim in impl.optimizers().values():
            stack.enter_context(patch.object(optim, "gradients", timed("backward", optim.gradients)))
            stack.enter_context(patch.object(optim, "apply", timed("optimizer", optim.apply)))
        convert = timed("transfer", lambda mini_batch: impl.batch_type.of(mini_batch, scalers, impl.device))
        sample, update, log = (
            timed("sampling", sampler.sample),
            timed("forward", impl.step),
            timed("logging", meter.add),
        )
        for k in range(1_000_000):
            if k == WARM_UP:
                spent.update(dict.fromkeys(PARTS, 0.0))
                until = perf_counter() + seconds
            log(update(convert(sample())))
            if k > WARM_UP and perf_counter() > until:
                break
    spent["forward"] -= spent["backward"] + spent["optimizer"]
    per_update = {part: time / (k - WARM_UP + 1) for part, time in spent.items()}
    return Profile(per_update, _advice(algo, per_update))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def _advice(algo: Algo, seconds: dict[str, float]) -> str:
    """What to change, by what takes longest."""
    total = sum(seconds.values())
    largest = max(seconds, key=lambda part: seconds[part])
    if seconds["sampling"] + seconds["transfer"] > 0.3 * total:
        return "Data takes long: store smaller observations, or scale them once before training."
    if largest == "optimizer":
        return "The optimizer takes longest: Adam and SGD have fused kernels, RMSprop has none."
    if algo.impl.device.type == "cpu" and algo.batch_size >= 64 and backend() == "plain":
        return "Matrix products take longest, on torch's default kernels: unset D3RLPY_BACKEND to let a probe choose."
    return "Network passes take longest: smaller layers, fewer critics or a smaller batch would change it."

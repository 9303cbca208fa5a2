"""Where random numbers come from: one seed for all, and a stream of its own for each estimator."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .members import current

_seeds = np.random.default_rng()


def seed(n: int) -> None:
    """Seed ``random``, numpy, torch (CPU and CUDA) and the estimators that have ``random_state=None``.

    Estimators with a ``random_state`` of their own don't depend on it.
    """
    global _seeds
    _seeds = np.random.default_rng(n)
    random.seed(n)
    np.random.seed(n)
    torch.manual_seed(n)


def new_seed() -> int:
    """A fresh seed, drawn from what ``d3rlpy.seed`` has set."""
    return int(_seeds.integers(2**31))


class RandomStream:
    """Torch's and numpy's generators of one estimator.

    Inside ``with stream:`` torch's default generators continue this stream, so that everything random in an
    update (noise, dropout, a user's own module) belongs to it; outside they are as if nothing had happened.
    Torch's default generators are global to the process: estimators that train in several *threads* at once
    disturb each other's numbers, processes don't.
    """

    def __init__(self, seed: int, device: torch.device):
        self.numpy = np.random.default_rng(seed)
        self.device = device
        self._depth = 0
        self._states = {"cpu": torch.Generator().manual_seed(seed).get_state()}
        if device.type == "cuda":
            self._states["cuda"] = torch.Generator(device).manual_seed(seed).get_state()

    def __enter__(self) -> RandomStream:
        if self._depth == 0:
            self._swap()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._swap()

    def _swap(self) -> None:
        """Exchange the stored states with those of torch's default generators."""
        mine, self._states = self._states, self._current()
        torch.set_rng_state(mine["cpu"])
        if "cuda" in mine:
            torch.cuda.set_rng_state(mine["cuda"], self.device)

    def _current(self) -> dict[str, torch.Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def lend_to(self, generator: torch.Generator) -> torch.Generator:
        """``generator``, which from now on draws what torch's default one would draw inside ``with stream:``."""
        generator.set_state(self._states[self.device.type])
        return generator

    def continue_from(self, generator: torch.Generator) -> None:
        """Go on where a generator that was lent the stream stands."""
        self._states[self.device.type] = generator.get_state()

    def __getstate__(self) -> dict[str, Any]:
        """A copy or file of a stream that is in use holds where it stands, and is not in use itself."""
        return {"state": self.get_state(), "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(0, state["device"])  # type: ignore[misc]
        self.set_state(copy.deepcopy(state["state"]))

    def get_state(self) -> dict[str, Any]:
        """State as tensors and plain Python values."""
        return {
            "torch": self._current() if self._depth else self._states,
            "numpy": self.numpy.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from ``get_state``; a CUDA state is dropped where there is no such device."""
        self.numpy.bit_generator.state = state["numpy"]
        states = {k: v for k, v in state["torch"].items() if k in self._states}
        if self._depth:
            torch.set_rng_state(states["cpu"])
            if "cuda" in states:
                torch.cuda.set_rng_state(states["cuda"], self.device)
        else:
            self._states |= states


def normal_like(x: Tensor) -> Tensor:
    """Standard normal numbers, as many as ``x`` has; in runs that are computed as one, of each its own."""
    members = current()
    return torch.randn_like(x) if members is None else members.drawn(x.shape, x.dtype, x.device, "normal_")


def normal(shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal numbers, of the type and on the device of ``like``."""
    members = current()
    if members is None:
        return torch.randn(*shape, dtype=like.dtype, device=like.device)
    return members.drawn(shape, like.dtype, like.device, "normal_")


def uniform_like(x: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), as many as ``x`` has."""
    members = current()
    return torch.rand_like(x) if members is None else members.drawn(x.shape, x.dtype, x.device, "uniform_")


def uniform(n: int, like: Tensor) -> Tensor:
    """``n`` uniform numbers in [0, 1), of the type and on the device of ``like``."""
    members = current()
    if members is None:
        return torch.rand(n, dtype=like.dtype, device=like.device)
    return members.drawn((n,), like.dtype, like.device, "uniform_")


def exponential_like(x: Tensor) -> Tensor:
    """Standard exponential numbers, as many as ``x`` has."""
    members = current()
    if members is None:
        return torch.empty_like(x, memory_format=torch.contiguous_format).exponential_()
    return members.drawn(x.shape, x.dtype, x.device, "exponential_")


def whole_numbers(low: int, high: int, shape: Sequence[int], device: torch.device) -> Tensor:
    """Whole numbers of at least ``low`` and below ``high``, all equally likely, int64."""
    members = current()
    if members is None:
        return torch.randint(low, high, tuple(shape), device=device)
    return members.drawn(shape, torch.int64, device, "random_", low, high)

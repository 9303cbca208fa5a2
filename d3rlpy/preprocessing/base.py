"""What all scalers share: fitting, the affine map behind most of them, and the base class of each kind.

A scaler is a dataclass whose fields are its parameters. Statistics that are not given are found by ``fit``.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ..dataset import Data, Rows, rows_of
from ..registry import Configurable


class BaseScaler(Configurable, ABC):
    """An invertible map between what the data holds and what networks see."""

    COLUMN: ClassVar[str]
    """Which column of the data is scaled."""
    STATISTICS: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that ``fit`` finds where they are None."""

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Scaled values."""

    @abstractmethod
    def reverse_transform(self, x: Tensor) -> Tensor:
        """Values in their original scale."""

    def transform_numpy(self, x: np.ndarray) -> np.ndarray:
        """``transform`` of an array."""
        return self.transform(torch.tensor(x)).numpy()

    def reverse_transform_numpy(self, x: np.ndarray) -> np.ndarray:
        """``reverse_transform`` of an array."""
        return self.reverse_transform(torch.tensor(x)).numpy()

    @property
    def fitted(self) -> bool:
        """Whether all statistics are known."""
        return all(getattr(self, name) is not None for name in self.STATISTICS)

    def fit(self, data: Data) -> Self:
        """Find the statistics that are not given, in a data set, episodes or transitions.

        Every row that is the observation or action of a transition counts once.
        """
        return self.fit_rows(*rows_of(data))

    def fit_rows(self, rows: Rows, indices: np.ndarray) -> Self:
        """``fit`` on the transitions ``indices`` of a storage."""
        self.check(rows)
        if not self.fitted:
            self._keep(self.find_statistics(rows, indices))
        self.check_parameters()
        return self

    def fit_with_env(self, env: Any) -> Self:
        """Find the statistics that are not given in the bounds of an environment's spaces."""
        if not self.fitted:
            self._keep(self.find_bounds(env))
        return self

    def check(self, rows: Rows) -> None:
        """Raise ``ValueError`` for data that can't be scaled in this way."""

    def check_parameters(self) -> None:
        """Raise ``ValueError`` for parameters that make no map; called once they are all known."""

    def find_statistics(self, rows: Rows, indices: np.ndarray) -> tuple[Any, ...]:
        """Values of ``STATISTICS`` for some rows."""
        raise TypeError(f"{type(self).__name__} has statistics, but no find_statistics")

    def find_bounds(self, env: Any) -> tuple[Any, ...]:
        """Values of ``STATISTICS`` from an environment."""
        raise ValueError(
            f"{type(self).__name__} can't be fitted with an environment: call fit with data, "
            f"or give {' and '.join(self.STATISTICS)}"
        )

    def _keep(self, found: tuple[Any, ...]) -> None:
        for name, value in zip(self.STATISTICS, found, strict=True):
            if getattr(self, name) is None:
                setattr(self, name, value)


Constants = tuple[Tensor, Tensor, Tensor]


def _scale(x: Tensor, center: Tensor, divisor: Tensor, _: Tensor) -> Tensor:
    return (x - center) / divisor


def _unscale(x: Tensor, center: Tensor, _: Tensor, width: Tensor) -> Tensor:
    return x * width + center


class AffineScaler(BaseScaler):
    """``(x - center) / width`` at each entry; width 0 means that all maps to 0, and back to ``center``.

    Constants are kept per device and type, until a parameter changes; files and copies don't hold them.
    """

    @abstractmethod
    def center_and_width(self) -> tuple[Any, Any]:
        """Arrays of the shape of one observation or action, or numbers; called on a fitted scaler."""

    def transform(self, x: Tensor) -> Tensor:
        return self._apply(x, _scale, self._constants(x))

    def reverse_transform(self, x: Tensor) -> Tensor:
        return self._apply(x, _unscale, self._constants(x))

    def _apply(self, x: Tensor, function: Callable[..., Tensor], constants: Constants) -> Tensor:
        return function(x, *constants)

    def _constants(self, x: Tensor) -> Constants:
        """Center, width with infinity in place of 0, and width."""
        check_tensor(self, x)
        cache = self.__dict__.setdefault("_cache", {})
        key = x.device, x.dtype
        if key not in cache:
            dtype = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
            center, width = self._checked()
            arrays = center, np.where(width == 0, np.inf, width), width
            with torch.inference_mode(False), warnings.catch_warnings():
                warnings.simplefilter("ignore", torch.jit.TracerWarning)  # constants of a trace they shall be
                cache[key] = tuple(torch.as_tensor(a, dtype=dtype, device=x.device) for a in arrays)
        return cache[key]

    def _checked(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.fitted:
            names = " and ".join(self.STATISTICS)
            raise RuntimeError(f"{type(self).__name__} is not fitted: call fit with data, or give {names}")
        shapes = {name: np.shape(getattr(self, name)) for name in self.STATISTICS}
        if len(set(shapes.values()) - {()}) > 1:
            found = ", but ".join(f"{name} has the shape {shape}" for name, shape in shapes.items())
            raise ValueError(f"{type(self).__name__}: {found}")
        center, width = (np.asarray(a, np.float64) for a in self.center_and_width())
        if not (np.isfinite(center).all() and np.isfinite(width).all()):
            raise ValueError(f"{type(self).__name__}: its statistics must be finite, got {self.get_params()}")
        return center, width

    def check_parameters(self) -> None:
        self._checked()

    def check(self, rows: Rows) -> None:
        shape = getattr(rows, self.COLUMN).shape[1:]
        for name in self.STATISTICS:
            given = np.shape(getattr(self, name)) if getattr(self, name) is not None else ()
            if given not in ((), shape):
                raise ValueError(f"{type(self).__name__}: {name} has the shape {given}, {self.COLUMN} have {shape}")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self.__dict__.pop("_cache", None)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_cache"}


@dataclass(eq=False)
class FromData(BaseScaler):
    """A scaler that can be fitted as it is made: ``StandardScaler(dataset)``."""

    dataset: InitVar[Data | None] = None

    def __post_init__(self, dataset: Data | None) -> None:
        if dataset is not None:
            self.fit(dataset)


class Scaler(BaseScaler):
    """Base of observation scalers, which see observations ``(batch, ...)``."""

    COLUMN = "observations"


class ActionScaler(BaseScaler):
    """Base of action scalers, which see continuous actions ``(batch, action_size)``."""

    COLUMN = "actions"

    def check(self, rows: Rows) -> None:
        if rows.discrete_action:
            raise ValueError(f"{type(self).__name__} scales continuous actions, those of the data are discrete")
        super().check(rows)


class RewardScaler(BaseScaler):
    """Base of reward scalers, which see rewards of any shape, each before n-step sums are made of them."""

    COLUMN = "rewards"

    def transform_numpy(self, x: np.ndarray) -> np.ndarray:
        """``transform`` of an array: contiguous, of the same shape, float32 whatever ``transform`` makes of it."""
        name, scaled = type(self).__name__, self.transform(torch.from_numpy(np.array(x)))
        if not isinstance(scaled, Tensor):
            raise TypeError(f"{name}: transform must return a tensor, got {type(scaled).__name__}")
        if scaled.shape != x.shape:
            raise ValueError(
                f"{name}: transform returned the shape {tuple(scaled.shape)} for rewards of shape {x.shape}"
            )
        return np.ascontiguousarray(scaled.detach().numpy(), dtype=np.float32)


def check_tensor(scaler: Any, x: Any) -> None:
    """Raise ``TypeError`` for an array, which has methods of its own."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"transform and reverse_transform of {type(scaler).__name__} take tensors, got {type(x).__name__}: "
            "use transform_numpy and reverse_transform_numpy"
        )


def numbers(scaler: Any, name: str, wanted: str = "finite numbers") -> np.ndarray:
    """A parameter as float64; ``ValueError`` if it holds something else than finite numbers."""
    value = getattr(scaler, name)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ValueError(f"{type(scaler).__name__}: {name}={value!r} must be {wanted}")
    return array.astype(np.float64)


def number(scaler: Any, name: str) -> float:
    """A parameter that is one finite number; ``ValueError`` if it is not."""
    value, wanted = getattr(scaler, name), "one finite number"
    if type(value) in (int, float) and math.isfinite(value):
        return float(value)
    array = numbers(scaler, name, wanted)
    if array.ndim > 0:
        raise ValueError(f"{type(scaler).__name__}: {name}={value!r} must be {wanted}")
    return float(array)


def ordered(scaler: Any, lower: str, upper: str) -> tuple[np.ndarray, np.ndarray]:
    """Two parameters as float64; ``ValueError`` if ``upper`` is smaller somewhere."""
    low, high = numbers(scaler, lower), numbers(scaler, upper)
    if (high < low).any():
        raise ValueError(f"{type(scaler).__name__}: {upper}={high} is smaller than {lower}={low}")
    return low, high


def not_negative(scaler: Any, name: str) -> np.ndarray:
    """A parameter as float64; ``ValueError`` if it is negative somewhere."""
    array = numbers(scaler, name)
    if (array < 0).any():
        raise ValueError(f"{type(scaler).__name__}: {name}={array} is negative")
    return array


def space_bounds(space: Any, owner: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of a box, float64; ``ValueError`` if there are none or they are infinite."""
    if not (hasattr(space, "low") and hasattr(space, "high")):
        raise ValueError(f"{owner} needs a box, but the environment's {name} is {space}")
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"{owner} needs finite bounds, but the environment's {name} has low={low} and high={high}: "
            "call fit with data, or give minimum and maximum"
        )
    return low, high

"""Observation scalers: ``pixel``, ``min_max``, ``standard``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..dataset import Rows
from ..registry import Registry
from .base import AffineScaler, Constants, FromData, Scaler, check_tensor, not_negative, numbers, ordered, space_bounds
from .statistics import mean_std, minimum_maximum

SCALERS: Registry[Scaler] = Registry("scaler", Scaler)  # type: ignore[type-abstract]


@SCALERS.register
@dataclass(eq=False)
class PixelScaler(Scaler):
    """``x / 255`` for uint8 images; the inverse gives uint8 again."""

    TYPE: ClassVar[str] = "pixel"

    def transform(self, x: Tensor) -> Tensor:
        check_tensor(self, x)
        if x.dtype != torch.uint8 and x.dim() < 4:
            raise ValueError(f"PixelScaler scales images, got {x.dtype} with {x.dim()} axes: use another scaler")
        return x / 255

    def reverse_transform(self, x: Tensor) -> Tensor:
        check_tensor(self, x)
        return (x * 255).round().to(torch.uint8)

    def check(self, rows: Rows) -> None:
        if not rows.is_image:
            raise ValueError(
                f"PixelScaler scales uint8 images, observations have the shape {rows.observation_shape}: "
                "use 'min_max' or 'standard' for vectors"
            )

    def fit_with_env(self, env: Any) -> PixelScaler:
        space = env.observation_space
        if space.dtype != np.uint8:
            raise ValueError(f"PixelScaler scales uint8 images, the environment's observation_space is {space}")
        return self


class ObservationAffineScaler(Scaler, AffineScaler):
    """An affine scaler whose statistics, if they are those of an image, repeat for each stacked frame."""

    def _apply(self, x: Tensor, function: Callable[..., Tensor], constants: Constants) -> Tensor:
        if constants[0].dim() != 3:
            return function(x, *constants)
        return function(x.unflatten(1, (-1, constants[0].shape[0])), *constants).flatten(1, 2)


@SCALERS.register
@dataclass(eq=False, kw_only=True)
class MinMaxScaler(FromData, ObservationAffineScaler):
    """``(x - minimum) / (maximum - minimum)``, from 0 to 1 on the data; constant entries become 0.

    Parameters
    ----------
    maximum, minimum : values at each entry.
    """

    TYPE: ClassVar[str] = "min_max"
    STATISTICS = ("minimum", "maximum")
    maximum: ArrayLike | None = None
    minimum: ArrayLike | None = None

    def find_statistics(self, rows: Rows, indices: np.ndarray) -> tuple[Any, ...]:
        return minimum_maximum(rows.observations, indices)

    def find_bounds(self, env: Any) -> tuple[Any, ...]:
        return space_bounds(env.observation_space, "MinMaxScaler", "observation_space")

    def center_and_width(self) -> tuple[Any, Any]:
        low, high = ordered(self, "minimum", "maximum")
        return low, high - low


@SCALERS.register
@dataclass(eq=False, kw_only=True)
class StandardScaler(FromData, ObservationAffineScaler):
    """``(x - mean) / (std + eps)``; constant entries become 0.

    Parameters
    ----------
    mean, std : mean and population standard deviation at each entry.
    eps : bounds the division where an entry hardly varies.
    """

    TYPE: ClassVar[str] = "standard"
    STATISTICS = ("mean", "std")
    mean: ArrayLike | None = None
    std: ArrayLike | None = None
    eps: float = 1e-3

    def find_statistics(self, rows: Rows, indices: np.ndarray) -> tuple[Any, ...]:
        return mean_std(rows.observations, indices)

    def center_and_width(self) -> tuple[Any, Any]:
        return numbers(self, "mean"), not_negative(self, "std") + not_negative(self, "eps")


def register_scaler(cls: type[Scaler]) -> type[Scaler]:
    """Make an own observation scaler known by its ``TYPE``; usable as a decorator."""
    return SCALERS.register(cls)


def create_scaler(name: str, **params: Any) -> Scaler:
    """Observation scaler by name: ``pixel``, ``min_max``, ``standard`` or a registered one."""
    return SCALERS.create(name, **params)

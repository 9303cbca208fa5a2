"""Action scalers: ``min_max``. They act on continuous actions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ..dataset import Rows
from ..registry import Registry
from .base import ActionScaler, AffineScaler, FromData, ordered, space_bounds
from .statistics import minimum_maximum

ACTION_SCALERS: Registry[ActionScaler] = Registry("action scaler", ActionScaler)  # type: ignore[type-abstract]


@ACTION_SCALERS.register
@dataclass(eq=False, kw_only=True)
class MinMaxActionScaler(FromData, ActionScaler, AffineScaler):
    """``2 (a - minimum) / (maximum - minimum) - 1``, from -1 to 1 on the data; constant entries become 0.

    Parameters
    ----------
    maximum, minimum : values at each entry.
    """

    TYPE: ClassVar[str] = "min_max"
    STATISTICS = ("minimum", "maximum")
    maximum: ArrayLike | None = None
    minimum: ArrayLike | None = None

    def find_statistics(self, rows: Rows, indices: np.ndarray) -> tuple[Any, ...]:
        return minimum_maximum(rows.actions, indices)

    def find_bounds(self, env: Any) -> tuple[Any, ...]:
        return space_bounds(env.action_space, "MinMaxActionScaler", "action_space")

    def center_and_width(self) -> tuple[Any, Any]:
        low, high = ordered(self, "minimum", "maximum")
        return (high + low) / 2, (high - low) / 2


def register_action_scaler(cls: type[ActionScaler]) -> type[ActionScaler]:
    """Make an own action scaler known by its ``TYPE``; usable as a decorator."""
    return ACTION_SCALERS.register(cls)


def create_action_scaler(name: str, **params: Any) -> ActionScaler:
    """Action scaler by name: ``min_max`` or a registered one."""
    return ACTION_SCALERS.create(name, **params)

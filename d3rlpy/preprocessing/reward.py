"""Reward scalers: ``min_max``, ``standard``, ``clip``, ``multiply``, ``return``, ``shift``.

They act on each reward, before n-step sums are made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..dataset import Rows
from ..registry import Registry
from .base import AffineScaler, FromData, RewardScaler, check_tensor, not_negative, number, numbers, ordered
from .statistics import episode_returns, mean_std, minimum_maximum

REWARD_SCALERS: Registry[RewardScaler] = Registry("reward scaler", RewardScaler)  # type: ignore[type-abstract]


@REWARD_SCALERS.register
@dataclass(eq=False, kw_only=True)
class MinMaxRewardScaler(FromData, RewardScaler, AffineScaler):
    """``multiplier (r - minimum) / (maximum - minimum)``; rewards that are all equal become 0.

    Parameters
    ----------
    minimum, maximum : smallest and largest reward.
    multiplier : what the result is multiplied by.
    """

    TYPE: ClassVar[str] = "min_max"
    STATISTICS = ("minimum", "maximum")
    minimum: float | None = None
    maximum: float | None = None
    multiplier: float = 1.0

    def find_statistics(self, rows: Rows, indices: np.ndarray) -> tuple[Any, ...]:
        low, high = minimum_maximum(rows.rewards, indices)
        return float(low), float(high)

    def center_and_width(self) -> tuple[Any, Any]:
        low, high = ordered(self, "minimum", "maximum")
        return low, (high - low) / multiplier_of(self)


@REWARD_SCALERS.register
@dataclass(eq=False, kw_only=True)
class StandardRewardScaler(FromData, RewardScaler, AffineScaler):
    """``multiplier (r - mean) / (std + eps)``.

    Parameters
    ----------
    mean, std : mean and population standard deviation of rewards.
    eps : bounds the division where rewards hardly vary.
    multiplier : what the result is multiplied by.
    """

    TYPE: ClassVar[str] = "standard"
    STATISTICS = ("mean", "std")
    mean: float | None = None
    std: float | None = None
    eps: float = 1e-3
    multiplier: float = 1.0

    def find_statistics(self, rows: Rows, indices: np.ndarray) -> tuple[Any, ...]:
        mean, std = mean_std(rows.rewards, indices)
        return float(mean), float(std)

    def center_and_width(self) -> tuple[Any, Any]:
        return numbers(self, "mean"), (not_negative(self, "std") + not_negative(self, "eps")) / multiplier_of(self)


@REWARD_SCALERS.register
@dataclass(eq=False)
class ClipRewardScaler(RewardScaler):
    """``multiplier clip(r, low, high)``; the inverse only undoes the multiplier.

    Parameters
    ----------
    low, high : bounds of the reward before it is multiplied; None for no bound.
    multiplier : what the result is multiplied by.
    """

    TYPE: ClassVar[str] = "clip"
    low: float | None = -1.0
    high: float | None = 1.0
    multiplier: float = 1.0

    def transform(self, x: Tensor) -> Tensor:
        check_tensor(self, x)
        self.check_parameters()
        if self.low is not None:
            x = x.clamp(min=self.low)
        if self.high is not None:
            x = x.clamp(max=self.high)
        return x * self.multiplier

    def reverse_transform(self, x: Tensor) -> Tensor:
        check_tensor(self, x)
        return x / multiplier_of(self)

    def check_parameters(self) -> None:
        multiplier_of(self)
        bounds = [number(self, name) for name in ("low", "high") if getattr(self, name) is not None]
        if len(bounds) == 2 and bounds[1] < bounds[0]:
            ordered(self, "low", "high")


@REWARD_SCALERS.register
@dataclass(eq=False)
class MultiplyRewardScaler(RewardScaler, AffineScaler):
    """``multiplier r``.

    Parameters
    ----------
    multiplier : what rewards are multiplied by.
    """

    TYPE: ClassVar[str] = "multiply"
    multiplier: float

    def center_and_width(self) -> tuple[Any, Any]:
        return 0.0, 1.0 / multiplier_of(self)


@REWARD_SCALERS.register
@dataclass(eq=False, kw_only=True)
class ReturnBasedRewardScaler(FromData, RewardScaler, AffineScaler):
    """``multiplier r / (return_max - return_min)``, over the undiscounted returns of episodes.

    Where all returns are equal, rewards are only multiplied.

    Parameters
    ----------
    return_max, return_min : largest and smallest return of an episode.
    multiplier : what the result is multiplied by.
    """

    TYPE: ClassVar[str] = "return"
    STATISTICS = ("return_min", "return_max")
    return_max: float | None = None
    return_min: float | None = None
    multiplier: float = 1.0

    def find_statistics(self, rows: Rows, indices: np.ndarray) -> tuple[Any, ...]:
        returns = episode_returns(rows, indices)
        return float(returns.min()), float(returns.max())

    def center_and_width(self) -> tuple[Any, Any]:
        low, high = ordered(self, "return_min", "return_max")
        return 0.0, np.where(high > low, high - low, 1.0) / multiplier_of(self)


@REWARD_SCALERS.register
@dataclass(eq=False)
class ConstantShiftRewardScaler(RewardScaler, AffineScaler):
    """``multiplier (r + shift)``, or ``multiplier r + shift`` with ``multiply_first``.

    Parameters
    ----------
    shift : what is added.
    multiplier : what rewards are multiplied by.
    multiply_first : whether the product comes before the sum.
    """

    TYPE: ClassVar[str] = "shift"
    shift: float
    multiplier: float = 1.0
    multiply_first: bool = False

    def center_and_width(self) -> tuple[Any, Any]:
        multiplier = multiplier_of(self)
        return -number(self, "shift") / (multiplier if self.multiply_first else 1.0), 1.0 / multiplier


def multiplier_of(scaler: Any) -> float:
    """The multiplier of a scaler; ``ValueError`` if it is not a number, or 0, which nothing could undo."""
    multiplier = number(scaler, "multiplier")
    if multiplier == 0:
        raise ValueError(f"{type(scaler).__name__}: multiplier must not be 0")
    return multiplier


def register_reward_scaler(cls: type[RewardScaler]) -> type[RewardScaler]:
    """Make an own reward scaler known by its ``TYPE``; usable as a decorator."""
    return REWARD_SCALERS.register(cls)


def create_reward_scaler(name: str, **params: Any) -> RewardScaler:
    """Reward scaler by the name under which it is registered."""
    return REWARD_SCALERS.create(name, **params)

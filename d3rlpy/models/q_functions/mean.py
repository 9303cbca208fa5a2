"""``mean``: critics that know only the expected value of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..bodies import Encoder, EncoderWithAction
from .base import Q_FUNCTIONS, LinearQFunction, LinearValues, QFunctionFactory


class MeanValues(LinearValues):
    """Outputs are expected values; the error is squared, or Huber's for discrete actions (Mnih et al. 2015, DQN)."""

    def expected(self) -> Tensor:
        return self.outputs

    def all_distributions(self) -> Tensor:
        return self.outputs[..., None]

    def errors(self, target: Tensor, action: Tensor) -> Tensor:
        """``(target - q)^2`` or ``huber(target - q)``."""
        return self._loss(target, action, "none").mean(dim=-1)

    def error(self, target: Tensor, action: Tensor) -> Tensor:
        return self._loss(target, action, "mean")

    def _loss(self, target: Tensor, action: Tensor, reduction: str) -> Tensor:
        if target.dim() != 2:
            raise ValueError(f"target must have the shape (batch, values), got {tuple(target.shape)}")
        values = self.distributions(action)  # (K, B, 1)
        shape = (*values.shape[:-1], target.shape[1])
        loss = F.huber_loss if self.discrete else F.mse_loss
        return loss(values.expand(shape), target.expand(shape), reduction=reduction)


class MeanQFunction(LinearQFunction):
    """Critics with one output for each action."""

    values_type = MeanValues


@Q_FUNCTIONS.register
@dataclass(frozen=True)
class MeanQFunctionFactory(QFunctionFactory):
    """Critics that know only the expected value."""

    TYPE: ClassVar[str] = "mean"

    def create(
        self, encoder: Encoder | EncoderWithAction, action_size: int | None = None, n_critics: int = 1
    ) -> MeanQFunction:
        return MeanQFunction(encoder, action_size, n_critics)

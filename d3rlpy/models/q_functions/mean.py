"""``mean``: a critic that knows only the expected value of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..bodies import Encoder, EncoderWithAction
from .base import (
    Q_FUNCTIONS,
    ContinuousLinearQFunction,
    DiscreteLinearQFunction,
    QFunctionFactory,
    Readout,
)


class MeanReadout(Readout):
    """Outputs are expected values; the error is squared, or Huber's for discrete actions (Mnih et al. 2015, DQN)."""

    def __init__(self, discrete: bool):
        super().__init__()
        self.discrete = discrete

    def expected(self, outputs: Tensor) -> Tensor:
        return outputs

    def distributions(self, outputs: Tensor) -> Tensor:
        return outputs[..., None] if self.discrete else outputs

    def error(self, values: Tensor, target: Tensor) -> Tensor:
        """Mean of ``(target - q)^2`` or ``huber(target - q)``."""
        if target.dim() != 2:
            raise ValueError(f"target must have the shape (batch, values), got {tuple(target.shape)}")
        shape = (*values.shape[:-1], target.shape[1])
        loss = F.huber_loss if self.discrete else F.mse_loss
        return loss(values.expand(shape), target.expand(shape))


@Q_FUNCTIONS.register
@dataclass(frozen=True)
class MeanQFunctionFactory(QFunctionFactory):
    """Critics that know only the expected value."""

    TYPE: ClassVar[str] = "mean"

    def create_discrete(self, encoder: Encoder, action_size: int) -> DiscreteLinearQFunction:
        return DiscreteLinearQFunction(encoder, action_size, MeanReadout(discrete=True))

    def create_continuous(self, encoder: EncoderWithAction) -> ContinuousLinearQFunction:
        return ContinuousLinearQFunction(encoder, 1, MeanReadout(discrete=False))

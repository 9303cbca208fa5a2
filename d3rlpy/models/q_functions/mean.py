"""``mean``: a critic that knows only the expected value of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...functional import huber
from ..bodies import Encoder, EncoderWithAction
from .base import Q_FUNCTIONS, DiscreteQFunction, QFunction, QFunctionFactory


class DiscreteMeanQFunction(DiscreteQFunction):
    """Expected values of all actions, trained with Huber's loss (Mnih et al. 2015, DQN)."""

    def __init__(self, encoder: Encoder, action_size: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.feature_size, action_size)

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x))

    def distributions(self, x: Tensor) -> Tensor:
        return self(x)[..., None]

    def td_loss(self, target: Tensor, x: Tensor, action: Tensor) -> Tensor:
        """Mean of ``huber(target - Q(x, action))``."""
        return huber(target - self.distribution(x, action).expand_as(target)).mean()


class ContinuousMeanQFunction(QFunction):
    """Expected value of a pair, trained with the squared error."""

    def __init__(self, encoder: EncoderWithAction):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.feature_size, 1)

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, action))

    def distribution(self, x: Tensor, action: Tensor) -> Tensor:
        return self(x, action)

    def td_loss(self, target: Tensor, x: Tensor, action: Tensor) -> Tensor:
        """Mean of ``(target - Q(x, action))^2``."""
        return F.mse_loss(self(x, action).expand_as(target), target)


@Q_FUNCTIONS.register
@dataclass(frozen=True)
class MeanQFunctionFactory(QFunctionFactory):
    """Critics that know only the expected value."""

    TYPE: ClassVar[str] = "mean"

    def create_discrete(self, encoder: Encoder, action_size: int) -> DiscreteMeanQFunction:
        return DiscreteMeanQFunction(encoder, action_size)

    def create_continuous(self, encoder: EncoderWithAction) -> ContinuousMeanQFunction:
        return ContinuousMeanQFunction(encoder)

"""``qr``: a critic that knows quantiles of the return at fixed levels.

Paper: Dabney et al. 2018 (QR-DQN), arXiv:1710.10044.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...functional import quantile_huber_loss
from ..bodies import Encoder, EncoderWithAction
from .base import Q_FUNCTIONS, DiscreteQFunction, QFunction, QFunctionFactory


def midpoints(n_quantiles: int) -> Tensor:
    """Levels ``(2i + 1) / 2N`` of N quantiles of equal probability (Dabney et al. 2018, lemma 2)."""
    return (torch.arange(n_quantiles) + 0.5) / n_quantiles


class DiscreteQRQFunction(DiscreteQFunction):
    """Quantiles of all actions."""

    def __init__(self, encoder: Encoder, action_size: int, n_quantiles: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.feature_size, action_size * n_quantiles)
        self.n_quantiles = n_quantiles
        self.register_buffer("taus", midpoints(n_quantiles), persistent=False)

    taus: Tensor

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        return self.distributions(x).mean(dim=2)

    def distributions(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)).unflatten(1, (-1, self.n_quantiles))

    def td_loss(self, target: Tensor, x: Tensor, action: Tensor) -> Tensor:
        """Mean of the quantile Huber loss."""
        return quantile_huber_loss(self.distribution(x, action), target, self.taus).mean()


class ContinuousQRQFunction(QFunction):
    """Quantiles of a pair."""

    def __init__(self, encoder: EncoderWithAction, n_quantiles: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.feature_size, n_quantiles)
        self.register_buffer("taus", midpoints(n_quantiles), persistent=False)

    taus: Tensor

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, action)).mean(dim=1, keepdim=True)

    def distribution(self, x: Tensor, action: Tensor) -> Tensor:
        return self.head(self.encoder(x, action))

    def td_loss(self, target: Tensor, x: Tensor, action: Tensor) -> Tensor:
        """Mean of the quantile Huber loss."""
        return quantile_huber_loss(self.distribution(x, action), target, self.taus).mean()


@Q_FUNCTIONS.register
@dataclass(frozen=True)
class QRQFunctionFactory(QFunctionFactory):
    """Critics that know quantiles at fixed levels.

    Parameters
    ----------
    n_quantiles : number of quantiles N.
    """

    TYPE: ClassVar[str] = "qr"
    n_quantiles: int = 32

    def __post_init__(self) -> None:
        if self.n_quantiles < 1:
            raise ValueError(f"n_quantiles={self.n_quantiles} must be at least 1")

    def create_discrete(self, encoder: Encoder, action_size: int) -> DiscreteQRQFunction:
        return DiscreteQRQFunction(encoder, action_size, self.n_quantiles)

    def create_continuous(self, encoder: EncoderWithAction) -> ContinuousQRQFunction:
        return ContinuousQRQFunction(encoder, self.n_quantiles)

"""``qr``: critics that know quantiles of the return (Dabney et al. 2018, QR-DQN, arXiv:1710.10044)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...functional import quantile_huber_loss
from ..bodies import Encoder, EncoderWithAction
from .base import Q_FUNCTIONS, LinearQFunction, LinearValues, QFunctionFactory, check_counts
from .distribution import Distribution, Values


def midpoints(n_quantiles: int) -> Tensor:
    """Levels ``(2i + 1) / 2N`` of N quantiles of equal probability (Dabney et al. 2018, lemma 2)."""
    return (torch.arange(n_quantiles) + 0.5) / n_quantiles


def quantile_errors(quantiles: Tensor, target: Values, taus: Tensor) -> Tensor:
    """Quantile Huber loss ``(K, B)`` of quantiles ``(K, B, N)`` of the levels ``taus`` against any target."""
    if isinstance(target, Distribution):
        return quantile_huber_loss(quantiles, target.values, taus, target.probs)
    return quantile_huber_loss(quantiles, target, taus)


class QuantileValues(LinearValues):
    """Outputs are quantiles at fixed levels; the error is the quantile Huber loss."""

    def expected(self) -> Tensor:
        return self.heads().mean(dim=-1)

    def all_distributions(self) -> Tensor:
        return self.heads()

    def errors(self, target: Values, action: Tensor) -> Tensor:
        return quantile_errors(self.distributions(action), target, self.q_func.taus)


class QuantileQFunction(LinearQFunction):
    """Critics with N outputs for each action."""

    values_type = QuantileValues
    taus: Tensor

    def __init__(self, encoder: Encoder | EncoderWithAction, action_size: int | None, n_critics: int, n_quantiles: int):
        super().__init__(encoder, action_size, n_critics, n_quantiles)
        self.register_buffer("taus", midpoints(n_quantiles), persistent=False)


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
        check_counts(self, "n_quantiles")

    def create(
        self, encoder: Encoder | EncoderWithAction, action_size: int | None = None, n_critics: int = 1
    ) -> QuantileQFunction:
        return QuantileQFunction(encoder, action_size, n_critics, self.n_quantiles)

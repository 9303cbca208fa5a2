"""``qr``: a critic that knows quantiles of the return (Dabney et al. 2018, QR-DQN, arXiv:1710.10044)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...functional import quantile_huber_loss
from ..bodies import Encoder, EncoderWithAction
from .base import (
    Q_FUNCTIONS,
    ContinuousLinearQFunction,
    DiscreteLinearQFunction,
    QFunctionFactory,
    Readout,
)


def midpoints(n_quantiles: int) -> Tensor:
    """Levels ``(2i + 1) / 2N`` of N quantiles of equal probability (Dabney et al. 2018, lemma 2)."""
    return (torch.arange(n_quantiles) + 0.5) / n_quantiles


class QuantileReadout(Readout):
    """Outputs are quantiles at fixed levels; the error is the quantile Huber loss."""

    taus: Tensor

    def __init__(self, n_quantiles: int, discrete: bool):
        super().__init__()
        self.n_quantiles, self.discrete = n_quantiles, discrete
        self.register_buffer("taus", midpoints(n_quantiles), persistent=False)

    def expected(self, outputs: Tensor) -> Tensor:
        return self.distributions(outputs).mean(dim=-1, keepdim=not self.discrete)

    def distributions(self, outputs: Tensor) -> Tensor:
        return outputs.unflatten(-1, (-1, self.n_quantiles)) if self.discrete else outputs

    def error(self, values: Tensor, target: Tensor) -> Tensor:
        """Mean of the quantile Huber loss."""
        return quantile_huber_loss(values, target, self.taus).mean()


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

    def create_discrete(self, encoder: Encoder, action_size: int) -> DiscreteLinearQFunction:
        readout = QuantileReadout(self.n_quantiles, discrete=True)
        return DiscreteLinearQFunction(encoder, action_size * self.n_quantiles, readout)

    def create_continuous(self, encoder: EncoderWithAction) -> ContinuousLinearQFunction:
        return ContinuousLinearQFunction(encoder, self.n_quantiles, QuantileReadout(self.n_quantiles, discrete=False))

"""``fqf``: critics that know quantiles at levels of their own choice.

Paper: Yang et al. 2019, "Fully parameterized quantile function for distributional reinforcement learning",
arXiv:1911.02140. The quantile network is that of ``iqn``, with the difference named there.
Differs from the paper: prediction and target have fractions of their own, each of its own state (the paper uses one
set for both), and the values of a target count with the probabilities ``tau_{i+1} - tau_i`` that its definition of Z
gives them (its loss averages them with equal weights, which is the same where the fractions are equally spaced).
One optimizer serves both networks: ``fraction_rate`` takes the place of the second learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from ..bodies import Encoder, EncoderWithAction
from ..mlp import Linear
from .base import Q_FUNCTIONS, QFunctionFactory, check_counts
from .distribution import Distribution, Values
from .iqn import ImplicitQFunction, ImplicitValues, linear
from .qr import quantile_errors


class FractionValues(ImplicitValues):
    """Features, weights, and the fractions ``tau_0 = 0 < tau_1 < ... < tau_N = 1`` proposed for them."""

    @cached_property
    def log_probs(self) -> Tensor:
        """``log (tau_{i+1} - tau_i)`` ``(K, B, N)``; no gradient reaches the features."""
        logits = linear(self.features.detach(), self.weights["proposal"], self.weights["proposal_bias"])
        return torch.log_softmax(self.q_func.fraction_rate * logits, dim=-1)

    @cached_property
    def taus(self) -> Tensor:
        """``tau_1 ... tau_N`` ``(K, B, N)``."""
        return self.log_probs.exp().cumsum(dim=-1)

    @cached_property
    def midway(self) -> Tensor:
        """``(tau_i + tau_{i+1}) / 2`` ``(K, B, N)``, without gradient."""
        return self.taus.detach() - self.log_probs.detach().exp() / 2

    def quantiles(self, taus: Tensor) -> Tensor:
        """``Z_tau(x, a)`` ``(K, B, A, N)`` at levels of each row, ``(K, B, N)``."""
        scaled = self.features[:, :, None] * self.weights["head"][:, None]  # (K, B, A, F)
        return scaled @ self.embedding(taus).transpose(2, 3) + self.weights["head_bias"][:, None, :, None]

    @cached_property
    def known(self) -> Distribution:
        """``sum_i (tau_{i+1} - tau_i) delta_{Z(midway_i)}`` ``(K, B, A, N)``: quantiles and their intervals' widths."""
        values = self.quantiles(self.midway)
        return Distribution(values, self.log_probs.detach().exp()[:, :, None].expand_as(values))

    def expected(self) -> Tensor:
        """``sum_i (tau_{i+1} - tau_i) Z(midway_i)``."""
        return self.known.expected()

    def all_distributions(self) -> Distribution:
        return self.known

    def errors(self, target: Values, action: Tensor) -> Tensor:
        """Quantile Huber loss midway, plus what moves the fractions and has the value 0."""
        own = self.of_action(self.known.values, action)
        return quantile_errors(own, target, self.midway) + self.proposal_loss(own.detach(), action)

    def proposal_loss(self, own: Tensor, action: Tensor) -> Tensor:
        """0 ``(K, B)``, with the gradient of the fractions: ``dW_1 / dtau_i`` and that of ``-c H(q)``.

        ``dW_1 / dtau_i = 2 Z(tau_i) - Z(midway_i) - Z(midway_{i-1})``, for 0 < i < N, is itself the derivative, so it
        multiplies ``tau_i`` as a constant.
        """
        taus = self.taus[..., :-1]
        with torch.no_grad():
            slope = 2.0 * self.of_action(self.quantiles(taus), action) - own[..., 1:] - own[..., :-1]
        loss = (slope * taus).sum(dim=-1)
        if self.q_func.entropy_coeff > 0.0:
            loss = loss + self.q_func.entropy_coeff * (self.log_probs.exp() * self.log_probs).sum(dim=-1)
        return (loss - loss.detach()) / self.q_func.fraction_rate


class FractionQFunction(ImplicitQFunction):
    """Critics of ``iqn`` with a linear layer that proposes fractions.

    The layer's outputs are multiplied by ``fraction_rate``, its loss is divided by it: a step of any optimizer moves
    the fractions by that share of what it would otherwise.
    """

    def __init__(
        self,
        encoder: Encoder | EncoderWithAction,
        action_size: int | None,
        n_critics: int,
        options: FQFQFunctionFactory,
    ):
        super().__init__(encoder, action_size, n_critics, options.n_quantiles, options.embed_size)
        self.proposal = Linear(encoder.feature_size, n_critics * options.n_quantiles)
        self.entropy_coeff, self.fraction_rate = options.entropy_coeff, options.fraction_rate

    def evaluate(self, x: Tensor, action: Tensor | None = None) -> FractionValues:
        return FractionValues(self.features(x, action), self.weights(), self)

    def weights(self) -> dict[str, Tensor]:
        return super().weights() | {
            "proposal": self.per_critic(self.proposal.weight),
            "proposal_bias": self.per_critic(self.proposal.bias),
        }


@Q_FUNCTIONS.register
@dataclass(frozen=True)
class FQFQFunctionFactory(QFunctionFactory):
    """Critics that know quantiles at levels of their own choice.

    Parameters
    ----------
    n_quantiles : number of quantiles N.
    embed_size : cosines that describe a level.
    entropy_coeff : weight of the entropy of the intervals, which keeps fractions apart.
    fraction_rate : learning rate of the fractions in units of that of the critics. The paper's ratio is 5e-5: in short
        runs the fractions hardly leave equal distances. A greater one lets them adapt sooner.
    """

    TYPE: ClassVar[str] = "fqf"
    n_quantiles: int = 32
    embed_size: int = 64
    entropy_coeff: float = 0.0
    fraction_rate: float = 5e-5

    def __post_init__(self) -> None:
        check_counts(self, "n_quantiles", "embed_size")
        if not self.entropy_coeff >= 0.0:
            raise ValueError(f"entropy_coeff={self.entropy_coeff!r} must be at least 0")
        if not 0.0 < self.fraction_rate <= 1.0:
            raise ValueError(f"fraction_rate={self.fraction_rate!r} must be greater than 0 and at most 1")

    def create(
        self, encoder: Encoder | EncoderWithAction, action_size: int | None = None, n_critics: int = 1
    ) -> FractionQFunction:
        return FractionQFunction(encoder, action_size, n_critics, self)

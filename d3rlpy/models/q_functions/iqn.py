"""``iqn``: critics that know the quantile function of the return at any level.

Paper: Dabney et al. 2018, "Implicit quantile networks for distributional reinforcement learning", arXiv:1806.06923.
Differs from the paper: the whole encoder is its psi and f is linear, so the levels meet the features behind the
last hidden layer and not before it. Then ``Z_tau(x, a) = sum_j w_aj psi_j(x) phi_j(tau) + b_a``: for given levels a
linear layer. Expected values are taken at fixed levels, the midpoints of ``n_greedy_quantiles`` intervals, where the
paper draws K = 32 levels, so that ``predict`` is deterministic. Levels of losses and targets are drawn, independently
of each other, but all rows of a batch have the same, which makes a loss many times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...randomness import uniform
from ..bodies import Encoder, EncoderWithAction, encode_pairs
from ..mlp import Linear
from .base import Q_FUNCTIONS, QFunction, QFunctionFactory, QValues, check_counts
from .distribution import Values
from .qr import midpoints, quantile_errors


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x W^T + b`` of each critic, ``(K, B, out)``: inputs ``(1 or K, B, in)``, weights ``(K, out, in)``."""
    return torch.baddbmm(bias[:, None], x.expand(weight.shape[0], -1, -1), weight.transpose(1, 2)).to(bias.dtype)


class ImplicitValues(QValues):
    """Features, and the weights that make values at any level of them.

    Parameters
    ----------
    features : ``(1, B, F)``, common to all critics, or ``(K, B, F)``.
    weights : the parameters of the K critics by name, each with a leading axis K.
    q_func : the Q function of one of the critics, which knows constants that all have in common.
    """

    def __init__(self, features: Tensor, weights: dict[str, Tensor], q_func: Any):
        self.features, self.weights, self.q_func, self.discrete = features, weights, q_func, q_func.discrete

    def __len__(self) -> int:
        return len(self.weights["head"])

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.features[:, index], self.weights, self.q_func)

    @classmethod
    def join(cls, values: Sequence[Self]) -> Self:
        weights = {name: torch.cat([v.weights[name] for v in values]) for name in values[0].weights}
        return cls(torch.cat([v.features for v in values]), weights, values[0].q_func)

    def embedding(self, taus: Tensor) -> Tensor:
        """``phi_j(tau) = relu(sum_k cos(pi k tau) w_kj + b_j)``, k from 0 (eq. 4): ``(..., N)`` to ``(K, ..., N, F)``.

        ``taus`` begin with the axis K, or with 1 if all critics take the same.
        """
        cosines = torch.cos(taus[..., None] * self.q_func.frequencies)  # (1 or K, ..., N, E)
        z = linear(cosines.flatten(1, -2), self.weights["embed"], self.weights["embed_bias"])
        return z.relu_().unflatten(1, taus.shape[1:])

    def quantiles(self, taus: Tensor) -> Tensor:
        """``Z_tau(x, a)`` ``(K, B, A, N)`` at levels ``(N,)``."""
        weight = self.weights["head"][:, :, None] * self.embedding(taus[None])[:, None]  # (K, A, N, F)
        z = self.features @ weight.flatten(1, 2).transpose(1, 2)  # (K, B, A N)
        return z.unflatten(2, weight.shape[1:3]) + self.weights["head_bias"][:, None, :, None]

    def draw_taus(self) -> Tensor:
        """Levels ``(N,)`` from U(0, 1)."""
        return uniform(self.q_func.n_quantiles, self.q_func.taus)

    def expected(self) -> Tensor:
        phi = self.embedding(self.q_func.taus[None]).mean(dim=1)  # (K, F)
        return linear(self.features, self.weights["head"] * phi[:, None], self.weights["head_bias"])

    def all_distributions(self) -> Values:
        return self.quantiles(self.draw_taus())

    def errors(self, target: Values, action: Tensor) -> Tensor:
        """Quantile Huber loss at drawn levels (eq. 3), the same for all rows and critics."""
        taus = self.draw_taus()
        return quantile_errors(self.of_action(self.quantiles(taus), action), target, taus)


class ImplicitQFunction(QFunction):
    """Critics whose heads multiply features with an embedding of the level.

    Parameters
    ----------
    encoder : features of the observation, or of observation and action.
    action_size, n_critics : as in ``QFunction``.
    n_quantiles : number of levels in a loss or a target.
    embed_size : number of cosines that describe a level.
    n_fixed : number of fixed levels for expected values.
    """

    takes_many = True
    frequencies: Tensor
    taus: Tensor

    def __init__(
        self,
        encoder: Encoder | EncoderWithAction,
        action_size: int | None,
        n_critics: int,
        n_quantiles: int,
        embed_size: int,
        n_fixed: int = 1,
    ):
        super().__init__()
        self.action_size, self.n_critics, self.n_quantiles = action_size, n_critics, n_quantiles
        self.encoder = encoder
        self.embed = Linear(embed_size, n_critics * encoder.feature_size, relu=True)
        self.head = Linear(encoder.feature_size, n_critics * self.n_actions)
        self.register_buffer("frequencies", math.pi * torch.arange(embed_size), persistent=False)
        self.register_buffer("taus", midpoints(n_fixed), persistent=False)

    def evaluate(self, x: Tensor, action: Tensor | None = None) -> ImplicitValues:
        return ImplicitValues(self.features(x, action), self.weights(), self)

    def features(self, x: Tensor, action: Tensor | None) -> Tensor:
        """``(1, B, F)``."""
        return (self.encoder(x) if action is None else encode_pairs(self.encoder, x, action))[None]

    def weights(self) -> dict[str, Tensor]:
        """Parameters of the heads, critic by critic."""
        return {
            "embed": self.per_critic(self.embed.weight),
            "embed_bias": self.per_critic(self.embed.bias),
            "head": self.per_critic(self.head.weight),
            "head_bias": self.per_critic(self.head.bias),
        }

    def per_critic(self, parameter: Tensor) -> Tensor:
        return parameter.unflatten(0, (self.n_critics, -1))


@Q_FUNCTIONS.register
@dataclass(frozen=True)
class IQNQFunctionFactory(QFunctionFactory):
    """Critics that know the quantile function at any level.

    Parameters
    ----------
    n_quantiles : levels drawn for a loss or a target, N and N' of the paper.
    n_greedy_quantiles : fixed levels for expected values, K of the paper.
    embed_size : cosines that describe a level, n of the paper.
    """

    TYPE: ClassVar[str] = "iqn"
    n_quantiles: int = 64
    n_greedy_quantiles: int = 32
    embed_size: int = 64

    def __post_init__(self) -> None:
        check_counts(self, "n_quantiles", "n_greedy_quantiles", "embed_size")

    def create(
        self, encoder: Encoder | EncoderWithAction, action_size: int | None = None, n_critics: int = 1
    ) -> ImplicitQFunction:
        sizes = self.n_quantiles, self.embed_size, self.n_greedy_quantiles
        return ImplicitQFunction(encoder, action_size, n_critics, *sizes)

"""``c51``: critics that know the probabilities of fixed values of the return.

Paper: Bellemare, Dabney, Munos 2017, "A distributional perspective on reinforcement learning", arXiv:1707.06887,
algorithm 1. Differs from the paper: it serves continuous actions too. A target that lies on an atom keeps its whole
probability there (as printed, the algorithm loses it, since lower and upper index are the same).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..bodies import Encoder, EncoderWithAction
from .base import Q_FUNCTIONS, LinearQFunction, LinearValues, QFunctionFactory, check_counts
from .distribution import Distribution, Values, as_distribution

MUCH = 0.1
"""Share of the targets' probability outside the support from which on a warning is due."""


def project(target: Values, support: Tensor) -> Tensor:
    """Probabilities ``(B, n)`` of the atoms that are nearest to ``target`` ``(B, M)`` (Bellemare et al. 2017, eq. 7).

    Each value, clipped to the support, shares its probability between its two neighbours in proportion to its
    nearness: ``m_i = sum_j p_j max(0, 1 - |y_j - z_i| / dz)``.
    """
    target = as_distribution(target)
    low, high = support[0], support[-1]
    position = (target.values.clamp(low, high) - low) * ((len(support) - 1) / (high - low))  # (B, M), in atoms
    atoms = torch.arange(len(support), dtype=position.dtype, device=position.device)
    share = (1.0 - (position[..., None] - atoms).abs()).clamp(min=0.0)  # (B, M, n)
    return (target.probs[..., None] * share).sum(dim=1)


def outside(target: Values, support: Tensor) -> Tensor:
    """Mean probability with which ``target`` ``(B, M)`` lies outside the support, a 0-d tensor."""
    target = as_distribution(target)
    beyond = (target.values < support[0]) | (target.values > support[-1])
    return (target.probs * beyond).sum(dim=-1).mean()


class CategoricalValues(LinearValues):
    """Outputs are logits of the atoms; the error is the cross entropy with the projected target."""

    def expected(self) -> Tensor:
        return (torch.softmax(self.heads(), dim=-1) * self.q_func.support).sum(dim=-1)

    def all_distributions(self) -> Distribution:
        probs = torch.softmax(self.heads(), dim=-1)
        return Distribution(self.q_func.support.expand_as(probs), probs)

    def errors(self, target: Values, action: Tensor) -> Tensor:
        """``-sum_i m_i log p_i(s, a)`` (algorithm 1)."""
        self.q_func.watch(target)
        log_probs = torch.log_softmax(self.of_action(self.heads(), action), dim=-1)
        return -(project(target, self.q_func.support) * log_probs).sum(dim=-1)


class CategoricalQFunction(LinearQFunction):
    """Critics with one logit for each atom and action."""

    values_type = CategoricalValues
    support: Tensor
    share_outside: Tensor

    def __init__(self, encoder: Encoder | EncoderWithAction, action_size: int | None, n_critics: int, support: Tensor):
        super().__init__(encoder, action_size, n_critics, len(support))
        self.register_buffer("support", support, persistent=False)
        self.register_buffer("share_outside", torch.zeros(()), persistent=False)
        self.told = False

    @torch.no_grad()
    def watch(self, target: Values) -> None:
        """Keep a running mean, over about 100 batches, of the share of targets outside the support."""
        self.share_outside.copy_(self.share_outside.lerp(outside(target, self.support).to(self.share_outside), 0.01))

    def complaint(self) -> str | None:
        """What is wrong with the support, once; it waits for the device, so it is asked between epochs."""
        share = 0.0 if self.told else float(self.share_outside)
        if share < MUCH:
            return None
        self.told = True
        low, high = self.support[[0, -1]].tolist()
        return (
            f"{share:.0%} of the targets lie outside [v_min, v_max] = [{low:g}, {high:g}] of the Q function 'c51', "
            "which cuts them off: widen it to the returns that can occur, or scale the rewards"
        )


@Q_FUNCTIONS.register
@dataclass(frozen=True)
class C51QFunctionFactory(QFunctionFactory):
    """Critics that know the probabilities of fixed values.

    Parameters
    ----------
    n_atoms : number of values, evenly spaced.
    v_min, v_max : the smallest and largest of them, in units of scaled returns.
    """

    TYPE: ClassVar[str] = "c51"
    n_atoms: int = 51
    v_min: float = -10.0
    v_max: float = 10.0

    def __post_init__(self) -> None:
        check_counts(self, "n_atoms")
        if self.n_atoms < 2:
            raise ValueError(f"n_atoms={self.n_atoms} must be at least 2")
        if not -math.inf < self.v_min < self.v_max < math.inf:
            raise ValueError(f"v_min={self.v_min!r} must be less than v_max={self.v_max!r}, both finite")

    def create(
        self, encoder: Encoder | EncoderWithAction, action_size: int | None = None, n_critics: int = 1
    ) -> CategoricalQFunction:
        support = torch.linspace(self.v_min, self.v_max, self.n_atoms)
        return CategoricalQFunction(encoder, action_size, n_critics, support)

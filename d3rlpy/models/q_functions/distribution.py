"""Distributions of returns, and how those of several critics or actions become one.

A distribution of N values of equal probability is a plain tensor ``(..., N)``. Where probabilities differ it is a
``Distribution``, which can be shifted and scaled like a tensor. What takes or gives either is annotated ``Values``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

Values: TypeAlias = Any
"""A tensor ``(..., N)`` or a ``Distribution``."""

REDUCTIONS = ("min", "max", "mean", "mix")


@dataclass(frozen=True, eq=False)
class Distribution:
    """Values ``(..., N)`` with probabilities ``(..., N)``.

    Adding and multiplying moves the values, so that ``r + gamma * z`` is the distribution of ``r + gamma Z``; numbers
    and tensors ``(..., 1)`` serve for that. It is no tensor beyond that: to mix, use ``mixture``.

    >>> z = 1.0 + 0.5 * Distribution(torch.tensor([0.0, 2.0]), torch.tensor([0.25, 0.75]))
    >>> z.values, z.expected()
    (tensor([1., 2.]), tensor(1.7500))
    """

    values: Tensor
    probs: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def expected(self) -> Tensor:
        """Expected values, ``(...)``."""
        return (self.probs * self.values).sum(dim=-1)

    def map(self, function: Callable[[Tensor], Tensor]) -> Distribution:
        """The same change of shape for values and probabilities."""
        return Distribution(function(self.values), function(self.probs))

    def __add__(self, shift: Tensor | float) -> Distribution:
        return Distribution(self.values + shift, self.probs)

    def __sub__(self, shift: Tensor | float) -> Distribution:
        return Distribution(self.values - shift, self.probs)

    def __mul__(self, scale: Tensor | float) -> Distribution:
        return Distribution(self.values * scale, self.probs)

    __radd__, __rmul__ = __add__, __mul__


def reshaped(values: Values, function: Callable[[Tensor], Tensor]) -> Values:
    """A function that moves entries, applied to a tensor or to both parts of a distribution."""
    return values.map(function) if isinstance(values, Distribution) else function(values)


def expected(values: Values) -> Tensor:
    """Expected values ``(...)`` of ``(..., N)``."""
    return values.expected() if isinstance(values, Distribution) else values.mean(dim=-1)


def as_distribution(values: Values) -> Distribution:
    """The same with explicit probabilities."""
    if isinstance(values, Distribution):
        return values
    return Distribution(values, torch.full_like(values, 1.0 / values.shape[-1]))


def pick_action(values: Values, action: Tensor) -> Values:
    """Entries ``(..., B, N)`` of ``values`` ``(..., B, A, N)`` at the actions ``(B,)`` int64."""
    index = action[:, None, None].expand(*values.shape[:-2], 1, values.shape[-1])
    return reshaped(values, lambda t: t.gather(-2, index).squeeze(-2))


def mixture(parts: Sequence[Distribution], weights: Sequence[Tensor | float]) -> Distribution:
    """With probability ``weights[i]`` what ``parts[i]`` gives: all values, ``(..., N_1 + N_2 + ...)``."""
    values = torch.cat([p.values for p in parts], dim=-1)
    return Distribution(values, torch.cat([w * p.probs for p, w in zip(parts, weights, strict=True)], dim=-1))


def reduce_values(values: Tensor, reduction: str = "min", lam: float = 0.75) -> Tensor:
    """One value per entry from those of K critics, ``(K, ...)`` to ``(...)``.

    ``min``, ``max``, ``mean``, or ``mix``: ``lam min + (1 - lam) max`` (Fujimoto et al. 2019, BCQ, eq. 13).
    """
    if reduction == "min":
        return values.amin(dim=0)
    if reduction == "max":
        return values.amax(dim=0)
    if reduction == "mean":
        return values.mean(dim=0)
    if reduction == "mix":
        return lam * values.amin(dim=0) + (1.0 - lam) * values.amax(dim=0)
    raise ValueError(f"reduction={reduction!r} is unknown, it must be one of {REDUCTIONS}")


def reduce_distributions(distributions: Values, reduction: str = "min", lam: float = 0.75) -> Values:
    """One distribution per entry from those of K critics, ``(K, ..., N)`` to ``(..., N)``.

    ``min`` and ``max`` take the whole distribution of the critic whose expected value is the smallest or
    largest, separately for each entry: a minimum of each quantile would be the distribution of no critic.
    ``mean`` and ``mix`` average values of equal probability one by one, and mix explicit probabilities.
    """
    if reduction in REDUCTIONS and distributions.shape[0] == 1:
        return reshaped(distributions, lambda t: t[0])
    explicit = isinstance(distributions, Distribution)
    if reduction not in REDUCTIONS or (not explicit and (distributions.shape[-1] == 1 or reduction == "mean")):
        return reduce_values(distributions, reduction, lam)
    n_critics = distributions.shape[0]
    if reduction == "mean":
        return mixture([distributions.map(lambda t, k=k: t[k]) for k in range(n_critics)], [1 / n_critics] * n_critics)
    means = expected(distributions)  # (K, ...)

    def of_critic(index: Tensor) -> Values:
        index = index[None, ..., None].expand(1, *distributions.shape[1:])
        return reshaped(distributions, lambda t: t.gather(0, index).squeeze(0))

    if reduction == "min":
        return of_critic(means.argmin(dim=0))
    if reduction == "max":
        return of_critic(means.argmax(dim=0))
    low, high = of_critic(means.argmin(dim=0)), of_critic(means.argmax(dim=0))
    return mixture([low, high], [lam, 1.0 - lam]) if explicit else lam * low + (1.0 - lam) * high


def expectation_over_actions(distributions: Values, probs: Tensor) -> Values:
    """The distribution ``(B, M)`` of an action drawn with ``probs`` ``(B, A)``, from those of all, ``(B, A, N)``.

    Values of equal probability are averaged one by one: quantiles of the same level, M = N. Explicit probabilities
    are mixed, M = A N.
    """
    if isinstance(distributions, Distribution):
        weighted = Distribution(distributions.values, probs[..., None] * distributions.probs)
        return weighted.map(lambda t: t.flatten(1))
    return (probs[..., None] * distributions).sum(dim=1)

"""``QEnsemble``: K critics behind one interface, and the ways in which their values become one.

The critic axis always comes first. How the critics are computed is this file's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..encoders import EncoderFactory, create_encoder, create_encoder_with_action
from .base import Q_FUNCTIONS, DiscreteQFunction, QFunction, QFunctionFactory

REDUCTIONS = ("min", "max", "mean", "mix")


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


def reduce_distributions(distributions: Tensor, reduction: str = "min", lam: float = 0.75) -> Tensor:
    """One distribution per entry from those of K critics, ``(K, ..., N)`` to ``(..., N)``.

    ``min`` and ``max`` take the whole distribution of the critic whose expected value is the smallest or
    largest, separately for each entry: a minimum of each quantile would be the distribution of no critic.
    """
    if distributions.shape[-1] == 1 or reduction not in ("min", "max", "mix"):
        return reduce_values(distributions, reduction, lam)
    expected = distributions.mean(dim=-1)  # (K, ...)

    def of_critic(index: Tensor) -> Tensor:
        index = index[None, ..., None].expand(1, *distributions.shape[1:])
        return distributions.gather(0, index).squeeze(0)

    if reduction == "min":
        return of_critic(expected.argmin(dim=0))
    if reduction == "max":
        return of_critic(expected.argmax(dim=0))
    return lam * of_critic(expected.argmin(dim=0)) + (1.0 - lam) * of_critic(expected.argmax(dim=0))


class QEnsemble(nn.Module):
    """K critics of the same kind with independent weights."""

    def __init__(self, critics: Iterable[QFunction]):
        super().__init__()
        self.critics = nn.ModuleList(critics)

    def __len__(self) -> int:
        return len(self.critics)

    def __iter__(self) -> Iterator[QFunction]:
        return iter(self.critics)  # type: ignore[arg-type]

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        """Expected values ``(K, B, 1)`` of continuous actions, or ``(K, B, A)`` of all discrete ones."""
        return torch.stack([critic(x) if action is None else critic(x, action) for critic in self])

    def td_loss(self, target: Tensor, x: Tensor, action: Tensor) -> Tensor:
        """Sum over critics of their mean error against the same target ``(B, 1)`` or ``(B, N)``."""
        losses = [critic.td_loss(target, x, action) for critic in self]
        return sum(losses[1:], start=losses[0])

    def target(self, x: Tensor, action: Tensor, reduction: str = "min", lam: float = 0.75) -> Tensor:
        """Values ``(B, 1)`` or distributions ``(B, N)`` of the pairs, reduced over critics."""
        each = torch.stack([critic.distribution(x, action) for critic in self])
        return reduce_distributions(each, reduction, lam)

    def target_all(self, x: Tensor, reduction: str = "min", lam: float = 0.75) -> Tensor:
        """``target`` of all discrete actions, ``(B, A, N)``."""
        each = torch.stack([cast(DiscreteQFunction, critic).distributions(x) for critic in self])
        return reduce_distributions(each, reduction, lam)

    def detached(self, x: Tensor, action: Tensor, critic: int | None = 0) -> Tensor:
        """Expected values for an actor step: gradients reach ``x`` and ``action`` but no critic.

        ``(B, 1)`` of one critic, or ``(K, B, 1)`` of all for ``critic=None``. The critics act as in
        evaluation: no dropout, and batch norm neither uses nor changes statistics of the batch.
        """
        module = self if critic is None else self.critics[critic]
        with frozen(module):
            return module(x, action)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """``module`` in evaluation mode and without gradients for its parameters, afterwards as it was before."""
    params = [p for p in module.parameters() if p.requires_grad]
    training = [m for m in module.modules() if m.training]
    for p in params:
        p.requires_grad = False
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for p in params:
            p.requires_grad = True
        for m in training:
            m.training = True


def create_q_functions(
    q_func_factory: str | dict[str, Any] | QFunctionFactory,
    encoder_factory: str | dict[str, Any] | EncoderFactory,
    observation_shape: tuple[int, ...],
    action_size: int,
    n_critics: int,
    discrete: bool = False,
) -> QEnsemble:
    """Critics of one kind, each with an encoder of its own."""
    factory = Q_FUNCTIONS.resolve(q_func_factory)

    def critic() -> QFunction:
        if discrete:
            return factory.create_discrete(create_encoder(encoder_factory, observation_shape), action_size)
        encoder = create_encoder_with_action(encoder_factory, observation_shape, action_size)
        return factory.create_continuous(encoder)

    return QEnsemble(critic() for _ in range(n_critics))

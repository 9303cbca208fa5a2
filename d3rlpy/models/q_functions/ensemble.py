"""``QEnsemble``: K critics behind one interface, and the ways in which their values become one.

The critic axis always comes first. How the critics are computed is this file's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..bodies import repeat_rows, side_by_side
from ..encoders import EncoderFactory, create_encoder, create_encoder_with_action
from ..mlp import mlp
from .base import (
    Q_FUNCTIONS,
    DiscreteQFunction,
    LinearQFunction,
    QFunction,
    QFunctionFactory,
    Readout,
    pick_action,
)

CHANGE_IN_TRAINING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
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
    if reduction in REDUCTIONS and len(distributions) == 1:
        return distributions[0]
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


class QValues:
    """Values of all critics for one batch of observations, computed once and used for several things.

    Continuous actions are given when it is made, discrete ones when a value of theirs is wanted.
    """

    def __init__(self, critics: Sequence[QFunction], x: Tensor, action: Tensor | None):
        self.critics, self.x, self.action = critics, x, action

    def expected(self) -> Tensor:
        """Expected values ``(K, B, 1)`` of continuous actions, or ``(K, B, A)`` of all discrete ones."""
        return torch.stack([c(self.x) if self.action is None else c(self.x, self.action) for c in self.critics])

    def distributions(self, action: Tensor) -> Tensor:
        """Values of equal probability, ``(K, B, N)``."""
        return torch.stack([critic.distribution(self.x, action) for critic in self.critics])

    def all_distributions(self) -> Tensor:
        """Values of equal probability of all discrete actions, ``(K, B, A, N)``."""
        return torch.stack([cast(DiscreteQFunction, critic).distributions(self.x) for critic in self.critics])

    def td_loss(self, target: Tensor, action: Tensor) -> Tensor:
        """Sum over critics of their mean error against the same target ``(B, 1)`` or ``(B, N)``."""
        losses = [critic.td_loss(target, self.x, action) for critic in self.critics]
        return sum(losses[1:], start=losses[0])


class LinearQValues(QValues):
    """``QValues`` of critics that end in a linear head: their outputs, computed together and kept."""

    def __init__(self, outputs: Tensor, readout: Readout, discrete: bool):
        self.outputs, self.readout, self.discrete = outputs, readout, discrete  # outputs: (K, B, ...)

    def expected(self) -> Tensor:
        return self.readout.expected(self.outputs)

    def distributions(self, action: Tensor) -> Tensor:
        values = self.readout.distributions(self.outputs)
        return pick_action(values, action) if self.discrete else values

    def all_distributions(self) -> Tensor:
        return self.readout.distributions(self.outputs)

    def td_loss(self, target: Tensor, action: Tensor) -> Tensor:
        error = self.readout.error(self.distributions(action), target)
        return error if len(self.outputs) == 1 else len(self.outputs) * error  # a mean of all rows to a sum of means


class QEnsemble(nn.Module):
    """K critics of the same kind with independent weights."""

    def __init__(self, critics: Iterable[QFunction]):
        super().__init__()
        self.critics = nn.ModuleList(critics)
        self.discrete = isinstance(self.critics[0], DiscreteQFunction)
        self.linear = all(isinstance(c, LinearQFunction) for c in self.critics)
        each = [c.weights if isinstance(c, LinearQFunction) else None for c in self.critics]
        self.changes_in_training = any(isinstance(m, CHANGE_IN_TRAINING) for m in self.modules())
        self.plain_weights = cast(list[list[Tensor]], each) if all(each) else None  # networks computed as one
        self.flat_weights = [p for weights in self.plain_weights or [] for p in weights]

    def __len__(self) -> int:
        return len(self.critics)

    def __iter__(self) -> Iterator[QFunction]:
        return iter(cast(Iterable[QFunction], self.critics))

    def evaluate(self, x: Tensor, action: Tensor | None = None) -> QValues:
        """Values of observations, and of continuous actions, for several uses.

        Actions are ``(B, A)``, or n for each observation, ``(B, n, A)``: then there are ``B n`` rows of values.
        """
        if not self.linear:
            if action is not None and action.dim() == 3:
                x, action = repeat_rows(x, action.shape[1]), action.flatten(0, 1)
            return QValues(list(self), x, action)
        critics = cast(Sequence[LinearQFunction], self.critics)
        if self.plain_weights is not None:
            outputs = mlp(x if action is None else side_by_side(x, action), len(self), self.flat_weights)
        else:
            outputs = torch.stack([critic.outputs(x, action) for critic in critics])
        return LinearQValues(outputs, critics[0].readout, self.discrete)

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        """Expected values ``(K, B, 1)`` of continuous actions, or ``(K, B, A)`` of all discrete ones."""
        return self.evaluate(x, action).expected()

    def td_loss(self, target: Tensor, x: Tensor, action: Tensor) -> Tensor:
        """Sum over critics of their mean error against the same target ``(B, 1)`` or ``(B, N)``."""
        return self.evaluate(x, None if self.discrete else action).td_loss(target, action)

    def best_action(self, x: Tensor) -> Tensor:
        """The discrete action ``(B,)`` that the mean of the critics prefers; the critics act as in evaluation."""
        if self.changes_in_training and self.training:
            with frozen(self):
                return self(x).mean(dim=0).argmax(dim=1)
        values = self.evaluate(x).expected()  # (K, B, A)
        return (values[0] if len(self.critics) == 1 else values.mean(dim=0)).argmax(dim=1)

    def target(self, x: Tensor, action: Tensor, reduction: str = "min", lam: float = 0.75) -> Tensor:
        """Values ``(B, 1)`` or distributions ``(B, N)`` of the pairs, reduced over critics."""
        values = self.evaluate(x, None if self.discrete else action)
        return reduce_distributions(values.distributions(action), reduction, lam)

    def greedy_target(self, x: Tensor, reduction: str = "min", lam: float = 0.75) -> Tensor:
        """``target`` at the discrete action that the mean of these critics prefers."""
        values = self.evaluate(x)
        expected = values.expected()  # (K, B, A)
        best = (expected[0] if len(self.critics) == 1 else expected.mean(dim=0)).argmax(dim=1)
        return reduce_distributions(values.distributions(best), reduction, lam)

    def target_all(self, x: Tensor, reduction: str = "min", lam: float = 0.75) -> Tensor:
        """``target`` of all discrete actions, ``(B, A, N)``."""
        return reduce_distributions(self.evaluate(x).all_distributions(), reduction, lam)

    def detached(self, x: Tensor, action: Tensor, critic: int | None = 0) -> Tensor:
        """Expected values for an actor step: gradients reach ``x`` and ``action`` but no critic.

        ``(B, 1)`` of one critic, or ``(K, B, 1)`` of all for ``critic=None``. The critics act as in evaluation: no
        dropout, and batch norm neither uses nor changes statistics of the batch.
        """
        if self.plain_weights is not None:
            weights = self.flat_weights if critic is None else self.plain_weights[critic]
            n_members = len(self) if critic is None else 1
            outputs = mlp(side_by_side(x, action), n_members, weights, frozen=True)
            values = cast(LinearQFunction, self.critics[0]).readout.expected(outputs)
            return values if critic is None else values[0]
        module = self if critic is None else self.critics[critic]
        with frozen(module):
            return module(x, action)

    def expected_of_many(self, x: Tensor, actions: Tensor) -> Tensor:
        """Expected values ``(K, B, n)`` of n actions ``(B, n, A)`` for each observation."""
        return self(x, actions).squeeze(2).unflatten(1, (-1, actions.shape[1]))

    def best_of(self, x: Tensor, actions: Tensor, reduction: str = "mix", lam: float = 0.75) -> tuple[Tensor, Tensor]:
        """``target`` of the best of n actions ``(B, n, A)``, ``(B, 1)`` or ``(B, N)``, and its index ``(B,)``.

        The best action has the greatest reduced expected value (Fujimoto et al. 2019, BCQ, eq. 13).
        """
        values, n = self.evaluate(x, actions), actions.shape[1]
        expected = reduce_values(values.expected().squeeze(2), reduction, lam).unflatten(0, (-1, n))  # (B, n)
        best = expected.argmax(dim=1)
        reduced = reduce_distributions(values.distributions(actions.flatten(0, 1)), reduction, lam)
        return pick_action(reduced.unflatten(0, (-1, n)), best), best


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

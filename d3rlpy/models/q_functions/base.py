"""Q functions: the interface of one critic, and the factories that choose its kind by a name or an object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ...registry import Configurable, Registry
from ..bodies import Encoder, EncoderWithAction, Network


class QFunction(nn.Module, ABC):
    """One critic, which knows a distribution of N values for each pair; N = 1 is the plain expected value.

    Critics of continuous actions are called with ``(x, action)``, those of discrete ones with ``(x)`` for all
    actions at once; the other methods take an action ``(B, A)`` or ``(B,)`` int64 in both cases.
    """

    @abstractmethod
    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        """Expected values: ``(B, 1)`` of continuous actions, ``(B, A)`` of all discrete ones."""

    @abstractmethod
    def distribution(self, x: Tensor, action: Tensor) -> Tensor:
        """Values of equal probability whose mean is the expected value, ``(B, N)``."""

    @abstractmethod
    def td_loss(self, target: Tensor, x: Tensor, action: Tensor) -> Tensor:
        """Mean over the batch of the error against ``target``, ``(B, 1)`` or ``(B, M)``, as a scalar."""


class DiscreteQFunction(QFunction):
    """One critic of discrete actions."""

    @abstractmethod
    def distributions(self, x: Tensor) -> Tensor:
        """``distribution`` of all actions, ``(B, A, N)``."""

    def distribution(self, x: Tensor, action: Tensor) -> Tensor:
        return pick_action(self.distributions(x), action)


class Readout(nn.Module, ABC):
    """What the outputs of a linear head mean; the same for all critics of an ensemble, with any leading axes.

    Outputs are ``(..., A * N)`` for discrete and ``(..., N)`` for continuous actions.
    """

    @abstractmethod
    def expected(self, outputs: Tensor) -> Tensor:
        """Expected values, ``(..., A)`` or ``(..., 1)``."""

    @abstractmethod
    def distributions(self, outputs: Tensor) -> Tensor:
        """Values of equal probability, ``(..., A, N)`` or ``(..., N)``."""

    @abstractmethod
    def error(self, values: Tensor, target: Tensor) -> Tensor:
        """Error of values ``(..., B, N)`` against a target ``(B, 1)`` or ``(B, M)``, mean of all rows, a scalar."""


class LinearQFunction(Network, QFunction):
    """A critic that ends in a linear head, whose outputs a ``Readout`` explains."""

    def __init__(self, encoder: Encoder | EncoderWithAction, n_outputs: int, readout: Readout):
        super().__init__(encoder, n_outputs)
        self.readout = readout

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        return self.readout.expected(self.outputs(x, action))

    def td_loss(self, target: Tensor, x: Tensor, action: Tensor) -> Tensor:
        return self.readout.error(self.distribution(x, action), target)


class ContinuousLinearQFunction(LinearQFunction):
    """A critic of continuous actions."""

    def distribution(self, x: Tensor, action: Tensor) -> Tensor:
        return self.readout.distributions(self.outputs(x, action))


class DiscreteLinearQFunction(LinearQFunction, DiscreteQFunction):
    """A critic of discrete actions."""

    def distributions(self, x: Tensor) -> Tensor:
        return self.readout.distributions(self.outputs(x))


def pick_action(values: Tensor, action: Tensor) -> Tensor:
    """Entries ``(..., B, N)`` of ``values`` ``(..., B, A, N)`` at the actions ``(B,)`` int64."""
    index = action[:, None, None].expand(*values.shape[:-2], 1, values.shape[-1])
    return values.gather(-2, index).squeeze(-2)


class QFunctionFactory(Configurable, ABC):
    """Maker of critics of one kind."""

    @abstractmethod
    def create_discrete(self, encoder: Encoder, action_size: int) -> DiscreteQFunction:
        """One critic of ``action_size`` discrete actions."""

    @abstractmethod
    def create_continuous(self, encoder: EncoderWithAction) -> QFunction:
        """One critic of continuous actions."""


Q_FUNCTIONS: Registry[QFunctionFactory] = Registry("Q function factory", QFunctionFactory)  # type: ignore[type-abstract]


def register_q_func_factory(cls: type[QFunctionFactory]) -> type[QFunctionFactory]:
    """Make an own Q function factory known by its ``TYPE``; usable as a decorator."""
    return Q_FUNCTIONS.register(cls)


def create_q_func_factory(name: str, **params: Any) -> QFunctionFactory:
    """Q function factory by name: ``mean``, ``qr`` or a registered one."""
    return Q_FUNCTIONS.create(name, **params)

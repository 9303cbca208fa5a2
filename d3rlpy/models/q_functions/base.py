"""Q functions: the two interfaces of a kind, and the factories that choose it by a name or an object.

A ``QFunction`` holds parameters and turns a batch into ``QValues``, what its critics know about it. ``QEnsemble``
joins the values of several Q functions. A kind whose critics end in a linear head is a ``LinearQFunction`` and its
``LinearValues``, which say what the outputs of the head mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...randomness import uniform_like
from ...registry import Configurable, Registry
from ..bodies import Encoder, EncoderWithAction, Network
from .distribution import Values, pick_action, reshaped


class QValues(ABC):
    """What K critics know about one batch, computed once and used for several things.

    All discrete actions are there at once; a pair with a continuous action counts as one of A = 1 actions.
    """

    discrete: bool
    bootstrap = False
    """Whether each critic learns from half of each batch, chosen at random (Osband et al. 2016, arXiv:1602.04621)."""

    @abstractmethod
    def expected(self) -> Tensor:
        """Expected values ``(K, B, A)``, the same at each call."""

    @abstractmethod
    def all_distributions(self) -> Values:
        """Distributions ``(K, B, A, N)`` as targets need them, perhaps drawn anew at each call."""

    @abstractmethod
    def errors(self, target: Values, action: Tensor) -> Tensor:
        """Error of each pair ``(K, B)`` against the target ``(B, 1)`` or ``(B, M)`` of all critics."""

    @abstractmethod
    def rows(self, index: Tensor) -> Self:
        """The values of some rows of the batch, ``(M,)`` int64."""

    @classmethod
    @abstractmethod
    def join(cls, values: Sequence[Self]) -> Self:
        """The values of all critics of all, in this order."""

    def distributions(self, action: Tensor) -> Values:
        """Distributions ``(K, B, N)`` of the discrete actions ``(B,)``, or of the continuous ones of the pairs."""
        return self.of_action(self.all_distributions(), action)

    def of_action(self, values: Values, action: Tensor) -> Values:
        """Entries ``(K, B, N)`` of ``(K, B, A, N)`` at the discrete actions ``(B,)``, or at the one that there is."""
        return pick_action(values, action) if self.discrete else reshaped(values, lambda t: t.squeeze(-2))

    def error(self, target: Values, action: Tensor) -> Tensor:
        """Mean of ``errors`` over critics and batch, a scalar."""
        return self.errors(target, action).mean()

    def td_loss(self, target: Values, action: Tensor) -> Tensor:
        """Sum over critics of their mean error; with ``bootstrap`` half of the errors of each critic count as 0."""
        n_critics = len(self)
        if self.bootstrap and n_critics > 1:
            errors = self.errors(target, action)
            return (errors * (uniform_like(errors) < 0.5)).mean(dim=1).sum()
        error = self.error(target, action)
        return error if n_critics == 1 else n_critics * error  # a mean of all rows to a sum of means

    @abstractmethod
    def __len__(self) -> int:
        """K."""


class QFunction(nn.Module, ABC):
    """One critic, or several with one encoder.

    Attributes
    ----------
    action_size : number of discrete actions, None for continuous ones.
    n_critics : number K of critics in this module.
    """

    action_size: int | None
    n_critics: int = 1
    takes_many = False
    """Whether actions may be ``(B, n, A)``, n for each observation, with ``B n`` rows of values."""

    @abstractmethod
    def evaluate(self, x: Tensor, action: Tensor | None = None) -> QValues:
        """Values of observations, together with continuous actions ``(B, A)`` if they are such."""

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        """Expected values ``(K, B, 1)`` of continuous actions, or ``(K, B, A)`` of all discrete ones."""
        return self.evaluate(x, action).expected()

    @property
    def discrete(self) -> bool:
        return self.action_size is not None

    @property
    def n_actions(self) -> int:
        """A, 1 for continuous actions."""
        return self.action_size or 1


class LinearValues(QValues):
    """The outputs of linear heads: ``n_outputs`` for each action.

    Parameters
    ----------
    outputs : ``(K, B, A n_outputs)``.
    q_func : the Q function of one of the critics, which knows constants that all have in common.
    """

    def __init__(self, outputs: Tensor, q_func: Any):
        outputs = outputs.float() if outputs.dtype is torch.bfloat16 else outputs  # of a torch layer under autocast
        self.outputs, self.q_func, self.discrete = outputs, q_func, q_func.discrete

    def __len__(self) -> int:
        return len(self.outputs)

    def heads(self) -> Tensor:
        """The outputs as ``(K, B, A, n_outputs)``."""
        return self.outputs.unflatten(-1, (self.q_func.n_actions, -1))

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.outputs[:, index], self.q_func)

    @classmethod
    def join(cls, values: Sequence[Self]) -> Self:
        return cls(torch.cat([v.outputs for v in values]), values[0].q_func)


class LinearQFunction(Network, QFunction):
    """Critics that end in a linear head; several of them share the encoder and have one head side by side.

    Parameters
    ----------
    encoder : features of the observation, or of observation and action.
    action_size, n_critics : as in ``QFunction``.
    n_outputs : numbers for each action.
    """

    values_type: ClassVar[type[LinearValues]]
    takes_many = True

    def __init__(
        self, encoder: Encoder | EncoderWithAction, action_size: int | None, n_critics: int = 1, n_outputs: int = 1
    ):
        super().__init__(encoder, n_critics * (action_size or 1) * n_outputs)
        self.action_size, self.n_critics = action_size, n_critics

    def evaluate(self, x: Tensor, action: Tensor | None = None) -> LinearValues:
        return self.read(self.outputs(x, action)[None])

    def read(self, outputs: Tensor) -> LinearValues:
        """What outputs mean: ``(1, B, K ...)`` of this module, or ``(K, B, ...)`` of K modules of one critic each."""
        if self.n_critics > 1:
            outputs = outputs[0].unflatten(1, (self.n_critics, -1)).transpose(0, 1)
        return self.values_type(outputs, self)


@dataclass(frozen=True, kw_only=True)
class QFunctionFactory(Configurable, ABC):
    """Maker of critics of one kind.

    Parameters
    ----------
    share_encoder : whether all critics of an ensemble have one encoder in common, each with a head of its own.
    bootstrap : whether each critic learns from its own random half of each batch; a single critic learns from all.
    """

    share_encoder: bool = False
    bootstrap: bool = False

    @abstractmethod
    def create(
        self, encoder: Encoder | EncoderWithAction, action_size: int | None = None, n_critics: int = 1
    ) -> QFunction:
        """Critics of ``action_size`` discrete actions, or of continuous ones (None), with one encoder.

        ``n_critics`` is greater than 1 only with ``share_encoder``.
        """

    def create_discrete(self, encoder: Encoder, action_size: int) -> QFunction:
        """One critic of ``action_size`` discrete actions."""
        return self.create(encoder, action_size)

    def create_continuous(self, encoder: EncoderWithAction) -> QFunction:
        """One critic of continuous actions."""
        return self.create(encoder)


Q_FUNCTIONS: Registry[QFunctionFactory] = Registry("Q function factory", QFunctionFactory)  # type: ignore[type-abstract]


def register_q_func_factory(cls: type[QFunctionFactory]) -> type[QFunctionFactory]:
    """Make an own Q function factory known by its ``TYPE``; usable as a decorator."""
    return Q_FUNCTIONS.register(cls)


def create_q_func_factory(name: str, **params: Any) -> QFunctionFactory:
    """Q function factory by name: ``mean``, ``qr``, ``iqn``, ``fqf``, ``c51`` or a registered one."""
    return Q_FUNCTIONS.create(name, **params)


def check_counts(factory: QFunctionFactory, *names: str) -> None:
    """Raise unless these parameters are whole numbers of at least 1."""
    for name in names:
        value = getattr(factory, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be at least 1")

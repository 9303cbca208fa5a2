"""``QEnsemble``: K critics behind one interface, and the ways in which their values become one.

The critic axis always comes first. How the critics are computed is this file's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..bodies import Encoder, EncoderWithAction, repeat_rows, side_by_side
from ..encoders import EncoderFactory, create_encoder, create_encoder_with_action
from ..mlp import mlp
from .base import Q_FUNCTIONS, LinearQFunction, QFunction, QFunctionFactory, QValues
from .distribution import Values, expectation_over_actions, reduce_distributions, reduce_values, reshaped


class QEnsemble(nn.Module):
    """K critics of the same kind with weights of their own: K modules, or one whose critics share the encoder.

    Parameters
    ----------
    critics : Q functions of the same kind.
    bootstrap : whether each critic learns from its own random half of each batch.
    """

    def __init__(self, critics: Iterable[QFunction], bootstrap: bool = False):
        super().__init__()
        self.critics = nn.ModuleList(critics)
        self.bootstrap = bootstrap
        modules = self._modules_of(None)
        self.n_critics = sum(c.n_critics for c in modules)
        self.discrete = modules[0].discrete
        each = [c.weights if isinstance(c, LinearQFunction) else None for c in modules]
        self.plain_weights = cast(list[list[Tensor]], each) if all(each) else None  # networks computed as one
        self.flat_weights = [p for weights in self.plain_weights or [] for p in weights]

    def __len__(self) -> int:
        return self.n_critics

    def __iter__(self) -> Iterator[QFunction]:
        """The modules: one for each critic, or the one that holds all critics."""
        return iter(self._modules_of(None))

    def _modules_of(self, critics: Sequence[int] | None) -> Sequence[QFunction]:
        """The modules that compute these critics, or all of them (None)."""
        modules = cast(Sequence[QFunction], self.critics)
        return modules if critics is None or len(modules) == 1 else [modules[k] for k in critics]

    def _weights_of(self, critics: Sequence[int] | None) -> list[Tensor]:
        """The weights of these critics, or of all of them (None), where they are networks computed as one."""
        each = cast(list[list[Tensor]], self.plain_weights)
        return self.flat_weights if critics is None or len(each) == 1 else [p for k in critics for p in each[k]]

    def evaluate(self, x: Tensor, action: Tensor | None = None) -> QValues:
        """Values of observations, and of continuous actions, for several uses.

        Actions are ``(B, A)``, or n for each observation, ``(B, n, A)``: then there are ``B n`` rows of values.
        """
        return self._evaluate(x, action, None)

    def _evaluate(self, x: Tensor, action: Tensor | None, critics: Sequence[int] | None) -> QValues:
        """Values by the modules of these critics; where all critics share one module, by all."""
        modules = self._modules_of(critics)
        if self.plain_weights is not None:
            pairs = x if action is None else side_by_side(x, action)
            outputs = mlp(pairs, len(modules), self._weights_of(critics))
            values: QValues = cast(LinearQFunction, modules[0]).read(outputs)
        else:
            values = self._joined(modules, x, action)
        values.bootstrap = self.bootstrap
        return values

    def _joined(self, modules: Sequence[QFunction], x: Tensor, action: Tensor | None) -> QValues:
        """Values of all critics of some modules."""
        if action is not None and action.dim() == 3 and not modules[0].takes_many:
            x, action = repeat_rows(x, action.shape[1]), action.flatten(0, 1)
        values = [module.evaluate(x, action) for module in modules]
        return values[0] if len(values) == 1 else type(values[0]).join(values)

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        """Expected values ``(K, B, 1)`` of continuous actions, or ``(K, B, A)`` of all discrete ones."""
        return self.evaluate(x, action).expected()

    def td_loss(self, target: Values, x: Tensor, action: Tensor) -> Tensor:
        """Sum over critics of their mean error against the same target ``(B, 1)`` or ``(B, N)``."""
        return self.evaluate(x, None if self.discrete else action).td_loss(target, action)

    def best_action(self, x: Tensor) -> Tensor:
        """The discrete action ``(B,)`` that the mean of the critics prefers."""
        return self._preferred(self(x))

    def _preferred(self, values: Tensor) -> Tensor:
        """The best action ``(B,)`` by the mean of values ``(K, B, A)``."""
        return (values[0] if len(self) == 1 else values.mean(dim=0)).argmax(dim=1)

    def target(
        self,
        x: Tensor,
        action: Tensor,
        reduction: str = "min",
        lam: float = 0.75,
        critics: Sequence[int] | None = None,
    ) -> Values:
        """Values ``(B, 1)`` or distributions ``(B, N)`` of the pairs, reduced over critics, all of them or some."""
        values = self._evaluate(x, None if self.discrete else action, critics)
        distributions = values.distributions(action)
        if critics is not None and len(self.critics) == 1:  # one module, which has computed all
            distributions = reshaped(distributions, lambda t: torch.stack([t[k] for k in critics]))
        return reduce_distributions(distributions, reduction, lam)

    def greedy_target(self, x: Tensor, reduction: str = "min", lam: float = 0.75) -> Values:
        """``target`` at the discrete action that the mean of these critics prefers."""
        values = self.evaluate(x)
        best = self._preferred(values.expected())
        return reduce_distributions(values.distributions(best), reduction, lam)

    def target_all(self, x: Tensor, reduction: str = "min", lam: float = 0.75) -> Values:
        """``target`` of all discrete actions, ``(B, A, N)``."""
        return reduce_distributions(self.evaluate(x).all_distributions(), reduction, lam)

    def policy_target(self, x: Tensor, probs: Tensor, reduction: str = "min", lam: float = 0.75) -> Values:
        """``target`` of a discrete action drawn with ``probs`` ``(B, A)``: the expectation over actions, ``(B, N)``.

        Quantiles are averaged level by level, explicit probabilities mixed; see ``expectation_over_actions``.
        """
        return expectation_over_actions(self.target_all(x, reduction, lam), probs)

    def detached(self, x: Tensor, action: Tensor | None = None, critic: int | None = 0) -> Tensor:
        """Expected values for an actor step: gradients reach ``x`` and ``action`` but no critic.

        ``(B, 1)`` of one critic, or ``(K, B, 1)`` of all for ``critic=None``; of all discrete actions ``(B, A)`` or
        ``(K, B, A)``. The critics act as in evaluation: no dropout, and batch norm neither uses nor changes statistics
        of the batch.
        """
        one = None if critic is None else [critic]
        modules = self._modules_of(one)
        if self.plain_weights is not None:
            pairs = x if action is None else side_by_side(x, action)
            outputs = mlp(pairs, len(modules), self._weights_of(one), frozen=True)
            values = cast(LinearQFunction, modules[0]).read(outputs).expected()
        else:
            with frozen(*modules):
                values = self._joined(modules, x, action).expected()
        return values if critic is None else values[critic if modules[0].n_critics > 1 else 0]

    def expected_of_many(self, x: Tensor, actions: Tensor) -> Tensor:
        """Expected values ``(K, B, n)`` of n actions ``(B, n, A)`` for each observation."""
        return self(x, actions).squeeze(2).unflatten(1, (-1, actions.shape[1]))

    def best_of(self, x: Tensor, actions: Tensor, reduction: str = "mix", lam: float = 0.75) -> tuple[Values, Tensor]:
        """``target`` of the best of n actions ``(B, n, A)``, ``(B, 1)`` or ``(B, N)``, and its index ``(B,)``.

        The best action has the greatest reduced expected value (Fujimoto et al. 2019, BCQ, eq. 13).
        """
        values, n = self.evaluate(x, actions), actions.shape[1]
        expected = reduce_values(values.expected().squeeze(2), reduction, lam).unflatten(0, (-1, n))  # (B, n)
        best = expected.argmax(dim=1)
        rows = torch.arange(len(x), device=x.device) * n + best
        return reduce_distributions(values.rows(rows).distributions(best), reduction, lam), best


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode and without gradients for their parameters, afterwards as they were before."""
    params = [p for module in modules for p in module.parameters() if p.requires_grad]
    training = [m for module in modules for m in module.modules() if m.training]
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
    """Critics of one kind, each with an encoder of its own unless the factory says ``share_encoder``."""
    factory = Q_FUNCTIONS.resolve(q_func_factory)

    def module(n: int) -> QFunction:
        encoder: Encoder | EncoderWithAction
        if discrete:
            encoder = create_encoder(encoder_factory, observation_shape)
        else:
            encoder = create_encoder_with_action(encoder_factory, observation_shape, action_size)
        critics = factory.create(encoder, action_size if discrete else None, n)
        if critics.n_critics != n:
            kind = type(factory).__name__
            raise ValueError(f"{kind} made {critics.n_critics} critics with one encoder, {n} were asked for")
        return critics

    modules = [module(n_critics)] if factory.share_encoder else [module(1) for _ in range(n_critics)]
    return QEnsemble(modules, factory.bootstrap)

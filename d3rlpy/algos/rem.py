"""EnsembleDQN and REM: many estimates of Q, each with its own target, or their random mixtures.

Paper: Agarwal, Schuurmans, Norouzi 2020, "An optimistic perspective on offline reinforcement learning",
arXiv:1907.04543.
The estimates are 200 heads on one encoder (multi-head, the default) or networks of their own (multi-network, as in the
paper's online experiments: ``REM(n_critics=4, q_func_factory="mean")``).
Differs from the authors' code: learning rate, epsilon of Adam and the interval of the slow copy are those of DQN here;
theirs are 5e-5, 0.01 / 32, and 2000 updates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hyperparameters import algorithm, hp
from ..impl import Batch
from ..models.q_functions import (
    Q_FUNCTIONS,
    MeanQFunctionFactory,
    QEnsemble,
    QFunctionFactory,
    pick_action,
)
from ..randomness import uniform
from .dqn import DQN, DQNImpl


class EnsembleDQNImpl(DQNImpl):
    """Estimates ``Q_1 ... Q_K`` and their slow copies; the policy is greedy for their mean."""

    hp: EnsembleDQN

    def build(self) -> None:
        factory = Q_FUNCTIONS.resolve(self.hp.q_func_factory)
        if not isinstance(factory, MeanQFunctionFactory) or factory.bootstrap:
            name = type(self.hp).__name__
            raise ValueError(f"{name}: q_func_factory={factory!r} must be 'mean' without bootstrap")
        super().build()

    def estimates(self, q_funcs: QEnsemble, x: Tensor) -> Tensor:
        """Values of all actions by each estimate, ``(estimates, batch, actions)``."""
        return q_funcs(x)

    def target(self, batch: Batch) -> Tensor:
        """``max_a Q-_k(s', a)``, one for each estimate, ``(estimates, batch, 1)``."""
        return self.estimates(self.targ_q_funcs, batch.next_observations).amax(dim=2, keepdim=True)

    def loss(self, batch: Batch) -> Tensor:
        """``mean_k E[Huber(r + gamma max_a Q-_k(s', a) - Q_k(s, a))]``."""
        q = pick_action(self.estimates(self.q_funcs, batch.observations)[..., None], batch.actions)
        return F.huber_loss(q, self.td_target(batch))


class REMImpl(EnsembleDQNImpl):
    """One estimate: a convex combination of all, drawn anew for each mini-batch."""

    weights: Tensor  # (n_critics,), of the last mini-batch

    def build(self) -> None:
        super().build()
        self.register_buffer("weights", self.draw_weights(), persistent=False)

    def draw_weights(self) -> Tensor:
        """``alpha_k = u_k / sum_j u_j`` with ``u`` uniform in [0, 1)."""
        u = uniform(self.hp.n_critics, torch.empty(0, device=self.device)).clamp(min=1e-8)  # a single 0 has no share
        return u / u.sum()

    def estimates(self, q_funcs: QEnsemble, x: Tensor) -> Tensor:
        """``sum_k alpha_k Q_k(s, .)``, ``(1, batch, actions)``."""
        return (self.weights[:, None, None] * q_funcs(x)).sum(dim=0, keepdim=True)

    def loss(self, batch: Batch) -> Tensor:
        """``E[Huber(r + gamma max_a sum_k alpha_k Q-_k(s', a) - sum_k alpha_k Q_k(s, a))]``."""
        self.weights = self.draw_weights().to(self.weights)  # once: prediction and target are of the same mixture
        return super().loss(batch)


@algorithm
class EnsembleDQN(DQN):
    r"""DQN with many estimates of Q, each trained against its own target; their mean acts.

    .. math:: L = \frac{1}{K} \sum_k E[\mathrm{Huber}(r + \gamma \max_{a'} \bar Q_k(s', a') - Q_k(s, a))]

    Examples
    --------
    >>> EnsembleDQN(n_critics=50)
    EnsembleDQN(n_critics=50)
    """

    n_critics: int = hp(200, "number K of estimates")
    q_func_factory: str | QFunctionFactory = hp(
        MeanQFunctionFactory(share_encoder=True), "mean; share_encoder=True: heads of one network, False: K networks"
    )

    Impl = EnsembleDQNImpl


@algorithm
class REM(EnsembleDQN):
    r"""Random ensemble mixture: DQN whose Q is a new convex combination of many estimates in each mini-batch.

    .. math:: L = E[\mathrm{Huber}(r + \gamma \max_{a'} \sum_k \alpha_k \bar Q_k(s', a') - \sum_k \alpha_k Q_k(s, a))]

    Examples
    --------
    >>> REM(n_critics=4, q_func_factory="mean")  # multi-network
    REM(n_critics=4, q_func_factory='mean')
    """

    Impl = REMImpl

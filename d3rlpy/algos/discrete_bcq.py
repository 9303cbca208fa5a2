"""DiscreteBCQ: Double DQN that chooses only among actions which the data takes often enough.

Paper: Fujimoto, Conti, Ghavamzadeh, Pineau 2019, "Benchmarking batch deep reinforcement learning algorithms",
arXiv:1910.01708.
Differs from the authors' code: the imitator is a network of its own, where theirs shares convolutions of images with Q;
the penalty on its logits weighs 0.5, theirs 0.01; an ensemble is possible as in DQN. An action as probable as the
threshold demands is allowed, so the most probable one always is, also at ``action_flexibility=1``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..hyperparameters import algorithm, hp
from ..impl import Batch
from ..models.encoders import create_encoder
from ..models.policies import CategoricalPolicy
from .dqn import DQN, DoubleDQNImpl


class DiscreteBCQImpl(DoubleDQNImpl):
    """The networks of Double DQN and an imitator G of the data."""

    hp: DiscreteBCQ
    policy_modules: tuple[str, ...] = ("q_funcs", "targ_q_funcs", "imitator")

    def build(self) -> None:
        super().build()
        encoder = create_encoder(self.hp.encoder_factory, self.observation_shape)
        self.imitator = CategoricalPolicy(encoder, self.action_size)
        self.optim = self.optimizer("", [self.q_funcs, self.imitator])

    def loss(self, batch: Batch) -> Tensor:
        return self.td_loss(batch) + self.imitator_loss(batch)

    def imitator_loss(self, batch: Batch) -> Tensor:
        """``-E[log G(a|s)] + beta E[mean_a logit_a^2]``."""
        logits = self.imitator.logits(batch.observations)
        return F.cross_entropy(logits, batch.actions) + self.hp.beta * logits.square().mean()

    def best_action(self, observations: Tensor) -> Tensor:
        """``argmax_a Q(s, a)`` among the actions with ``G(a|s) / max_b G(b|s) >= action_flexibility``.

        The target lets this choose the next action, the slow copy values it.
        """
        q = self.q_funcs(observations).mean(dim=0)  # (B, A)
        return q.masked_fill(~self.allowed(observations), -float("inf")).argmax(dim=1)

    def allowed(self, observations: Tensor) -> Tensor:
        """Which actions the data takes often enough, ``(B, A)`` bool."""
        logits = self.imitator.logits(observations)
        return (logits - logits.amax(dim=1, keepdim=True)).exp() >= self.hp.action_flexibility


@algorithm
class DiscreteBCQ(DQN):
    r"""Batch-constrained Q-learning for discrete actions.

    .. math::
        L = L_{DoubleDQN} - E[\log G(a|s)] + \beta E[\mathrm{logits}^2], \quad
        \pi(s) = \arg\max_{a: G(a|s) / \max_b G(b|s) \ge \tau} Q(s, a)

    Examples
    --------
    >>> DiscreteBCQ(action_flexibility=0.1)
    DiscreteBCQ(action_flexibility=0.1)
    """

    action_flexibility: float = hp(
        0.3,
        "least allowed share of the probability of the most probable action, tau: 0 is Double DQN, 1 is imitation",
        low=0,
        high=1,
    )
    beta: float = hp(0.5, "weight of the penalty on the imitator's logits", low=0)

    Impl = DiscreteBCQImpl

"""AWAC, advantage-weighted actor-critic: cloning of the data with weights that a critic of the policy gives.

Paper: Nair, Dalal, Gupta, Levine 2020, arXiv:2006.09359, algorithm 1 and its equation 13. As in the authors' code the
weights are a softmax over the mini-batch, so they sum to 1: equation 13 up to a factor for each batch, and a loss that
doesn't grow with the batch. The policy is a Gaussian around ``tanh``, not squashed, whose standard deviation doesn't
depend on the state and lies in [e^-6, 1].
Differs from the authors' code: the policy has the width of the other networks here (theirs: 4 layers of 256), and drawn
actions are clamped to [-1, 1]. The paper treats continuous actions; with discrete ones the policy is categorical, and
expectations over its actions are computed, not drawn.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..families import ActorCritic, ActorCriticAlgo, DiscreteActorCriticAlgo
from ..functional import normal_log_prob
from ..hyperparameters import algorithm, hp, hyperparameters
from ..impl import ActorCriticImpl, Batch, Metrics
from ..models.encoders import create_encoder
from ..models.optimizers import AdamFactory, OptimizerFactory
from ..models.policies import CategoricalPolicy, NormalPolicy


class AWACImpl(ActorCriticImpl):
    """Policy pi, critics Q, and their slow copies Q-."""

    hp: AWAC
    policy: NormalPolicy | CategoricalPolicy

    def build(self) -> None:
        self.build_critics()
        self.policy = self.create_policy()
        self.actor_optim = self.optimizer("actor", [self.policy])

    def create_policy(self) -> NormalPolicy | CategoricalPolicy:
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        return NormalPolicy(encoder, self.action_size, min_log_std=-6.0, max_log_std=0.0, use_std_parameter=True)

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: the critics; every ``update_actor_interval`` updates the policy and the slow copies."""
        metrics = self.update_critic(batch)
        if self.is_due(self.hp.update_actor_interval):
            metrics |= self.update_actor(batch)
            self.update_critic_target()
        return metrics

    def target(self, batch: Batch) -> Tensor:
        """``min_i Q-_i(s', a')`` with ``a'`` drawn from the policy."""
        action, _ = self.policy.sample(batch.next_observations)
        return self.targ_q_funcs.target(batch.next_observations, action)

    def update_actor(self, batch: Batch) -> Metrics:
        metrics = super().update_actor(batch)
        if isinstance(self.policy, NormalPolicy):
            metrics["mean_std"] = self.policy.shared_log_std().detach().exp().mean()
        return metrics

    def actor_loss(self, batch: Batch) -> Tensor:
        """``-sum_b softmax_b(A(s_b, a_b) / lam) log pi(a_b|s_b)`` (eq. 13 with weights that sum to 1)."""
        mean, log_std = cast(NormalPolicy, self.policy).normal(batch.observations)  # one pass for both uses
        advantage = self.advantage(batch, mean.detach(), log_std.detach())
        return -(self.weight(advantage) * normal_log_prob(batch.actions, mean, log_std)).sum()

    def weight(self, advantage: Tensor) -> Tensor:
        """Weights of the transitions of the batch, which sum to 1, ``(batch, 1)``."""
        return (advantage / self.hp.lam).softmax(dim=0)

    def advantage(self, batch: Batch, mean: Tensor, log_std: Tensor) -> Tensor:
        """``min_i Q_i(s, a) - E_j[min_i Q_i(s, a_j)]``, ``a_j`` drawn from the policy, ``(batch, 1)``."""
        n = self.hp.n_action_samples
        with torch.no_grad():
            policy = cast(NormalPolicy, self.policy)
            drawn, _ = policy.draw(mean[:, None].expand(-1, n, -1), log_std[:, None].expand(-1, n, -1))
            actions = torch.cat([batch.actions[:, None], drawn], dim=1)  # (batch, 1 + n, A)
            q = self.q_funcs.detached(batch.observations, actions, critic=None).amin(dim=0).view(-1, 1 + n)
            return q[:, :1] - q[:, 1:].mean(dim=1, keepdim=True)

    def sample_action(self, observations: Tensor) -> Tensor:
        return self.policy.sample_action(observations)


class DiscreteAWACImpl(AWACImpl):
    """The same with a categorical policy, whose expectations are sums."""

    def create_policy(self) -> CategoricalPolicy:
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        return CategoricalPolicy(encoder, self.action_size)

    def target(self, batch: Batch) -> Tensor:
        """``sum_a pi(a|s') min_i Q-_i(s', a)``, of quantiles each by itself, ``(batch, N)``."""
        probs = cast(CategoricalPolicy, self.policy).log_probs(batch.next_observations).exp()
        return self.targ_q_funcs.policy_target(batch.next_observations, probs)

    def actor_loss(self, batch: Batch) -> Tensor:
        """``-sum_b softmax_b(A(s_b, a_b) / lam) log pi(a_b|s_b)``."""
        log_probs = cast(CategoricalPolicy, self.policy).log_probs(batch.observations)  # (batch, A)
        with torch.no_grad():
            q = self.q_funcs.detached(batch.observations, None, critic=None).amin(dim=0)  # (batch, A)
            advantage = q.gather(1, batch.actions[:, None]) - (log_probs.exp() * q).sum(dim=1, keepdim=True)
        return -(self.weight(advantage) * log_probs.gather(1, batch.actions[:, None])).sum()


@hyperparameters
class AdvantageWeighted(ActorCritic):
    """What the two have in common."""

    actor_optim_factory: str | OptimizerFactory = hp(AdamFactory(weight_decay=1e-4))
    batch_size: int = hp(1024)
    lam: float = hp(1.0, "lambda of eq. 13: advantages are divided by it", low=1e-6)
    update_actor_interval: int = hp(1, "critic updates per update of the policy and the slow copies", low=1)


@algorithm
class AWAC(AdvantageWeighted, ActorCriticAlgo):
    r"""Advantage-weighted actor-critic.

    .. math::
        L_Q = \sum_i E[(r + \gamma \min_j \bar Q_j(s', a') - Q_i(s, a))^2], \quad
        L_\pi = -E[\log \pi(a|s) e^{A(s, a) / \lambda}] / E[e^{A(s, a) / \lambda}]

    Examples
    --------
    >>> AWAC(lam=0.5)
    AWAC(lam=0.5)
    """

    n_action_samples: int = hp(1, "actions of the policy that the advantage compares with", low=1)

    Impl = AWACImpl


@algorithm
class DiscreteAWAC(AdvantageWeighted, DiscreteActorCriticAlgo):
    r"""Advantage-weighted actor-critic for discrete actions: the losses of ``AWAC``.

    Examples
    --------
    >>> DiscreteAWAC(lam=0.5)
    DiscreteAWAC(lam=0.5)
    """

    tau: float = hp(0.005, "share of the online networks copied into their slow copies", low=0, high=1)

    Impl = DiscreteAWACImpl

"""CRR: the policy clones those actions of the data that the critic finds better than the policy's own.

Paper: Wang et al. 2020, "Critic regularized regression", arXiv:2006.15134, algorithm 1: weights "exp" and "binary",
advantages "mean" and "max", and the critic weighted policy (CWP) for acting.
Differs from the paper: one normal distribution that is not squashed instead of a mixture, Q functions of any kind
instead of a distributional one, and an ensemble, whose mean gives the weights and whose minimum gives the target.
``predict`` is the most probable action of CWP among candidates whose noise is always the same, ``sample_action`` draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..families import ActorCritic, ActorCriticAlgo
from ..hyperparameters import algorithm, hp, hyperparameters
from ..impl import ActorCriticImpl, Batch, Metrics, hard_sync, soft_sync, target_copy
from ..models.encoders import create_encoder
from ..models.policies import NormalPolicy, candidate_noise, pick_candidate


class CRRImpl(ActorCriticImpl):
    """Policy pi, critics Q, and slow copies of both."""

    hp: CRR
    policy: NormalPolicy
    noise: Tensor

    def build(self) -> None:
        self.build_critics()
        self.build_policy()
        self.targ_policy = target_copy(self.policy)
        self.actor_optim = self.optimizer("actor", [self.policy])

    def build_policy(self) -> None:
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        self.policy = NormalPolicy(encoder, self.action_size)
        self.register_buffer("noise", candidate_noise(self.hp.n_action_samples, self.action_size))

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: every ``update_actor_interval`` updates the actor; the critics; the slow copies."""
        metrics = self.update_actor(batch) if self.is_due(self.hp.update_actor_interval) else {}
        metrics |= self.update_critic(batch)
        self.update_targets()
        return metrics

    def update_targets(self) -> None:
        """A share ``tau`` of both networks, or all of them every ``target_update_interval`` updates."""
        if self.hp.target_update_type == "soft":
            self.update_critic_target()
            soft_sync(self.targ_policy, self.policy, self.hp.tau)
        elif self.is_due(self.hp.target_update_interval):
            hard_sync(self.targ_q_funcs, self.q_funcs)
            hard_sync(self.targ_policy, self.policy)

    def target(self, batch: Batch) -> Tensor:
        """``min_i Q-_i(s', a')`` with ``a'`` drawn from the slow policy."""
        action, _ = self.targ_policy.sample(batch.next_observations)
        return self.targ_q_funcs.target(batch.next_observations, action)

    def actor_loss(self, batch: Batch) -> Tensor:
        """``-E[f(A(s, a)) log pi(a|s)]`` over the actions of the data; f carries no gradient."""
        with torch.no_grad():
            weight = self.weight(self.advantage(batch))
        return -(weight * self.policy.log_prob(batch.observations, batch.actions)).mean()

    def weight(self, advantage: Tensor) -> Tensor:
        """``f``: ``1[A > 0]``, or ``exp(A / beta)``, at most ``max_weight``."""
        if self.hp.weight_type == "binary":
            return (advantage > 0).to(advantage.dtype)
        return (advantage / self.hp.beta).exp().clamp(max=self.hp.max_weight)

    def advantage(self, batch: Batch) -> Tensor:
        """``A = Q(s, a) - mean_j Q(s, a_j)``, or ``max_j``, with m actions ``a_j`` of the policy, ``(B, 1)``."""
        drawn, _ = self.policy.sample_n(batch.observations, self.hp.n_action_samples)
        q = self.values_of(batch.observations, torch.cat([batch.actions[:, None], drawn], dim=1))  # (B, 1 + m)
        own, others = q[:, :1], q[:, 1:]
        return own - (others.mean if self.hp.advantage_type == "mean" else others.amax)(dim=1, keepdim=True)

    def values_of(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Mean over critics of the expected values of n actions ``(B, n, A)``, ``(B, n)``."""
        q = self.q_funcs.detached(observations, actions, critic=None).mean(dim=0)
        return q.squeeze(1).unflatten(0, (-1, actions.shape[1]))

    def best_action(self, observations: Tensor) -> Tensor:
        actions = self.policy.candidates(observations, self.noise)
        return pick_candidate(actions, self.values_of(observations, actions).argmax(dim=1))

    def sample_action(self, observations: Tensor) -> Tensor:
        """One of m actions of the policy, drawn with the probabilities ``softmax(Q(s, a_j) / beta)``."""
        actions, _ = self.policy.sample_n(observations, self.hp.n_action_samples)
        logits = self.values_of(observations, actions) / self.hp.beta
        return pick_candidate(actions, gumbel_argmax(logits))


def gumbel_argmax(logits: Tensor) -> Tensor:
    """One index per row ``(B,)``, drawn with the probabilities ``softmax(logits)``, ``(B, n)``."""
    return (logits - torch.empty_like(logits).exponential_().log()).argmax(dim=1)


@hyperparameters
class CRRParameters(ActorCritic):
    """What CRR needs, whatever the actions."""

    batch_size: int = hp(100)
    n_critics: int = hp(1)
    beta: float = hp(1.0, "temperature of the weights exp(A / beta) and of the critic weighted policy", low=1e-6)
    n_action_samples: int = hp(4, "actions of the policy that advantages and acting compare, m", low=1, fixed=True)
    advantage_type: str = hp("mean", "what the policy's actions are reduced to", options=("mean", "max"))
    weight_type: str = hp("exp", "weights of the actions of the data", options=("exp", "binary"))
    max_weight: float = hp(20.0, "largest weight of one transition", low=0)
    tau: float = hp(0.005, "share of the online networks copied into their slow copies ('soft')", low=0, high=1)
    target_update_type: str = hp("hard", "how the slow copies follow", options=("hard", "soft"))
    target_update_interval: int = hp(100, "updates between two copies ('hard')", low=1)
    update_actor_interval: int = hp(1, "critic updates per actor update", low=1)


@algorithm
class CRR(CRRParameters, ActorCriticAlgo):
    r"""Critic regularized regression.

    .. math:: L_\pi = -E[f(A(s, a)) \log \pi(a|s)], \quad f = 1[A > 0] \text{ or } \min(e^{A / \beta}, 20)

    Examples
    --------
    >>> CRR(weight_type="binary")
    CRR(weight_type='binary')
    """

    Impl = CRRImpl

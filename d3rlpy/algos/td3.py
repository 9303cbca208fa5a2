"""TD3: deterministic actor-critic with twin critics, smoothed targets and a delayed actor.

Paper: Fujimoto, van Hoof, Meger 2018, arXiv:1802.09477v3, algorithm 1.
Differs from the paper: the target action is clipped to the range of actions, as in the authors' code, and networks have
2 layers of 256 units, as in their present code, where the paper has 400 and 300. There is no exploration noise here:
acting is the explorer's affair.
"""

from __future__ import annotations

from torch import Tensor

from ..families import ActorCriticAlgo
from ..hyperparameters import algorithm, hp
from ..impl import ActorCriticImpl, Batch, Metrics, soft_sync, target_copy
from ..models.encoders import create_encoder
from ..models.policies import DeterministicPolicy
from ..randomness import normal_like


class TD3Impl(ActorCriticImpl):
    """Policy pi, critics Q, and slow copies of both."""

    hp: TD3

    def build(self) -> None:
        self.build_critics()
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        self.policy = DeterministicPolicy(encoder, self.action_size)
        self.targ_policy = target_copy(self.policy)
        self.actor_optim = self.optimizer("actor", [self.policy])

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: the critics; every ``update_actor_interval`` updates the actor and the slow copies."""
        metrics = self.update_critic(batch)
        if self.is_due(self.hp.update_actor_interval):
            metrics |= self.update_actor(batch)
            self.update_critic_target()
            soft_sync(self.targ_policy, self.policy, self.hp.tau)
        return metrics

    def target(self, batch: Batch) -> Tensor:
        """``min_i Q-_i(s', clip(pi-(s') + clip(noise, -c, c), -1, 1))``."""
        action = self.targ_policy(batch.next_observations)
        clip = self.hp.target_smoothing_clip
        noise = (self.hp.target_smoothing_sigma * normal_like(action)).clamp(-clip, clip)
        return self.targ_q_funcs.target(batch.next_observations, (action + noise).clamp(-1, 1))

    def actor_loss(self, batch: Batch) -> Tensor:
        """``-E[Q_1(s, pi(s))]``."""
        action = self.policy(batch.observations)
        return -self.q_funcs.detached(batch.observations, action, critic=0).mean()


@algorithm
class TD3(ActorCriticAlgo):
    r"""Twin delayed deep deterministic policy gradient.

    .. math::
        L_Q = \sum_i E[(r + \gamma \min_j \bar Q_j(s', \tilde a') - Q_i(s, a))^2], \quad
        L_\pi = -E[Q_1(s, \pi(s))]

    Examples
    --------
    >>> TD3(tau=0.01)
    TD3(tau=0.01)
    """

    target_smoothing_sigma: float = hp(0.2, "standard deviation of the noise on the target action", low=0)
    target_smoothing_clip: float = hp(0.5, "largest such noise, c in algorithm 1", low=0)
    update_actor_interval: int = hp(2, "critic updates per actor update, d in algorithm 1", low=1)

    Impl = TD3Impl

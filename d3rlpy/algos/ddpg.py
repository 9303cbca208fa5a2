"""DDPG: a deterministic actor-critic for continuous actions.

Paper: Lillicrap et al. 2016, arXiv:1509.02971v6, algorithm 1.
It is TD3 without that paper's three additions: one critic, a target action without noise, an actor and slow copies that
move at each update; so it reads as their removal. Differs from the paper: networks have 2 layers of 256 units and no
batch norm, the first of which reads the action already; no weight decay, tau 0.005 and learning rates of 3e-4. There is
no exploration noise here: acting is the explorer's affair. With several critics the smallest slow one is the target.
"""

from __future__ import annotations

from torch import Tensor

from ..families import ActorCriticAlgo
from ..hyperparameters import algorithm, hp
from ..impl import Batch, Metrics, soft_sync
from .td3 import TD3Impl


class DDPGImpl(TD3Impl):
    """The networks of TD3: policy pi, critics Q, and slow copies of both."""

    hp: DDPG

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: critic, actor, slow copies."""
        metrics = self.update_critic(batch)
        metrics |= self.update_actor(batch)
        self.update_critic_target()
        soft_sync(self.targ_policy, self.policy, self.hp.tau)
        return metrics

    def target(self, batch: Batch) -> Tensor:
        """``Q-(s', pi-(s'))``."""
        return self.targ_q_funcs.target(batch.next_observations, self.targ_policy(batch.next_observations))


@algorithm
class DDPG(ActorCriticAlgo):
    r"""Deep deterministic policy gradient.

    .. math:: L_Q = E[(r + \gamma \bar Q(s', \bar\pi(s')) - Q(s, a))^2], \quad L_\pi = -E[Q(s, \pi(s))]

    Examples
    --------
    >>> DDPG(tau=0.001)
    DDPG(tau=0.001)
    """

    batch_size: int = hp(100)
    n_critics: int = hp(1)

    Impl = DDPGImpl

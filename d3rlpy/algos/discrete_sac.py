"""DiscreteSAC: SAC for discrete actions, with expectations over all actions in place of samples.

Paper: Christodoulou 2019, "Soft actor-critic for discrete action settings", arXiv:1910.07207, equations 10 to 12 and
algorithm 1.
Differs from the paper: the error of critics that know expected values is Huber's, as for all discrete actions here, and
the slow copies of the critics are renewed at intervals, where algorithm 1 writes a soft update. The target entropy is a
parameter; its default, 0.98 of the largest entropy, is the paper's. With quantile critics the target is the expectation
over actions of their quantiles.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..families import DiscreteActorCriticAlgo
from ..hyperparameters import algorithm, hp
from ..impl import ActorCriticImpl, Batch, Metrics, gradient_step, hard_sync
from ..models.encoders import create_encoder
from ..models.optimizers import AdamFactory, OptimizerFactory
from ..models.parameters import PositiveParameter
from ..models.policies import CategoricalPolicy


class DiscreteSACImpl(ActorCriticImpl):
    """Policy pi, critics Q, their slow copies Q-, and the temperature alpha."""

    hp: DiscreteSAC
    policy: CategoricalPolicy

    def build(self) -> None:
        self.target_entropy()  # an error of the caller should come first
        self.build_critics()
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        self.policy = CategoricalPolicy(encoder, self.action_size)
        self.actor_optim = self.optimizer("actor", [self.policy])
        self.temp = PositiveParameter(self.hp.initial_temperature)
        self.temp_optim = self.optimizer("temp", [self.temp])

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: critics, actor, temperature; slow copies every ``target_update_interval`` updates."""
        metrics = self.update_critic(batch)
        metrics |= self.update_actor(batch)
        if self.is_due(self.hp.target_update_interval):
            hard_sync(self.targ_q_funcs, self.q_funcs)
        return metrics

    def target(self, batch: Batch) -> Tensor:
        """``sum_a pi(a|s') (min_i Q-_i(s', a) - alpha log pi(a|s'))`` (eq. 10)."""
        log_probs = self.policy.log_probs(batch.next_observations)
        values = self.targ_q_funcs.policy_target(batch.next_observations, log_probs.exp())
        return values + self.temp() * entropy(log_probs)

    def update_actor(self, batch: Batch) -> Metrics:
        """The actor, and the temperature for the same probabilities."""
        log_probs = self.policy.log_probs(batch.observations)
        loss = self.policy_loss(batch.observations, log_probs)
        gradient_step(self.actor_optim, loss)
        metrics = {"actor_loss": loss.detach()}
        if self.hp.temp_learning_rate > 0:
            temp_loss = self.temp_loss(entropy(log_probs.detach()))
            gradient_step(self.temp_optim, temp_loss)
            metrics |= {"temp_loss": temp_loss.detach(), "temp": self.temp().detach()}
        return metrics

    def actor_loss(self, batch: Batch) -> Tensor:
        return self.policy_loss(batch.observations, self.policy.log_probs(batch.observations))

    def policy_loss(self, observations: Tensor, log_probs: Tensor) -> Tensor:
        """``E[sum_a pi(a|s) (alpha log pi(a|s) - min_i Q_i(s, a))]`` (eq. 12)."""
        q = self.q_funcs.detached(observations, critic=None).amin(dim=0)  # (batch, actions)
        return (log_probs.exp() * (self.temp().detach() * log_probs - q)).sum(dim=1).mean()

    def temp_loss(self, policy_entropy: Tensor) -> Tensor:
        """``E[alpha (H(pi(.|s)) - target_entropy)]``, which lowers alpha where the entropy is too large (eq. 11)."""
        return (self.temp() * (policy_entropy - self.target_entropy())).mean()

    def target_entropy(self) -> float:
        """The entropy that the temperature steers to, by default 0.98 of that of the uniform policy."""
        largest = math.log(self.action_size)
        given = 0.98 * largest if self.hp.target_entropy is None else self.hp.target_entropy
        if not 0.0 <= given <= largest:
            raise ValueError(
                f"DiscreteSAC: target_entropy={given!r} must lie in [0, {largest:.5g}], from the entropy of a fixed "
                f"choice to that of {self.action_size} actions of equal probability"
            )
        return given

    def sample_action(self, observations: Tensor) -> Tensor:
        return self.policy.sample_action(observations)


def entropy(log_probs: Tensor) -> Tensor:
    """``-sum_a pi(a|s) log pi(a|s)``, ``(batch, 1)``."""
    return -(log_probs.exp() * log_probs).sum(dim=1, keepdim=True)


@algorithm
class DiscreteSAC(DiscreteActorCriticAlgo):
    r"""Soft actor-critic for discrete actions.

    .. math::
        y = r + \gamma \sum_{a'} \pi(a'|s') (\min_j \bar Q_j(s', a') - \alpha \log \pi(a'|s')), \quad
        L_\pi = E[\sum_a \pi(a|s) (\alpha \log \pi(a|s) - \min_i Q_i(s, a))]

    Examples
    --------
    >>> DiscreteSAC(target_entropy=0.1)
    DiscreteSAC(target_entropy=0.1)
    """

    batch_size: int = hp(64)
    actor_optim_factory: str | OptimizerFactory = hp(AdamFactory(eps=1e-4))
    critic_optim_factory: str | OptimizerFactory = hp(AdamFactory(eps=1e-4))
    temp_learning_rate: float = hp(3e-4, "learning rate of the temperature; 0 keeps it as it is", low=0)
    temp_optim_factory: str | OptimizerFactory = hp(AdamFactory(eps=1e-4), "optimizer of the temperature", fixed=True)
    initial_temperature: float = hp(1.0, "temperature at the start", low=1e-20, fixed=True)
    target_entropy: float | None = hp(
        None, "entropy that the temperature steers to, at most log |A|; None is 0.98 log |A|", low=0
    )
    target_update_interval: int = hp(8000, "updates between two copies of the critics to their slow copies", low=1)

    Impl = DiscreteSACImpl

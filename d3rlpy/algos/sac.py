"""SAC: a stochastic actor-critic that is paid for entropy, with a temperature that learns itself.

Paper: Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", arXiv:1812.05905v2, algorithm 1; the
squashed Gaussian is that of arXiv:1801.01290v2, appendix C.
The critics' error has no factor 1/2; the actions of the actor's step serve the temperature's step as well.
"""

from __future__ import annotations

from torch import Tensor

from ..families import ActorCriticAlgo
from ..hyperparameters import algorithm, hp
from ..impl import ActorCriticImpl, Batch, Metrics, gradient_step
from ..models.encoders import create_encoder
from ..models.optimizers import AdamFactory, OptimizerFactory
from ..models.parameters import PositiveParameter
from ..models.policies import SquashedNormalPolicy


class SACImpl(ActorCriticImpl):
    """Policy pi, critics Q, their slow copies Q-, and the temperature alpha."""

    hp: SAC
    policy: SquashedNormalPolicy
    temp: PositiveParameter

    def build(self) -> None:
        self.build_critics()
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        self.policy = SquashedNormalPolicy(encoder, self.action_size)
        self.actor_optim = self.optimizer("actor", [self.policy])
        self.temp = PositiveParameter(self.hp.initial_temperature)
        self.temp_optim = self.optimizer("temp", [self.temp])

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: critics, actor, temperature, slow copies."""
        metrics = self.update_critic(batch)
        metrics |= self.update_actor(batch)
        self.update_critic_target()
        return metrics

    def target(self, batch: Batch) -> Tensor:
        """``min_i Q-_i(s', a') - alpha log pi(a'|s')`` with ``a'`` drawn from the policy (eq. 3, 5)."""
        action, log_prob = self.policy.sample(batch.next_observations)
        return self.targ_q_funcs.target(batch.next_observations, action) - self.temp() * log_prob

    def update_actor(self, batch: Batch) -> Metrics:
        """The actor, and the temperature for the same actions."""
        action, log_prob = self.policy.sample(batch.observations)
        loss = self.policy_loss(batch.observations, action, log_prob)
        gradient_step(self.actor_optim, loss)
        metrics = {"actor_loss": loss.detach()}
        if self.hp.temp_learning_rate > 0:
            metrics |= self.update_temp(log_prob.detach())
        return metrics

    def actor_loss(self, batch: Batch) -> Tensor:
        return self.policy_loss(batch.observations, *self.policy.sample(batch.observations))

    def policy_loss(self, observations: Tensor, action: Tensor, log_prob: Tensor) -> Tensor:
        """``E[alpha log pi(a|s) - min_i Q_i(s, a)]`` (eq. 9)."""
        q = self.q_funcs.detached(observations, action, critic=None).amin(dim=0)
        return (self.temp().detach() * log_prob - q).mean()

    def update_temp(self, log_prob: Tensor) -> Metrics:
        loss = self.temp_loss(log_prob)
        gradient_step(self.temp_optim, loss)
        return {"temp_loss": loss.detach(), "temp": self.temp().detach()}

    def temp_loss(self, log_prob: Tensor) -> Tensor:
        """``-E[alpha (log pi(a|s) - |A|)]``, which draws the entropy to ``-|A|`` (eq. 18)."""
        return -(self.temp() * (log_prob - self.action_size)).mean()

    def sample_action(self, observations: Tensor) -> Tensor:
        return self.policy.sample_action(observations)


@algorithm
class SAC(ActorCriticAlgo):
    r"""Soft actor-critic.

    .. math::
        L_Q = \sum_i E[(r + \gamma (\min_j \bar Q_j(s', a') - \alpha \log \pi(a'|s')) - Q_i(s, a))^2], \quad
        L_\pi = E[\alpha \log \pi(a|s) - \min_i Q_i(s, a)]

    Examples
    --------
    >>> SAC(initial_temperature=0.1)
    SAC(initial_temperature=0.1)
    """

    temp_learning_rate: float = hp(3e-4, "learning rate of the temperature; 0 keeps it as it is", low=0)
    temp_optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer of the temperature", fixed=True)
    initial_temperature: float = hp(1.0, "temperature at the start", low=1e-20, fixed=True)

    Impl = SACImpl

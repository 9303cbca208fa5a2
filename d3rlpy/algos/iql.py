"""IQL, implicit Q-learning: offline control that never asks for the value of an action outside the data.

Paper: Kostrikov, Nair, Levine 2021, arXiv:2110.06169v1, algorithm 1 and equations 5 to 7.
The order of an update is that of algorithm 1, V, then Q with the new V, then the slow copies. The paper extracts the
policy in a loop of its own, here as in the authors' code it learns along, and they step V, policy, Q, slow copies. The
policy's weights come from the slow critics as they were before this update and from the new V in both orders, so both
compute the same; the slow critics are evaluated once.
Differs from the authors' code: the learning rate of the policy is constant unless its optimizer factory has a
schedule (theirs: cosine decay); the policy's log standard deviation is bounded by a sigmoid (theirs: clipped); any Q
function serves, through its expected value, and is regressed onto the scalar target. The paper treats continuous
actions; with discrete ones the critics read the state alone and the policy is categorical, nothing else changes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..families import ActorCritic, ActorCriticAlgo, DiscreteActorCriticAlgo
from ..functional import expectile_loss
from ..hyperparameters import algorithm, hp, hyperparameters
from ..impl import ActorCriticImpl, Batch, Metrics, expected_values, gradient_step
from ..models.encoders import EncoderFactory, create_encoder
from ..models.policies import CategoricalPolicy, NormalPolicy
from ..models.values import ValueFunction


class IQLImpl(ActorCriticImpl):
    """Policy pi, critics Q, their slow copies Q-, and the state value V."""

    hp: IQL | DiscreteIQL
    policy: NormalPolicy | CategoricalPolicy

    def build(self) -> None:
        self.build_critics()
        self.value_func = ValueFunction(create_encoder(self.hp.value_encoder_factory, self.observation_shape))
        self.value_optim = self.optimizer("critic", [self.value_func])
        self.policy = self.create_policy()
        self.actor_optim = self.optimizer("actor", [self.policy])

    def create_policy(self) -> NormalPolicy | CategoricalPolicy:
        """A Gaussian around ``tanh``, not squashed, whose standard deviation doesn't depend on the state."""
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        return NormalPolicy(encoder, self.action_size, min_log_std=-5.0, max_log_std=2.0, use_std_parameter=True)

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: V, critics with the new V; the policy with the new V; slow copies."""
        q = self.slow_value(batch)
        metrics = self.update_value(batch, q)
        metrics |= self.update_critic(batch)
        metrics |= self.update_policy(batch, q)
        self.update_critic_target()
        return metrics

    def slow_value(self, batch: Batch) -> Tensor:
        """``min_i Q-_i(s, a)``, ``(batch, 1)``."""
        with torch.no_grad():
            return expected_values(self.targ_q_funcs, batch.observations, batch.actions).amin(dim=0)[:, None]

    def update_value(self, batch: Batch, q: Tensor) -> Metrics:
        loss = self.value_loss(batch, q)
        gradient_step(self.value_optim, loss)
        return {"value_loss": loss.detach()}

    def value_loss(self, batch: Batch, q: Tensor) -> Tensor:
        """``E[|expectile - 1[u < 0]| u^2]`` of ``u = min_i Q-_i(s, a) - V(s)`` (eq. 5)."""
        return expectile_loss(q - self.value_func(batch.observations), self.hp.expectile).mean()

    def target(self, batch: Batch) -> Tensor:
        """``V(s')`` (eq. 6)."""
        return self.value_func(batch.next_observations)

    def update_policy(self, batch: Batch, q: Tensor) -> Metrics:
        loss = self.policy_loss(batch, q)
        gradient_step(self.actor_optim, loss)
        return {"actor_loss": loss.detach()}

    def actor_loss(self, batch: Batch) -> Tensor:
        return self.policy_loss(batch, self.slow_value(batch))

    def policy_loss(self, batch: Batch, q: Tensor) -> Tensor:
        """``-E[min(exp(beta (min_i Q-_i(s, a) - V(s))), max_weight) log pi(a|s)]`` (eq. 7)."""
        with self.reading():
            advantage = q - self.value_func(batch.observations)
            weight = (self.hp.weight_temp * advantage).exp().clamp(max=self.hp.max_weight)
        return -(weight * self.policy.log_prob(batch.observations, batch.actions)).mean()

    def sample_action(self, observations: Tensor) -> Tensor:
        return self.policy.sample_action(observations)


class DiscreteIQLImpl(IQLImpl):
    """The same with a categorical policy."""

    def create_policy(self) -> CategoricalPolicy:
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        return CategoricalPolicy(encoder, self.action_size)


@hyperparameters
class ImplicitQLearning(ActorCritic):
    """What the two have in common."""

    value_encoder_factory: str | EncoderFactory = hp(
        "default", "body of V, whose optimizer is like that of the critics", fixed=True
    )
    expectile: float = hp(0.7, "tau of eq. 5: 0.5 is the mean over the data's actions, 1 their maximum", low=0, high=1)
    weight_temp: float = hp(3.0, "beta of eq. 7, an inverse temperature: 0 is plain cloning", low=0)
    max_weight: float = hp(100.0, "largest weight of a transition in the policy's loss", low=0)


@algorithm
class IQL(ImplicitQLearning, ActorCriticAlgo):
    r"""Implicit Q-learning.

    V is an expectile of Q over the actions of the data, so the target of Q needs no policy; the policy clones the data
    with weights that favour the actions better than V.

    .. math::
        L_V = E[L_2^\tau(\min_i \bar Q_i(s, a) - V(s))], \quad L_Q = \sum_i E[(r + \gamma V(s') - Q_i(s, a))^2], \quad
        L_\pi = -E[e^{\beta (\min_i \bar Q_i(s, a) - V(s))} \log \pi(a|s)]

    Examples
    --------
    >>> IQL(expectile=0.9)
    IQL(expectile=0.9)
    """

    Impl = IQLImpl


@algorithm
class DiscreteIQL(ImplicitQLearning, DiscreteActorCriticAlgo):
    r"""Implicit Q-learning for discrete actions: the losses of ``IQL``.

    Examples
    --------
    >>> DiscreteIQL(expectile=0.9)
    DiscreteIQL(expectile=0.9)
    """

    tau: float = hp(0.005, "share of the online networks copied into their slow copies", low=0, high=1)

    Impl = DiscreteIQLImpl

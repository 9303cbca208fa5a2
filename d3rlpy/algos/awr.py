"""AWR: two regressions, of state values onto returns and of the policy onto the better actions of the data.

Paper: Peng, Kumar, Zhang, Levine 2019, "Advantage-weighted regression: simple and scalable off-policy reinforcement
learning", arXiv:1910.00177, algorithm 1.
An update is one iteration: TD(lambda) returns of a big batch by the old V, many steps of V, advantages of the same
returns over the new V, many steps of the policy. Returns end with the episode; timeouts bootstrap, terminals don't.
Differs from the paper: advantages are standardised over the big batch, so ``beta`` does not depend on the scale of
rewards; the Gaussian's mean is squashed, and its standard deviation is one learned number per action dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..families import ContinuousAlgo, DiscreteAlgo, ValueAlgo
from ..functional import backward_recursion
from ..hyperparameters import algorithm, hp, hyperparameters
from ..impl import AlgorithmImpl, Batch, EpisodeBatch, Metrics, gradient_step
from ..models.encoders import EncoderFactory, create_encoder
from ..models.optimizers import Optimizer, OptimizerFactory, SGDFactory
from ..models.policies import CategoricalPolicy, NormalPolicy
from ..models.q_functions.ensemble import frozen
from ..models.values import ValueFunction


class AWRImpl(AlgorithmImpl):
    """Policy pi and state values V."""

    hp: AWRAlgo
    policy: NormalPolicy | CategoricalPolicy
    batch_type = EpisodeBatch
    alone = "it learns from whole episodes, and theirs have different lengths"

    def build(self) -> None:
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        if self.hp.action_space == "discrete":
            self.policy = CategoricalPolicy(encoder, self.action_size)
        else:
            self.policy = NormalPolicy(encoder, self.action_size, -5.0, 2.0, use_std_parameter=True)
        self.value_func = ValueFunction(create_encoder(self.hp.critic_encoder_factory, self.observation_shape))
        self.actor_optim = self.optimizer("actor", [self.policy])
        self.critic_optim = self.optimizer("critic", [self.value_func])

    def update(self, batch: Batch) -> Metrics:
        """One iteration of algorithm 1."""
        hp, x, returns = self.hp, batch.observations, self.returns(batch)
        critic_loss = self.regress(self.critic_optim, hp.n_critic_updates, self.value_loss, x, returns)
        weights = self.weights(x, returns)
        actor_loss = self.regress(self.actor_optim, hp.n_actor_updates, self.actor_loss, x, batch.actions, weights)
        return {"critic_loss": critic_loss, "actor_loss": actor_loss, "weights": weights.mean()}

    def returns(self, batch: Batch) -> Tensor:
        """``R_t = r_t + gamma ((1 - lambda) V(s_{t+1}) + lambda R_{t+1})``, TD(lambda), ``(batch, 1)``.

        At an episode's end, or where the batch does not know how it goes on, ``r_t + gamma (1 - d) V(s_{t+1})``.
        """
        if not isinstance(batch, EpisodeBatch):
            return batch.rewards + batch.discounts * self.state_values(batch.next_observations)
        columns = [(s.rewards, s.discounts, self.state_values(s.next_observations)) for s in batch.steps]
        rewards, discounts, values = (torch.cat(column) for column in zip(*columns, strict=True))
        lam = self.hp.lam * batch.continues
        return backward_recursion(rewards + discounts * (1 - lam) * values, discounts * lam)[batch.places]

    def state_values(self, observations: Tensor) -> Tensor:
        """``V(s)`` without gradient and as in evaluation, ``(batch, 1)``; in parts, so that images fit in memory."""
        with torch.no_grad(), frozen(self.value_func):
            return torch.cat([self.value_func(part) for part in observations.split(self.hp.batch_size_per_update)])

    def regress(self, optim: Optimizer, n_updates: int, loss: Callable[..., Tensor], *columns: Tensor) -> Tensor:
        """``n_updates`` gradient steps on mini-batches of one permutation after the other; the mean loss."""
        size = min(self.hp.batch_size_per_update, n_rows := len(columns[0]))
        n_passes = -(-n_updates * size // n_rows)  # rounded up
        order = torch.cat([torch.randperm(n_rows, device=self.device) for _ in range(n_passes)])[: n_updates * size]
        total = torch.zeros((), device=self.device)
        for picks in order.split(size):
            value = loss(*(column[picks] for column in columns))
            gradient_step(optim, value)
            total += value.detach()
        return total / n_updates

    def value_loss(self, observations: Tensor, returns: Tensor) -> Tensor:
        """``E[(R - V(s))^2]`` (algorithm 1, line 5)."""
        return F.mse_loss(self.value_func(observations), returns)

    def weights(self, observations: Tensor, returns: Tensor) -> Tensor:
        """``min(exp(A / beta), max_weight)`` of the standardised advantages ``A = R - V(s)``, ``(batch, 1)``."""
        advantage = returns - self.state_values(observations)
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-5)
        return (advantage / self.hp.beta).exp().clamp(max=self.hp.max_weight)

    def actor_loss(self, observations: Tensor, actions: Tensor, weights: Tensor) -> Tensor:
        """``-E[w log pi(a|s)]`` (algorithm 1, line 6)."""
        return -(weights * self.policy.log_prob(observations, actions)).mean()

    def best_action(self, observations: Tensor) -> Tensor:
        return self.policy(observations)

    def sample_action(self, observations: Tensor) -> Tensor:
        return self.policy.sample_action(observations)


@hyperparameters
class AWRAlgo(ValueAlgo):
    """What the two have in common."""

    batch_size: int = hp(2048, "transitions in the big batch of an update")
    batch_size_per_update: int = hp(256, "transitions in a gradient step", low=1)
    n_actor_updates: int = hp(1000, "gradient steps of the policy in an update", low=1)
    n_critic_updates: int = hp(200, "gradient steps of V in an update", low=1)
    lam: float = hp(0.95, "lambda of TD(lambda): 0 is one reward, 1 the rest of the episode", low=0, high=1)
    beta: float = hp(1.0, "temperature: small is greedy, large is plain cloning", low=1e-8)
    max_weight: float = hp(20.0, "largest weight of a transition", low=0)
    actor_learning_rate: float = hp(5e-5, "learning rate of the policy", low=0)
    critic_learning_rate: float = hp(1e-4, "learning rate of V", low=0)
    actor_optim_factory: str | OptimizerFactory = hp(SGDFactory(momentum=0.9), "optimizer of the policy", fixed=True)
    critic_optim_factory: str | OptimizerFactory = hp(SGDFactory(momentum=0.9), "optimizer of V", fixed=True)
    actor_encoder_factory: str | EncoderFactory = hp("default", "body of the policy", fixed=True)
    critic_encoder_factory: str | EncoderFactory = hp("default", "body of V", fixed=True)
    n_steps: ClassVar[int] = 1  # type: ignore[misc]  # no parameter: lambda says how far returns look

    Impl = AWRImpl


@algorithm
class AWR(AWRAlgo, ContinuousAlgo):
    r"""Advantage-weighted regression.

    .. math:: L_V = E[(R^\lambda - V(s))^2], \quad L_\pi = -E[e^{(R^\lambda - V(s)) / \beta} \log \pi(a|s)]

    Examples
    --------
    >>> AWR(beta=0.5)
    AWR(beta=0.5)
    """


@algorithm
class DiscreteAWR(AWRAlgo, DiscreteAlgo):
    """Advantage-weighted regression for discrete actions, with the losses of ``AWR``.

    Examples
    --------
    >>> DiscreteAWR(lam=0.9)
    DiscreteAWR(lam=0.9)
    """

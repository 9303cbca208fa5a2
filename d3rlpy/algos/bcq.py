"""BCQ: critics that choose among actions which a generative model of the data proposes, slightly perturbed.

Paper: Fujimoto, Meger, Precup 2019, "Off-policy deep reinforcement learning without exploration", arXiv:1812.02900,
algorithm 1.
Differs from the paper: as many candidates (100) in the target as in acting, where the authors train with 10; networks
of 2 layers of 256 units, theirs have 400 and 300, 750 in the VAE. As in the authors' code, the first critic chooses the
action to take, latents are cut at +-0.5, log standard deviations lie in [-4, 15], and perturbed actions in [-1, 1].
Greedy actions come from latents that are drawn once and kept with the model, so they are the same on every call.
"""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor

from ..families import ActorCriticAlgo
from ..hyperparameters import algorithm, hp, hyperparameters
from ..impl import ActorCriticImpl, AlgorithmImpl, Batch, Metrics, gradient_step, soft_sync, target_copy
from ..models.encoders import EncoderFactory, create_encoder_with_action
from ..models.imitators import ConditionalVAE
from ..models.optimizers import AdamFactory, Optimizer, OptimizerFactory
from ..models.policies import ResidualPolicy
from ..models.q_functions.ensemble import frozen


class VAEImpl(AlgorithmImpl, ABC):
    """A generative model G of the actions in the data, for algorithms that act through it."""

    imitator: ConditionalVAE
    imitator_optim: Optimizer

    def build_imitator(self) -> None:
        self.imitator = ConditionalVAE(self.hp.imitator_encoder_factory, self.observation_shape, self.action_size)
        self.imitator_optim = self.optimizer("imitator", [self.imitator])

    def imitator_loss(self, batch: Batch) -> Tensor:
        """``E[(G(s, z) - a)^2] + beta E[KL(z || N(0, 1))]``, ``z`` drawn from the encoder of (s, a)."""
        return self.imitator.loss(batch.observations, batch.actions, self.hp.beta)

    def update_imitator(self, batch: Batch) -> Metrics:
        loss = self.imitator_loss(batch)
        gradient_step(self.imitator_optim, loss)
        return {"imitator_loss": loss.detach()}


class BCQImpl(VAEImpl, ActorCriticImpl):
    """Generative model G, perturbation xi, critics Q, and slow copies of the last two."""

    hp: BCQ
    policy: ResidualPolicy
    targ_policy: ResidualPolicy
    noise: Tensor
    policy_modules: tuple[str, ...] = ("policy", "targ_policy", "imitator")

    def build(self) -> None:
        self.build_critics()
        self.build_imitator()
        encoder = create_encoder_with_action(self.hp.actor_encoder_factory, self.observation_shape, self.action_size)
        self.policy = ResidualPolicy(encoder, self.action_size)
        self.targ_policy = target_copy(self.policy)
        self.actor_optim = self.optimizer("actor", [self.policy])
        self.register_buffer("noise", self.imitator.draw_latent(torch.empty(1), self.hp.n_action_samples))

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: the generative model; after ``rl_start_step`` updates also critics, actor and slow copies."""
        metrics = self.update_imitator(batch)
        if self.is_past(self.hp.rl_start_step):
            metrics |= self.update_critic(batch)
            if self.is_due(self.hp.update_actor_interval):
                metrics |= self.update_actor(batch)
                self.update_critic_target()
                soft_sync(self.targ_policy, self.policy, self.hp.tau)
        return metrics

    def target(self, batch: Batch) -> Tensor:
        """``max_i [lam min_j Q-_j(s', a_i) + (1 - lam) max_j Q-_j(s', a_i)]`` over n candidates (eq. 13)."""
        x = batch.next_observations
        with frozen(self.imitator):
            actions = self.candidates(x, self.imitator.draw_latent(x, self.hp.n_action_samples), self.targ_policy)
        return self.targ_q_funcs.best_of(x, actions, "mix", self.hp.lam)[0]

    def candidates(self, x: Tensor, latent: Tensor, policy: ResidualPolicy) -> Tensor:
        """Perturbed actions ``(B, n, A)`` of the latents ``(B, n, 2 A)``: ``a + xi(s, a)`` with ``a = G(s, z)``."""
        n = latent.shape[1]
        actions = self.imitator.decode(x, latent).unflatten(0, (-1, n))
        return policy(x, actions, self.hp.action_flexibility).unflatten(0, (-1, n))

    def actor_loss(self, batch: Batch) -> Tensor:
        """``-E[Q_1(s, a + xi(s, a))]`` with one ``a`` drawn from the generative model for each state (eq. 12)."""
        x = batch.observations
        with torch.no_grad(), frozen(self.imitator):
            action = self.imitator.decode(x, self.imitator.draw_latent(x, 1))
        return -self.q_funcs.detached(x, self.policy(x, action, self.hp.action_flexibility), critic=0).mean()

    def best_action(self, observations: Tensor) -> Tensor:
        """The candidate with the greatest ``Q_1``; the latents are the same for all observations and calls."""
        return self.choose(observations, self.noise.expand(observations.shape[0], -1, -1))

    def sample_action(self, observations: Tensor) -> Tensor:
        """The candidate with the greatest ``Q_1`` among newly drawn ones."""
        return self.choose(observations, self.imitator.draw_latent(observations, self.hp.n_action_samples))

    def choose(self, x: Tensor, latent: Tensor) -> Tensor:
        actions, n = self.candidates(x, latent, self.policy), latent.shape[1]  # (B, n, A)
        best = self.q_funcs.detached(x, actions, critic=0).unflatten(0, (-1, n)).argmax(dim=1)  # (B, 1)
        # By row numbers of the observations: exported, the candidates don't know the size of the batch.
        first = n * torch.arange(x.shape[0], device=best.device)
        return actions.flatten(0, 1).index_select(0, first + best.squeeze(1))


@hyperparameters
class VAEAlgo(ActorCriticAlgo):
    """What algorithms that act through a generative model of the data have in common."""

    batch_size: int = hp(100)
    actor_learning_rate: float = hp(1e-3)
    critic_learning_rate: float = hp(1e-3)
    imitator_learning_rate: float = hp(1e-3, "learning rate of the generative model", low=0)
    imitator_optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer of the generative model", fixed=True)
    imitator_encoder_factory: str | EncoderFactory = hp("default", "bodies of the generative model", fixed=True)
    update_actor_interval: int = hp(1, "critic updates per update of the actor and the slow copies", low=1)
    lam: float = hp(0.75, "share of the smallest critic in the target, the rest is that of the greatest", low=0, high=1)
    beta: float = hp(0.5, "weight of the KL divergence in the loss of the generative model", low=0)


@algorithm
class BCQ(VAEAlgo):
    r"""Batch-constrained Q-learning.

    .. math::
        y = r + \gamma \max_{a_i} [\lambda \min_j \bar Q_j(s', a_i) + (1 - \lambda) \max_j \bar Q_j(s', a_i)], \quad
        a_i = \hat a_i + \bar\xi(s', \hat a_i), \quad \hat a_i \sim G(s')

    Examples
    --------
    >>> BCQ(n_action_samples=10)
    BCQ(n_action_samples=10)
    """

    n_action_samples: int = hp(100, "candidates for each state, n in algorithm 1", low=1, fixed=True)
    action_flexibility: float = hp(0.05, "largest perturbation of an action, Phi in algorithm 1", low=0)
    rl_start_step: int = hp(0, "updates at the start that train the generative model alone", low=0)

    Impl = BCQImpl

"""PLAS: a policy in the latent space of a generative model of the data, which keeps its actions near the data.

Paper: Zhou, Bajracharya, Held 2020, "PLAS: latent action space for offline reinforcement learning", arXiv:2011.07213,
algorithm 1, and its variant with a perturbation layer.
Differs from the authors' code: the generative model is trained in the first ``warmup_steps`` updates of the same run,
theirs in a run of its own; networks have 2 layers of 256 units, theirs 400 and 300, 750 in the VAE. As there, latents
lie in [-2, 2], the target mixes the smallest and the greatest critic, and the policy follows the first critic.
"""

from __future__ import annotations

from torch import Tensor

from ..hyperparameters import algorithm, hp
from ..impl import ActorCriticImpl, Batch, Metrics, soft_sync, target_copy
from ..models.encoders import create_encoder, create_encoder_with_action
from ..models.policies import DeterministicPolicy, ResidualPolicy
from ..models.q_functions.ensemble import frozen
from .bcq import VAEAlgo, VAEImpl


class PLASImpl(VAEImpl, ActorCriticImpl):
    """Generative model G, latent policy pi, critics Q, and slow copies of the last two."""

    hp: PLAS
    policy: DeterministicPolicy
    targ_policy: DeterministicPolicy
    policy_modules: tuple[str, ...] = ("policy", "targ_policy", "imitator")

    def build(self) -> None:
        self.build_critics()
        self.build_imitator()
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        self.policy = DeterministicPolicy(encoder, self.imitator.latent_size)
        self.targ_policy = target_copy(self.policy)
        self.actor_optim = self.optimizer("actor", [self.policy])

    def update(self, batch: Batch) -> Metrics:
        """The generative model for ``warmup_steps`` updates, from then on critics, actor and slow copies."""
        if not self.is_past(self.hp.warmup_steps):
            return self.update_imitator(batch)
        metrics = self.update_critic(batch)
        if self.is_due(self.hp.update_actor_interval):
            metrics |= self.update_actor(batch)
            self.update_critic_target()
            self.update_actor_target()
        return metrics

    def update_actor_target(self) -> None:
        soft_sync(self.targ_policy, self.policy, self.hp.tau)

    def action(self, x: Tensor) -> Tensor:
        """``G(s, z)`` with ``z = c pi(s)``, where ``pi`` ends in tanh and ``c`` is ``max_latent_action``."""
        return self.decode(x, self.policy)

    def targ_action(self, x: Tensor) -> Tensor:
        """``action`` of the slow copy of the policy."""
        return self.decode(x, self.targ_policy)

    def decode(self, x: Tensor, policy: DeterministicPolicy) -> Tensor:
        return self.imitator.decode(x, self.hp.max_latent_action * policy(x))

    def target(self, batch: Batch) -> Tensor:
        """``lam min_j Q-_j(s', a') + (1 - lam) max_j Q-_j(s', a')`` with ``a' = G(s', c pi-(s'))``."""
        x = batch.next_observations
        with frozen(self.imitator):
            action = self.targ_action(x)
        return self.targ_q_funcs.target(x, action, "mix", self.hp.lam)

    def actor_loss(self, batch: Batch) -> Tensor:
        """``-E[Q_1(s, G(s, c pi(s)))]``; the gradient passes through the decoder and leaves it as it is."""
        x = batch.observations
        with frozen(self.imitator):
            action = self.action(x)
        return -self.q_funcs.detached(x, action, critic=0).mean()

    def best_action(self, observations: Tensor) -> Tensor:
        return self.action(observations)


class PLASWithPerturbationImpl(PLASImpl):
    """The networks of PLAS, a perturbation xi of decoded actions, and its slow copy."""

    hp: PLASWithPerturbation
    perturbation: ResidualPolicy
    targ_perturbation: ResidualPolicy
    policy_modules: tuple[str, ...] = ("policy", "targ_policy", "imitator", "perturbation", "targ_perturbation")

    def build(self) -> None:
        super().build()
        encoder = create_encoder_with_action(self.hp.actor_encoder_factory, self.observation_shape, self.action_size)
        self.perturbation = ResidualPolicy(encoder, self.action_size)
        self.targ_perturbation = target_copy(self.perturbation)
        self.actor_optim = self.optimizer("actor", [self.policy, self.perturbation])

    def action(self, x: Tensor) -> Tensor:
        """``a + xi(s, a)`` with ``a = G(s, c pi(s))``, and ``|xi|`` at most ``action_flexibility``."""
        return self.perturbation(x, super().action(x), self.hp.action_flexibility)

    def targ_action(self, x: Tensor) -> Tensor:
        return self.targ_perturbation(x, super().targ_action(x), self.hp.action_flexibility)

    def update_actor_target(self) -> None:
        super().update_actor_target()
        soft_sync(self.targ_perturbation, self.perturbation, self.hp.tau)


@algorithm
class PLAS(VAEAlgo):
    r"""Policy in the latent action space.

    .. math::
        y = r + \gamma [\lambda \min_j \bar Q_j(s', a') + (1 - \lambda) \max_j \bar Q_j(s', a')], \quad
        a' = G(s', \bar\pi(s')), \qquad L_\pi = -E[Q_1(s, G(s, \pi(s)))]

    Examples
    --------
    >>> PLAS(warmup_steps=1000)
    PLAS(warmup_steps=1000)
    """

    actor_learning_rate: float = hp(1e-4)
    imitator_learning_rate: float = hp(1e-4)
    warmup_steps: int = hp(500000, "updates at the start that train the generative model, and nothing else", low=0)
    max_latent_action: float = hp(2.0, "largest component of a latent action", low=0)

    Impl = PLASImpl


@algorithm
class PLASWithPerturbation(PLAS):
    r"""PLAS whose decoded actions are perturbed, so that they can leave what the decoder reaches.

    .. math:: a = \hat a + \xi(s, \hat a), \quad \hat a = G(s, \pi(s)), \quad |\xi| \le \Phi

    Examples
    --------
    >>> PLASWithPerturbation(action_flexibility=0.1)
    PLASWithPerturbation(action_flexibility=0.1)
    """

    action_flexibility: float = hp(0.05, "largest perturbation of an action, Phi", low=0)

    Impl = PLASWithPerturbationImpl

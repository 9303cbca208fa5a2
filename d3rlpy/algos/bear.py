"""BEAR: an actor-critic whose policy must stay within the support of the data, by a bound on their MMD.

Paper: Kumar, Fu, Tucker, Levine 2019, arXiv:1906.00949v2, algorithm 1 and equation 1. Its estimate of the MMD keeps the
diagonals: for n samples of equal distributions the square is ``(2 / n) (1 - E k(x, x'))`` on average and not 0.
As in the authors' code: kernels ``exp(-d / (2 sigma))``; samples compared before tanh; a conditional VAE for the policy
of the data; log alpha clamped to [-5, 10]; Q left out during a warm-up; acting by the first critic. They also clamp the
noise of the policy's samples to 0.5, average Q over all of them, and act by the best of 10. Differs from both: an
entropy bonus as in SAC after the warm-up; ``temp_learning_rate=0, initial_temperature=1e-20`` removes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..functional import mmd
from ..hyperparameters import algorithm, hp
from ..impl import Batch, Metrics, gradient_step, soft_sync, target_copy
from ..models.encoders import EncoderFactory
from ..models.imitators import ConditionalVAE
from ..models.optimizers import AdamFactory, OptimizerFactory
from ..models.parameters import PositiveParameter
from ..models.policies import candidate_noise, pick_candidate
from ..models.q_functions import pick_action
from ..models.q_functions.ensemble import frozen
from .sac import SAC, SACImpl


class BEARImpl(SACImpl):
    """The networks of SAC, a slow policy pi-, the imitator of the data D, and the multiplier alpha of the bound."""

    hp: BEAR
    noise: Tensor

    def build(self) -> None:
        super().build()
        self.targ_policy = target_copy(self.policy)
        self.imitator = ConditionalVAE(self.hp.imitator_encoder_factory, self.observation_shape, self.action_size)
        self.imitator_optim = self.optimizer("imitator", [self.imitator])
        self.alpha = PositiveParameter(self.hp.initial_alpha)
        self.alpha_optim = self.optimizer("alpha", [self.alpha])
        self.register_buffer("noise", candidate_noise(self.hp.n_action_samples, self.action_size))

    def update(self, batch: Batch) -> Metrics:
        """Algorithm 1: the imitator, the critics, the actor and the multiplier, the slow copies."""
        metrics = self.update_imitator(batch)
        metrics |= self.update_critic(batch)
        metrics |= self.update_actor(batch)
        self.update_critic_target()
        soft_sync(self.targ_policy, self.policy, self.hp.tau)
        return metrics

    def update_imitator(self, batch: Batch) -> Metrics:
        loss = self.imitator.loss(batch.observations, batch.actions, self.hp.vae_kl_weight)
        gradient_step(self.imitator_optim, loss)
        return {"imitator_loss": loss.detach()}

    def target(self, batch: Batch) -> Tensor:
        """``max_i (lam min_j Q-_j(s', a_i) + (1 - lam) max_j Q-_j(s', a_i)) - temp log pi-(a_i|s')``, ``a_i ~ pi-``."""
        actions, log_probs = self.targ_policy.sample_n(batch.next_observations, self.hp.n_target_samples)
        values, best = self.targ_q_funcs.best_of(batch.next_observations, actions, "mix", self.hp.lam)
        return values if self.is_warming_up else values - self.temp() * pick_action(log_probs, best)

    def update_actor(self, batch: Batch) -> Metrics:
        """The actor; for the same samples the multiplier and, once the warm-up is over, the temperature."""
        raw, log_probs = self.policy.sample_raw(batch.observations, self.hp.n_mmd_action_samples)
        excess = self.excess(batch.observations, raw)
        loss = self.lagrangian(batch.observations, raw, log_probs, excess)
        gradient_step(self.actor_optim, loss)
        metrics = {"actor_loss": loss.detach()}
        if self.hp.alpha_learning_rate > 0:
            metrics |= self.update_alpha(excess.detach())
        if self.hp.temp_learning_rate > 0 and not self.is_warming_up:
            metrics |= self.update_temp(log_probs[:, 0].detach())
        return metrics

    @property
    def is_warming_up(self) -> bool:
        """Whether the policy still learns to imitate only, without Q and entropy."""
        return not self.is_past(self.hp.warmup_steps)

    def actor_loss(self, batch: Batch) -> Tensor:
        raw, log_probs = self.policy.sample_raw(batch.observations, self.hp.n_mmd_action_samples)
        return self.lagrangian(batch.observations, raw, log_probs, self.excess(batch.observations, raw))

    def lagrangian(self, observations: Tensor, raw: Tensor, log_probs: Tensor, excess: Tensor) -> Tensor:
        """``E[temp log pi(a|s) - min_j Q_j(s, a)] + alpha E[MMD(D(s), pi(s)) - eps]``, a warm-up without the former."""
        penalty = self.alpha().detach() * excess
        if self.is_warming_up:
            return penalty
        return self.policy_loss(observations, torch.tanh(raw[:, 0]), log_probs[:, 0]) + penalty

    def excess(self, observations: Tensor, raw: Tensor) -> Tensor:
        """``E[MMD(D(s), pi(s)) - eps]`` over samples of both before tanh; the gradient reaches pi's samples ``raw``."""
        n = raw.shape[1]
        with torch.no_grad(), frozen(self.imitator):
            latent = self.imitator.draw_latent(observations, n)
            data = self.imitator.decode_raw(observations, latent).unflatten(0, (-1, n))
        return mmd(data, raw, self.hp.mmd_kernel, self.hp.mmd_sigma).mean() - self.hp.alpha_threshold

    def update_alpha(self, excess: Tensor) -> Metrics:
        """Gradient ascent of the multiplier on ``alpha E[MMD - eps]``."""
        loss = self.alpha_loss(excess)
        gradient_step(self.alpha_optim, loss)
        with torch.no_grad():
            self.alpha.log.copy_(self.alpha.log.clamp(-5.0, 10.0))
        return {"alpha_loss": loss.detach(), "alpha": self.alpha().detach()}

    def alpha_loss(self, excess: Tensor) -> Tensor:
        """``-alpha E[MMD - eps]``: alpha grows while the policy is too far from the data."""
        return -self.alpha() * excess

    def best_action(self, observations: Tensor) -> Tensor:
        """The best by ``Q_1`` of ``n_action_samples`` actions of the policy, whose noise is always the same."""
        actions = self.policy.candidates(observations, self.noise)
        q = self.q_funcs.detached(observations, actions, critic=0).unflatten(0, (-1, actions.shape[1]))  # (B, n, 1)
        return pick_candidate(actions, q.squeeze(2).argmax(dim=1))


@algorithm
class BEAR(SAC):
    r"""Bootstrapping error accumulation reduction.

    .. math:: L_\pi = E[-\min_j Q_j(s, a)] + \alpha (E[\mathrm{MMD}(D(s), \pi(s))] - \epsilon), \quad \max_\alpha L_\pi

    Examples
    --------
    >>> BEAR(mmd_kernel="gaussian")
    BEAR(mmd_kernel='gaussian')
    """

    actor_learning_rate: float = hp(1e-4)
    imitator_learning_rate: float = hp(3e-4, "learning rate of the imitator", low=0)
    temp_learning_rate: float = hp(1e-4)
    alpha_learning_rate: float = hp(1e-3, "learning rate of the multiplier; 0 keeps it as it is", low=0)
    imitator_optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer of the imitator", fixed=True)
    alpha_optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer of the multiplier", fixed=True)
    imitator_encoder_factory: str | EncoderFactory = hp("default", "body of the imitator's halves", fixed=True)
    initial_alpha: float = hp(1.0, "multiplier of the bound at the start", low=1e-20, fixed=True)
    alpha_threshold: float = hp(0.05, "largest MMD between policy and data, epsilon in equation 1", low=0)
    lam: float = hp(0.75, "weight of the smallest critic against the largest in the target", low=0, high=1)
    n_action_samples: int = hp(100, "actions to choose from when acting", low=1, fixed=True)
    n_target_samples: int = hp(10, "actions to choose from in the target, p in algorithm 1", low=1)
    n_mmd_action_samples: int = hp(4, "actions of policy and imitator that the MMD compares", low=1)
    mmd_kernel: str = hp("laplacian", "kernel of the MMD", options=("laplacian", "gaussian"))
    mmd_sigma: float = hp(20.0, "width of the kernel", low=1e-6)
    vae_kl_weight: float = hp(0.5, "weight of the KL divergence in the imitator's loss", low=0)
    warmup_steps: int = hp(40000, "first updates, in which the policy only imitates", low=0)

    Impl = BEARImpl

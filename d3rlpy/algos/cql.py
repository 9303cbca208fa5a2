"""CQL: SAC whose critics are lowered where the policy would like to go and raised at the actions of the data.

Paper: Kumar, Zhou, Tucker, Levine 2020, arXiv:2006.04779v3: CQL(H), equation 4, the Lagrange multiplier of equation 30
and the samples of appendix F.
As in the authors' code: a third of the samples is drawn at s' but valued at s; their sum is not divided by their
number, which only the threshold notices; each critic pays ``alpha (w gap - threshold)``; alpha is at most 1e6.
Differs from it: alpha is cut off after its step, because cut off inside the loss it could never return; a target
without entropy takes the policy's best action, not a sample; the critics use alpha as it is after its step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..hyperparameters import algorithm, hp
from ..impl import Batch, Metrics, gradient_step
from ..models.optimizers import AdamFactory, OptimizerFactory
from ..models.parameters import PositiveParameter
from ..randomness import uniform_like
from .sac import SAC, SACImpl

LARGEST_ALPHA = 1e6


class CQLImpl(SACImpl):
    """The networks of SAC, and the multiplier alpha of the conservative term."""

    hp: CQL
    alpha: PositiveParameter

    def build(self) -> None:
        super().build()
        self.alpha = PositiveParameter(self.hp.initial_alpha)
        self.alpha_optim = self.optimizer("alpha", [self.alpha])

    def target(self, batch: Batch) -> Tensor:
        """``min_i Q-_i(s', pi(s'))`` at the best action, or with ``soft_q_backup`` the target of SAC."""
        if self.hp.soft_q_backup:
            return super().target(batch)
        return self.targ_q_funcs.target(batch.next_observations, self.policy(batch.next_observations))

    def update_critic(self, batch: Batch) -> Metrics:
        """First alpha, then the critics with the new alpha; both read one pass of the critics over all actions."""
        td_loss, gaps = self.critic_terms(batch)
        metrics = self.update_alpha(gaps.detach()) if self.hp.alpha_learning_rate > 0 else {}
        loss = td_loss + self.conservative_loss(gaps)
        gradient_step(self.critic_optim, loss)
        return metrics | {"critic_loss": loss.detach()}

    def critic_loss(self, batch: Batch) -> Tensor:
        td_loss, gaps = self.critic_terms(batch)
        return td_loss + self.conservative_loss(gaps)

    def critic_terms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The temporal-difference loss, and the gap of each critic ``(critics,)``."""
        sampled, log_densities = self.sample_candidates(batch)
        actions = torch.cat([batch.actions[:, None], sampled], dim=1)  # (batch, 1 + 3n, action_size)
        n_batch, n_each = actions.shape[:2]
        values = self.q_funcs.evaluate(batch.observations, actions)
        of_data = values.rows(n_each * torch.arange(n_batch, device=actions.device))
        q = values.expected().squeeze(2).unflatten(1, (n_batch, n_each))
        gaps = self.gaps(q[:, :, 0], self.candidate_values(q[:, :, 1:], batch), log_densities)
        return of_data.td_loss(self.td_target(batch), batch.actions), gaps

    @torch.no_grad()
    def sample_candidates(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Actions ``(batch, 3n, action_size)`` to value at s, and their log densities ``(batch, 3n)``.

        n are drawn from ``pi(.|s)``, n from ``pi(.|s')``, each with its density where it was drawn, and n uniformly
        with density ``0.5^action_size``.
        """
        n, n_batch = self.hp.n_action_samples, len(batch.actions)
        both = torch.cat([batch.observations, batch.next_observations])
        drawn, log_probs = self.policy.sample_n(both, n)
        uniform = uniform_like(drawn[:n_batch]) * 2.0 - 1.0
        log_uniform = torch.full_like(log_probs[:n_batch], self.action_size * math.log(0.5))
        actions = torch.cat([drawn[:n_batch], drawn[n_batch:], uniform], dim=1)
        return actions, torch.cat([log_probs[:n_batch], log_probs[n_batch:], log_uniform], dim=1).squeeze(2)

    def candidate_values(self, q_sampled: Tensor, batch: Batch) -> Tensor:
        """Values of the sampled actions as the gap takes them, ``(critics, batch, 3n)``: as they are."""
        return q_sampled

    def gaps(self, q_data: Tensor, q_sampled: Tensor, log_densities: Tensor) -> Tensor:
        """``E[log sum_j exp(Q_i(s, a_j) - log density(a_j)) - Q_i(s, a)]``, ``(critics,)`` (eq. 4, appendix F)."""
        return ((q_sampled - log_densities).logsumexp(dim=2) - q_data).mean(dim=1)

    def conservative_loss(self, gaps: Tensor) -> Tensor:
        """``sum_i alpha (w gap_i - threshold)`` (eq. 30)."""
        return self.alpha().detach() * self.excess(gaps)

    def excess(self, gaps: Tensor) -> Tensor:
        return (self.hp.conservative_weight * gaps - self.hp.alpha_threshold).sum()

    def update_alpha(self, gaps: Tensor) -> Metrics:
        """Gradient ascent of the multiplier, which stays in [0, 1e6]."""
        loss = self.alpha_loss(gaps)
        gradient_step(self.alpha_optim, loss)
        with torch.no_grad():
            self.alpha.log.copy_(self.alpha.log.clamp(max=math.log(LARGEST_ALPHA)))
        return {"alpha_loss": loss.detach(), "alpha": self.alpha().detach()}

    def alpha_loss(self, gaps: Tensor) -> Tensor:
        """``-sum_i alpha (w gap_i - threshold)``: alpha grows while the critics are not conservative enough."""
        return -self.alpha() * self.excess(gaps)


@algorithm
class CQL(SAC):
    r"""Conservative Q-learning.

    .. math::
        L_Q = L_{TD} + \sum_i \alpha \left(w\, E\left[\log \sum_j e^{Q_i(s, a_j) - \log \mu(a_j)} - Q_i(s, a)\right]
        - \tau\right), \quad \max_\alpha L_Q

    Examples
    --------
    >>> CQL(alpha_learning_rate=0.0)
    CQL(alpha_learning_rate=0.0)
    """

    actor_learning_rate: float = hp(1e-4)
    temp_learning_rate: float = hp(1e-4)
    alpha_learning_rate: float = hp(1e-4, "learning rate of the multiplier alpha; 0 keeps it as it is", low=0)
    alpha_optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer of the multiplier", fixed=True)
    initial_alpha: float = hp(1.0, "multiplier at the start", low=1e-20, high=LARGEST_ALPHA, fixed=True)
    alpha_threshold: float = hp(10.0, "weighted gap of a critic that the multiplier aims at, tau in equation 30")
    conservative_weight: float = hp(5.0, "w, the weight of the gap inside the multiplier's term", low=0)
    n_action_samples: int = hp(10, "n: actions drawn at s, at s' and uniformly, n of each", low=1)
    soft_q_backup: bool = hp(False, "whether the target of SAC, with its entropy, is used")

    Impl = CQLImpl

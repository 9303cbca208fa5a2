"""RLPD: SAC that learns online from new and logged transitions, with many critics that layer norm keeps in bounds.

Paper: Ball, Smith, Kostrikov, Levine 2023, "Efficient online reinforcement learning with offline data",
arXiv:2302.02948v4, algorithm 1 and tables 1 and 2.
Its misprints are corrected: targets gain the entropy, so ``alpha log pi`` is subtracted (line 17), and ``rho`` is the
share of the online critics that the slow ones take over (line 21).
The G rounds of line 11 are G calls of ``update``, the last of which moves the actor and the temperature too. Differs
from the authors' code on images: there all critics and the actor read one stack of convolutions, which has no layer
norm and which the actor does not train; here the encoders are those of every algorithm of this library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..augmentation import Augmentation, augmented, check_augmentation
from ..hyperparameters import algorithm, hp
from ..impl import Batch, Metrics
from ..models.encoders import DefaultEncoderFactory, EncoderFactory
from .sac import SAC, SACImpl


class RLPDImpl(SACImpl):
    """The networks of SAC, with E critics."""

    hp: RLPD
    alone = "which critics it computes is drawn in each update"

    def build(self) -> None:
        self.target_entropy()  # errors of the caller should come first
        self.draw_critics()
        check_augmentation(self.hp.augmentation, self.observation_shape)
        super().build()

    def update(self, batch: Batch) -> Metrics:
        """Lines 11 to 23: critics and slow copies; every ``n_gradient_steps`` updates the actor and the temperature."""
        batch = augmented(batch, self.hp.augmentation)
        metrics = self.update_critic(batch)
        self.update_critic_target()
        if self.is_due(self.hp.n_gradient_steps):
            metrics |= self.update_actor(batch)
        return metrics

    def target(self, batch: Batch) -> Tensor:
        """``min_{i in Z} Q-_i(s', a')``, and ``- alpha log pi(a'|s')`` with ``entropy_backup`` (lines 15 to 17)."""
        action, log_prob = self.policy.sample(batch.next_observations)
        value = self.targ_q_funcs.target(batch.next_observations, action, critics=self.draw_critics())
        return value - self.temp() * log_prob if self.hp.entropy_backup else value

    def draw_critics(self) -> list[int]:
        """Z of the E critics, each set equally likely (line 15); drawn on the CPU, so nothing waits for the device."""
        n, n_critics = self.hp.n_target_critics, self.hp.n_critics
        if n > n_critics:
            raise ValueError(f"RLPD: n_target_critics={n} are more than n_critics={n_critics}: lower it")
        return torch.randperm(n_critics)[:n].tolist()

    def policy_loss(self, observations: Tensor, action: Tensor, log_prob: Tensor) -> Tensor:
        """``E[alpha log pi(a|s) - mean_i Q_i(s, a)]`` over all E critics (line 23)."""
        q = self.q_funcs.detached(observations, action, critic=None).mean(dim=0)
        return (self.temp().detach() * log_prob - q).mean()

    def temp_loss(self, log_prob: Tensor) -> Tensor:
        """``-E[alpha (log pi(a|s) + target entropy)]``, which draws the entropy there."""
        return -(self.temp() * (log_prob + self.target_entropy())).mean()

    def target_entropy(self) -> float:
        """The entropy that the temperature steers to, by default ``-dim(A) / 2`` (table 1)."""
        largest = self.action_size * math.log(2.0)
        given = -0.5 * self.action_size if self.hp.target_entropy is None else self.hp.target_entropy
        if not isinstance(given, (int, float)) or not given <= largest:
            raise ValueError(
                f"RLPD: target_entropy={given!r} must be a number of at most {largest:.5g}, the entropy of uniform "
                "actions"
            )
        return given


@algorithm
class RLPD(SAC):
    r"""Reinforcement learning with prior data.

    .. math::
        L_Q = \sum_i E[(r + \gamma (\min_{j \in Z} \bar Q_j(s', a') - \alpha \log \pi(a'|s')) - Q_i(s, a))^2], \quad
        L_\pi = E[\alpha \log \pi(a|s) - \frac{1}{E} \sum_i Q_i(s, a)]

    ``fit_online(env, offline_dataset=data)`` is the paper's algorithm: ``n_gradient_steps`` updates after each step, on
    batches half of which are logged.

    Examples
    --------
    >>> RLPD(n_target_critics=1, entropy_backup=False)
    RLPD(entropy_backup=False, n_target_critics=1)
    """

    n_critics: int = hp(10)
    critic_encoder_factory: str | EncoderFactory = hp(DefaultEncoderFactory(use_layer_norm=True))
    n_target_critics: int = hp(2, "critics drawn for each target, Z in algorithm 1", options=(1, 2))
    n_gradient_steps: int = hp(20, "updates per update of the actor, and per step online, G in algorithm 1", low=1)
    entropy_backup: bool = hp(True, "whether targets contain the entropy, line 17 of algorithm 1")
    target_entropy: float | None = hp(None, "entropy that the temperature steers to; None is -dim(A) / 2")
    augmentation: str | Augmentation | Sequence[str | Augmentation] | None = hp(
        None, "changes of images in training: 'random_shift', an object, a list of them"
    )

    Impl = RLPDImpl

    @property
    def updates_per_step(self) -> int:
        """G, line 11 of algorithm 1."""
        return self.n_gradient_steps

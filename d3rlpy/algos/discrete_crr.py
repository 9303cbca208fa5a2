"""DiscreteCRR: CRR for discrete actions, a sibling that its paper does not have.

Paper: Wang et al. 2020, arXiv:2006.15134, as in ``crr.py``.
Differs from CRR: the actions can be listed, so that the target, the mean of Q over the policy and the critic weighted
policy are exact. ``advantage_type="max"`` still draws its actions: over all of them no advantage would be positive, and
binary weights would learn nothing.
"""

from __future__ import annotations

from torch import Tensor

from ..families import DiscreteActorCriticAlgo
from ..hyperparameters import algorithm
from ..impl import Batch
from ..models.encoders import create_encoder
from ..models.policies import CategoricalPolicy
from .crr import CRRImpl, CRRParameters, gumbel_argmax


class DiscreteCRRImpl(CRRImpl):
    """A categorical policy, critics Q(s, .), and slow copies of both."""

    hp: DiscreteCRR
    policy: CategoricalPolicy  # type: ignore[assignment]
    targ_policy: CategoricalPolicy  # type: ignore[assignment]

    def build_policy(self) -> None:
        encoder = create_encoder(self.hp.actor_encoder_factory, self.observation_shape)
        self.policy = CategoricalPolicy(encoder, self.action_size)

    def target(self, batch: Batch) -> Tensor:
        """``sum_a pi-(a|s') min_i Q-_i(s', a)``."""
        probs = self.targ_policy.log_probs(batch.next_observations).exp()
        return self.targ_q_funcs.policy_target(batch.next_observations, probs)

    def advantage(self, batch: Batch) -> Tensor:
        """``A = Q(s, a) - sum_a' pi(a'|s) Q(s, a')``, or less ``max_j Q(s, a_j)`` with m actions of the policy."""
        q = self.all_values(batch.observations)
        own = q.gather(1, batch.actions[:, None])
        if self.hp.advantage_type == "mean":
            return own - (self.policy.log_probs(batch.observations).exp() * q).sum(dim=1, keepdim=True)
        drawn, _ = self.policy.sample_n(batch.observations, self.hp.n_action_samples)
        return own - q.gather(1, drawn).amax(dim=1, keepdim=True)

    def all_values(self, observations: Tensor) -> Tensor:
        """Mean over critics of the expected values of all actions, ``(B, A)``."""
        return self.q_funcs.detached(observations, critic=None).mean(dim=0)

    def cwp_logits(self, observations: Tensor) -> Tensor:
        """Logits of the critic weighted policy, ``log pi(a|s) + Q(s, a) / beta``."""
        return self.policy.log_probs(observations) + self.all_values(observations) / self.hp.beta

    def best_action(self, observations: Tensor) -> Tensor:
        return self.cwp_logits(observations).argmax(dim=1)

    def sample_action(self, observations: Tensor) -> Tensor:
        return gumbel_argmax(self.cwp_logits(observations))


@algorithm
class DiscreteCRR(CRRParameters, DiscreteActorCriticAlgo):
    r"""Critic regularized regression for discrete actions.

    .. math:: A(s, a) = Q(s, a) - \sum_{a'} \pi(a'|s) Q(s, a')

    Examples
    --------
    >>> DiscreteCRR(beta=0.5)
    DiscreteCRR(beta=0.5)
    """

    Impl = DiscreteCRRImpl

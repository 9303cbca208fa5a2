"""Cal-QL: CQL that lowers the policy's actions no further than to what the data has earned.

Paper: Nakamoto, Zhai, Singh, Sobol Mark, Ma, Finn, Kumar, Levine 2023, "Cal-QL: calibrated offline RL pre-training for
efficient online fine-tuning", arXiv:2303.05479: equation 5.1 with Monte-Carlo returns of the data as reference values.
As in the authors' code: the return of a transition bounds the actions drawn at its s and at its s', all valued at s,
but neither the uniform ones nor the data's, and before densities are subtracted; all else is CQL.
Differs from it: where no terminal ends an episode, every step that might follow counts as the worst reward of the data.
Theirs depends on the task: failed episodes of sparse tasks are treated in this way; else the return ends at the cut,
which for negative rewards is more than the policy of the data earns, or the last reward goes on.
The differences of our CQL hold here too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hyperparameters import algorithm
from ..impl import Batch, ReturnBatch
from .cql import CQL, CQLImpl


class CalQLImpl(CQLImpl):
    """The networks and losses of CQL, with one maximum in the gap."""

    hp: CalQL
    batch_type = ReturnBatch

    def candidate_values(self, q_sampled: Tensor, batch: Batch) -> Tensor:
        """``max(Q_i(s, a_j), R)`` for the 2n actions of the policy, ``Q_i(s, a_j)`` for the n uniform ones (eq. 5.1).

        A batch that does not know its returns has no bounds.
        """
        if not isinstance(batch, ReturnBatch):
            return q_sampled
        n = self.hp.n_action_samples
        bounds = F.pad(batch.returns.expand(-1, 2 * n), (0, n), value=-math.inf)
        return torch.maximum(q_sampled, bounds)


@algorithm
class CalQL(CQL):
    r"""Calibrated Q-learning: CQL for policies that go on learning online.

    .. math::
        L_Q = L_{TD} + \sum_i \alpha \left(w\, E\left[\log \sum_j e^{\max(Q_i(s, a_j), R_j) - \log \mu(a_j)}
        - Q_i(s, a)\right] - \tau\right), \quad \max_\alpha L_Q

    R is the discounted sum of rewards to the end of the episode, for actions of the policy, and minus infinity for
    uniform ones.

    Examples
    --------
    >>> CalQL(alpha_learning_rate=0.0)
    CalQL(alpha_learning_rate=0.0)
    """

    Impl = CalQLImpl

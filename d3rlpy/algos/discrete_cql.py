"""DiscreteCQL: Double DQN that lowers the values of actions the data doesn't take.

Paper: Kumar, Zhou, Tucker, Levine 2020, arXiv:2006.04779v3, equation 4 (CQL(H)).
Differs from the authors' code: they add the penalty to quantile-regression DQN; here any Q function serves, through
its expected value, and the choice of the next action is that of Double DQN.
"""

from __future__ import annotations

from torch import Tensor

from ..hyperparameters import algorithm, hp
from ..impl import Batch
from ..models.q_functions import pick_action
from .dqn import DQN, DoubleDQNImpl


class DiscreteCQLImpl(DoubleDQNImpl):
    """The networks of Double DQN."""

    hp: DiscreteCQL

    def loss(self, batch: Batch) -> Tensor:
        values = self.q_funcs.evaluate(batch.observations)  # one pass for both terms
        td_loss = values.td_loss(self.td_target(batch), batch.actions)
        return td_loss + self.hp.alpha * self.conservative_loss(values.expected(), batch.actions)

    def conservative_loss(self, q: Tensor, actions: Tensor) -> Tensor:
        """``E[log sum_a exp Q(s, a) - Q(s, a_data)]``, summed over critics (eq. 4); ``q`` is (critics, batch, A)."""
        return (q.logsumexp(dim=2) - pick_action(q[..., None], actions).squeeze(2)).mean(dim=1).sum()


@algorithm
class DiscreteCQL(DQN):
    r"""Conservative Q-learning for discrete actions.

    .. math:: L = L_{DoubleDQN} + \alpha E[\log \sum_a \exp Q(s, a) - Q(s, a_{data})]

    Examples
    --------
    >>> DiscreteCQL(alpha=4.0)
    DiscreteCQL(alpha=4.0)
    """

    alpha: float = hp(1.0, "weight of the conservative term", low=0)

    Impl = DiscreteCQLImpl

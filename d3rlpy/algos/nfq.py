"""NFQ: DQN without a slow copy, the newest network values the next action.

Paper: Riedmiller 2005, "Neural fitted Q iteration: first experiences with a data efficient neural reinforcement
learning method", ECML, figure 1.
Differs from the paper: it computes the targets of all transitions, fits the network to them for hundreds of epochs of
batch Rprop, and starts again; here each step of Adam on one mini-batch is such an iteration, cut short. The error is
Huber's and not squared, rewards are maximised where the paper minimises costs, and the artificial transitions at the
goal ("hint to goal") are left out.
"""

from __future__ import annotations

from typing import ClassVar

from ..hyperparameters import algorithm
from .dqn import DQN


@algorithm
class NFQ(DQN):
    r"""Neural fitted Q iteration.

    .. math:: L = E[\mathrm{Huber}(r + \gamma \max_{a'} Q(s', a') - Q(s, a))], \quad \text{no gradient of the target}

    Examples
    --------
    >>> NFQ(gamma=0.9)
    NFQ(gamma=0.9)
    """

    target_update_interval: ClassVar[int] = 1  # type: ignore[misc]  # no parameter: the copy is always the newest network

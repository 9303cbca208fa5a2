"""DQN and Double DQN: Q-learning with a slow copy of the network.

Papers: Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518, algorithm 1; van
Hasselt, Guez, Silver 2016, arXiv:1509.06461v3, section "Double DQN".
Differs from the papers: Adam instead of RMSprop, a copy every 8000 instead of 10,000 updates, no clipping of rewards
(``reward_scaler="clip"`` does it), and an ensemble of ``n_critics`` networks: their mean chooses the next action, the
minimum of their slow copies is its value.
"""

from __future__ import annotations

from torch import Tensor

from ..families import DiscreteAlgo
from ..hyperparameters import algorithm, hp
from ..impl import Batch, QLearningImpl
from ..models.encoders import EncoderFactory
from ..models.optimizers import AdamFactory, OptimizerFactory
from ..models.q_functions import QFunctionFactory


class DQNImpl(QLearningImpl):
    """Q and its slow copy Q-, which chooses and values the next action."""

    def target(self, batch: Batch) -> Tensor:
        """``max_a Q-(s', a)``; with several critics, their minimum at the action that their mean prefers."""
        return self.targ_q_funcs.greedy_target(batch.next_observations)


class DoubleDQNImpl(DQNImpl):
    """Q chooses the next action, its slow copy Q- values it."""

    def target(self, batch: Batch) -> Tensor:
        """``Q-(s', argmax_a Q(s', a))``."""
        return self.targ_q_funcs.target(batch.next_observations, self.best_action(batch.next_observations))


@algorithm
class DQN(DiscreteAlgo):
    r"""Deep Q-network.

    .. math:: L = E[\mathrm{Huber}(r + \gamma \max_{a'} \bar Q(s', a') - Q(s, a))]

    Examples
    --------
    >>> DQN(gamma=0.9)
    DQN(gamma=0.9)
    """

    batch_size: int = hp(32)
    learning_rate: float = hp(6.25e-5, "learning rate", low=0)
    optim_factory: str | OptimizerFactory = hp(AdamFactory(), "optimizer", fixed=True)
    encoder_factory: str | EncoderFactory = hp("default", "body of each Q function", fixed=True)
    q_func_factory: str | QFunctionFactory = hp("mean", "kind of Q function", fixed=True)
    n_critics: int = hp(1, "number of Q functions", low=1, fixed=True)
    target_update_interval: int = hp(8000, "updates between two copies of Q to its slow copy", low=1)

    Impl = DQNImpl


@algorithm
class DoubleDQN(DQN):
    r"""DQN whose online network chooses the action that the slow copy values.

    .. math:: L = E[\mathrm{Huber}(r + \gamma \bar Q(s', \arg\max_{a'} Q(s', a')) - Q(s, a))]

    Examples
    --------
    >>> DoubleDQN(n_critics=2)
    DoubleDQN(n_critics=2)
    """

    Impl = DoubleDQNImpl

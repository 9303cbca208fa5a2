"""The algorithms, one file a paper."""

from typing import Any

from ..base import Algo
from ..families import ActorCriticAlgo, ContinuousAlgo, DiscreteAlgo
from ..hyperparameters import ALGORITHMS
from ..registry import nearest
from .awac import AWAC, DiscreteAWAC
from .awr import AWR, DiscreteAWR
from .bc import BC, DiscreteBC
from .bcq import BCQ
from .bear import BEAR
from .cal_ql import CalQL
from .cql import CQL
from .crr import CRR
from .ddpg import DDPG
from .discrete_bcq import DiscreteBCQ
from .discrete_cql import DiscreteCQL
from .discrete_crr import DiscreteCRR
from .discrete_sac import DiscreteSAC
from .dqn import DQN, DoubleDQN
from .iql import IQL, DiscreteIQL
from .nfq import NFQ
from .plas import PLAS, PLASWithPerturbation
from .random_policy import DiscreteRandomPolicy, RandomPolicy
from .rem import REM, EnsembleDQN
from .rlpd import RLPD
from .sac import SAC
from .td3 import TD3
from .td3_plus_bc import TD3PlusBC

__all__ = [
    "ALGORITHMS",
    "AWAC",
    "AWR",
    "BC",
    "BCQ",
    "BEAR",
    "CQL",
    "CRR",
    "DDPG",
    "DQN",
    "IQL",
    "NFQ",
    "PLAS",
    "REM",
    "RLPD",
    "SAC",
    "TD3",
    "ActorCriticAlgo",
    "Algo",
    "CalQL",
    "ContinuousAlgo",
    "DiscreteAWAC",
    "DiscreteAWR",
    "DiscreteAlgo",
    "DiscreteBC",
    "DiscreteBCQ",
    "DiscreteCQL",
    "DiscreteCRR",
    "DiscreteIQL",
    "DiscreteRandomPolicy",
    "DiscreteSAC",
    "DoubleDQN",
    "EnsembleDQN",
    "PLASWithPerturbation",
    "RandomPolicy",
    "TD3PlusBC",
    "create_algo",
    "get_algo",
]


def get_algo(name: str, discrete: bool) -> type[Algo]:
    """Class of an algorithm by the snake-case name of its paper and the kind of actions.

    >>> get_algo("bc", discrete=True).__name__
    'DiscreteBC'
    """
    space = "discrete" if discrete else "continuous"
    for key in (f"discrete_{name}", name) if discrete else (name,):
        if key in ALGORITHMS and ALGORITHMS[key].action_space == space:
            return ALGORITHMS[key]
    known = [key for key, cls in ALGORITHMS.items() if cls.action_space == space]
    raise ValueError(f"no algorithm for {space} actions is called {name!r}; known are {known}.{nearest(name, known)}")


def create_algo(name: str, discrete: bool, **params: Any) -> Algo:
    """Object of the class that ``get_algo`` finds."""
    return get_algo(name, discrete)(**params)

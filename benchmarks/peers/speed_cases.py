"""What ``benchmarks/online_speed.py`` compares, with every hyper-parameter that all sides share.

The standard library only, so that each environment can import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OnlineCase:
    """One update after each step in an environment or, without one, updates alone.

    Attributes
    ----------
    name : also the class name of the algorithm.
    env : id of the environment, None for updates alone.
    other : what this library is compared with.
    wanted : how many times as fast this library is meant to be.
    settings : hyper-parameters, by this library's names.
    multiple : windows have a multiple of so many steps.
    """

    name: str
    env: str | None
    other: str
    wanted: float
    settings: dict[str, Any] = field(default_factory=dict)
    multiple: int = 1

    @property
    def algorithm(self) -> str:
        return self.name


WARM_UP = 300  # random steps before the first update; more than a batch
ROWS = 100_000  # that the replay buffer has room for
SB3, LOOP = "sb3", "loop"

SAC = OnlineCase("SAC", "Pendulum-v1", SB3, 1.5, {"batch_size": 256, "hidden_units": [256, 256], "learning_rate": 3e-4})
DQN = OnlineCase(
    "DQN",
    "CartPole-v1",
    SB3,
    1.5,
    {
        "batch_size": 32,
        "hidden_units": [64, 64],
        "learning_rate": 1e-3,
        "target_update_interval": 500,
        "clip_grad_norm": 10.0,
        "epsilon": 0.1,
    },
)
RLPD = OnlineCase(
    "RLPD",
    None,
    LOOP,
    1.6,
    {"batch_size": 256, "hidden_units": [256, 256], "n_critics": 10, "n_target_critics": 2, "n_gradient_steps": 20},
    multiple=20,  # one of them moves the actor
)
CASES = (SAC, DQN, RLPD)
OBSERVATION_SIZE, ACTION_SIZE, N_BATCHES = 11, 3, 8  # of the batches that RLPD learns from, over and over


def case_of(name: str) -> OnlineCase:
    return next(case for case in CASES if case.name == name)

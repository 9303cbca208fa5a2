"""What ``learning.py`` trains: which algorithm on which data, for how long, and with what hyper-parameters.

Hyper-parameters are the library's defaults but for those named here. A parameter that is a scaler with arguments is
written as ``[name, arguments]``, so that a row of the results says all that it takes to repeat it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """One training run; its settings are what decides whether the results have it already."""

    algorithm: str
    dataset: str
    n_steps: int
    params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def name(self) -> str:
        lower = f"/{self.params['precision']}" if "precision" in self.params else ""
        return f"{self.dataset}/{self.algorithm}/{self.seed}{lower}"

    def settings(self) -> dict[str, Any]:
        keys = ("algorithm", "dataset", "seed", "n_steps", "params")
        return {key: getattr(self, key) for key in keys}


# The paper's policy of BEAR maximises no entropy.
NO_ENTROPY = {"temp_learning_rate": 0.0, "initial_temperature": 1e-20}

# Rewards of Pendulum lie between -16 and 0 and nothing ends an episode: standardised, they move no optimum and
# bring advantages and values to the size that temperatures and learning rates are meant for.
PENDULUM = {"action_scaler": "min_max", "reward_scaler": "standard"}
PENDULUM_STEPS = 10_000
# Its default, plain gradient descent at 5e-5, gets from -1089 to -989 in 25,000 gradient steps, and goes on rising.
AWR_ADAM = {
    "actor_optim_factory": "adam",
    "critic_optim_factory": "adam",
    "actor_learning_rate": 3e-4,
    "critic_learning_rate": 1e-3,
}
PENDULUM_CASES: dict[str, dict[str, Any]] = {
    "BC": {"reward_scaler": None},
    "TD3PlusBC": {},
    "IQL": {},
    "AWAC": {"batch_size": 256},
    "CRR": {},
    "CQL": {"alpha_learning_rate": 0.0},
    "PLAS": {"warmup_steps": 4_000},
    "PLASWithPerturbation": {"warmup_steps": 4_000},
    "BEAR": {"warmup_steps": 1_000, **NO_ENTROPY},
    "BCQ": {},
    "AWR": AWR_ADAM,
    "DDPG": {},
    "TD3": {},
    "SAC": {},
}

# The defaults of the Q-learning family are those of Atari: 6.25e-5 and a new target every 8,000 updates.
Q_LEARNING = {"learning_rate": 3e-4, "target_update_interval": 1_000}
CARTPOLE_STEPS = 10_000
CARTPOLE_CASES: dict[str, dict[str, Any]] = {
    "DiscreteBC": {},
    "DiscreteCQL": Q_LEARNING,
    "DiscreteBCQ": Q_LEARNING,
    "DiscreteIQL": {},
    "DiscreteAWAC": {"batch_size": 256},
    "DiscreteCRR": {},
    "DiscreteAWR": {},
    "REM": Q_LEARNING,
    "EnsembleDQN": Q_LEARNING,
    "DQN": Q_LEARNING,
    "DoubleDQN": Q_LEARNING,
    "NFQ": {"learning_rate": 3e-4},
    "DiscreteSAC": {"target_update_interval": 1_000},
}

# An update of AWR is an iteration: 200 gradient steps of the values and 1,000 of the policy. Those of CQL, BCQ and BEAR
# are ten times as much arithmetic as others.
STEPS = {"AWR": 25, "DiscreteAWR": 25, "CQL": 5_000, "BCQ": 5_000, "BEAR": 5_000}

# The number of updates, the number of seeds, and what is not the default (TD3+BC standardises observations, CQL draws
# 10 actions by default).
HOPPER_CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "BC": (50_000, 3, {}),
    "TD3PlusBC": (50_000, 3, {}),
    "IQL": (50_000, 3, {"reward_scaler": ["return", {"multiplier": 1000.0}]}),
    "CRR": (20_000, 1, {}),
    "PLASWithPerturbation": (75_000, 1, {"warmup_steps": 25_000}),
    "AWAC": (20_000, 1, {"batch_size": 256}),
    "CQL": (15_000, 1, {"alpha_learning_rate": 0.0}),
    "BEAR": (20_000, 1, {"warmup_steps": 4_000, **NO_ENTROPY}),
    "BCQ": (15_000, 1, {}),
}

OFFLINE = {name for name in (*PENDULUM_CASES, *CARTPOLE_CASES) if name.removeprefix("Discrete") in {
    "BCQ", "BEAR", "CQL", "AWR", "AWAC", "CRR", "PLAS", "PLASWithPerturbation", "TD3PlusBC", "IQL", "REM",
}}  # fmt: skip
"""Those that the mean return of the data should not hold back."""

SHOWN = {"DDPG", "TD3", "SAC", "NFQ"}
"""Those that diverge offline by nature."""


IN_BF16 = {("cartpole-replay", "DoubleDQN"), ("cartpole-random", "DiscreteCQL"), ("cartpole-random", "DoubleDQN")}
"""Those that are also trained in lower precision, to see what that does to the scores."""


def first_seeds() -> list[Case]:
    """Every case once: the quick ones of Hopper, the built-in sets, the slow ones of Hopper."""
    hopper = [Case(name, f"hopper-{kind}", steps, params) for name, (steps, _, params) in HOPPER_CASES.items()
              for kind in ("medium", "medium-replay")]  # fmt: skip
    pendulum = [Case(name, f"pendulum-{kind}", STEPS.get(name, PENDULUM_STEPS), without_none(PENDULUM | params))
                for name, params in PENDULUM_CASES.items() for kind in ("replay", "random")]  # fmt: skip
    cartpole = [Case(name, f"cartpole-{kind}", STEPS.get(name, CARTPOLE_STEPS), params)
                for name, params in CARTPOLE_CASES.items() for kind in ("replay", "random")]  # fmt: skip
    return hopper[:6] + pendulum[:8] + cartpole + hopper[6:] + pendulum[8:]


def without_none(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def all_cases() -> list[Case]:
    """The queue: all first seeds before any second one, and those in lower precision between them."""
    first = first_seeds()
    more = [case for case in first if case.dataset.startswith("hopper")]
    n_seeds = {name: seeds for name, (_, seeds, _) in HOPPER_CASES.items()}
    later = [replace(case, seed=seed) for seed in (1, 2) for case in more if seed < n_seeds[case.algorithm]]
    lower = [replace(case, params=case.params | {"precision": "bf16"})
             for case in first if (case.dataset, case.algorithm) in IN_BF16]  # fmt: skip
    return first + lower + later

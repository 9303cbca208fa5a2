"""What ``online_learning.py`` trains: an algorithm, an environment, what there is before the first step, and how long.

Hyper-parameters are the library's defaults but for those named here; likewise the arguments of ``fit_online``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """One training run; all its fields together decide whether the results have it already."""

    group: str
    label: str
    algorithm: str
    env: str
    n_steps: int
    params: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    explorer: list[Any] | None = None
    """Class and arguments."""
    prior: str | None = None
    """Data set that there is before the first step."""
    prior_use: str | None = None
    """``mix``: a share of each batch; ``buffer``: put into the buffer; ``offline``: trained on before, then in it."""
    offline_updates: int = 0
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.env}/{self.label}/{self.seed}"

    def settings(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


FAST = {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
PENDULUM = {"action_scaler": "min_max", "batch_size": 256}
WARMUP = {"random_steps": 1_000, "update_start_step": 1_000}
NOISE = ["NormalNoise", {"std": 0.1}]
DQN_PARAMS = {"learning_rate": 1e-4, "target_update_interval": 500, "batch_size": 64}
DECAY = ["LinearDecayEpsilonGreedy", {"duration": 5_000}]
LONG_WARMUP = {"random_steps": 5_000, "update_start_step": 1_000}

SCRATCH = [
    Case("scratch", "DQN", "DQN", "CartPole", 20_000, DQN_PARAMS, {"update_start_step": 1_000}, DECAY),
    Case("scratch", "SAC", "SAC", "Pendulum", 10_000, PENDULUM | FAST | {"temp_learning_rate": 1e-3}, WARMUP),
    Case("scratch", "TD3", "TD3", "Pendulum", 10_000, PENDULUM | FAST, WARMUP, NOISE),
    Case("scratch", "DDPG", "DDPG", "Pendulum", 10_000, PENDULUM | FAST, WARMUP, NOISE),
    Case("scratch", "SAC", "SAC", "Hopper", 100_000, {"batch_size": 256}, LONG_WARMUP),
]

# Offline as in learning.py, then online from the same data (IQL: noise 0.03, as in its appendix C).
OFFLINE = {"prior": "hopper-medium-replay", "prior_use": "offline", "offline_updates": 25_000}
IQL_PARAMS = {"reward_scaler": {"type": "return", "params": {"multiplier": 1000.0}}}
SMALL_NOISE = ["NormalNoise", {"std": 0.03}]
FINE_TUNING = [
    Case("fine-tuning", "IQL", "IQL", "Hopper", 25_000, IQL_PARAMS, {}, SMALL_NOISE, **OFFLINE),
    Case("fine-tuning", "AWAC", "AWAC", "Hopper", 25_000, {"batch_size": 256}, **OFFLINE),
]

# MountainCarContinuous pays 100 at the goal and charges for every push, so that who has not found the goal learns to
# stand still. The prior data: ten episodes that push at random in nine steps of ten, and with the motion in one; six of
# them reach the goal. Networks are small so that 3 seeds of 50,000 updates are a matter of minutes.
SMALL = {"type": "vector", "params": {"hidden_units": [64, 64]}}
NORMALISED = {"type": "vector", "params": {"hidden_units": [64, 64], "use_layer_norm": True}}
MOUNTAIN = {"batch_size": 256, "scaler": "min_max", "actor_encoder_factory": SMALL}
PLAIN = MOUNTAIN | {"critic_encoder_factory": SMALL}
LAYER_NORM = MOUNTAIN | {"critic_encoder_factory": NORMALISED}
FIVE, STEPS = {"n_gradient_steps": 5}, 10_000
MIX = {"prior": "pushes", "prior_use": "mix"}
BUFFER = {"prior": "pushes", "prior_use": "buffer"}
TASK = "MountainCarContinuous"
EXPLORATION = [
    Case("exploration", "RLPD", "RLPD", TASK, STEPS, LAYER_NORM | FIVE, **MIX),
    Case("exploration", "RLPD without layer norm", "RLPD", TASK, STEPS, PLAIN | FIVE, **MIX),
    Case("exploration", "RLPD without symmetric sampling", "RLPD", TASK, STEPS, LAYER_NORM | FIVE, **BUFFER),
    Case("exploration", "SACfD", "SAC", TASK, STEPS, PLAIN, {"n_updates": 5}, **BUFFER),
    Case("exploration", "SAC", "SAC", TASK, STEPS, PLAIN, {"n_updates": 5, "random_steps": 1_000}),
]
TWENTY = replace(EXPLORATION[0], label="RLPD, 20 gradient steps", params=LAYER_NORM | {"n_gradient_steps": 20})


def all_cases() -> list[Case]:
    """The queue: what is quick first."""
    quick, curve = SCRATCH[:-1], SCRATCH[-1]
    seeds = [replace(case, seed=seed) for seed in range(3) for case in EXPLORATION]
    return [*quick, *seeds, TWENTY, *FINE_TUNING, curve]

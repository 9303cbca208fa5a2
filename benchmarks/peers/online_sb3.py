"""The cases in stable-baselines3, through its public ``learn``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import stable_baselines3

from .speed_cases import ROWS, WARM_UP, OnlineCase


def about() -> dict[str, Any]:
    return {
        "version": stable_baselines3.__version__,
        "folder": str(Path(stable_baselines3.__file__).resolve().parent),
    }


class Learner:
    """An algorithm with its replay buffer, beyond its random steps."""

    def __init__(self, algorithm: str, case: OnlineCase, env: Any, **options: Any):
        self.algo = getattr(stable_baselines3, algorithm)(
            "MlpPolicy",
            env,
            learning_rate=case.settings["learning_rate"],
            batch_size=case.settings["batch_size"],
            buffer_size=ROWS,
            learning_starts=WARM_UP,
            train_freq=1,
            gradient_steps=1,
            policy_kwargs={"net_arch": case.settings["hidden_units"]},
            device="cpu",
            seed=0,
            **options,
        )
        self.algo.learn(WARM_UP)

    @property
    def n_updates(self) -> int:
        return self.algo._n_updates

    def run(self, n_steps: int) -> None:
        self.algo.learn(n_steps, reset_num_timesteps=False)


def sac(case: OnlineCase, env: Any) -> Learner:
    return Learner("SAC", case, env)


def dqn(case: OnlineCase, env: Any) -> Learner:
    epsilon = case.settings["epsilon"]
    return Learner(
        "DQN",
        case,
        env,
        target_update_interval=case.settings["target_update_interval"],
        max_grad_norm=case.settings["clip_grad_norm"],
        exploration_initial_eps=epsilon,
        exploration_final_eps=epsilon,
    )


LEARNERS = {"SAC": sac, "DQN": dqn}

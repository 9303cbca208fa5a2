"""The cases in this library: ``fit_online``, and for RLPD updates with the same batches that the loop gets."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import d3rlpy
from d3rlpy.impl import Batch, training_mode
from d3rlpy.logger import Meter
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.optimizers import AdamFactory
from d3rlpy.online import ReplayBuffer
from d3rlpy.online.explorers import ConstantEpsilonGreedy

from .online_loop import Tensors, batches
from .speed_cases import ACTION_SIZE, OBSERVATION_SIZE, ROWS, WARM_UP, OnlineCase


def about() -> dict[str, Any]:
    return {"version": d3rlpy.__version__, "folder": str(Path(d3rlpy.__file__).resolve().parent)}


class Learner:
    """An algorithm with its replay buffer, beyond its random steps."""

    def __init__(self, algo: Any, env: Any, explorer: Any = None):
        self.algo, self.env, self.explorer = algo, env, explorer
        self.buffer = ReplayBuffer(ROWS, env=env)
        self._fit(WARM_UP, random_steps=WARM_UP, update_start_step=WARM_UP)

    @property
    def n_updates(self) -> int:
        return self.algo.grad_step_

    def run(self, n_steps: int) -> None:
        self._fit(n_steps)

    def _fit(self, n_steps: int, **options: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.algo.fit_online(
                self.env,
                self.buffer,
                self.explorer,
                n_steps=n_steps,
                n_steps_per_epoch=n_steps,
                logdir=folder,
                verbose=False,
                show_progress=False,
                **options,
            )


def encoder(case: OnlineCase) -> VectorEncoderFactory:
    return VectorEncoderFactory(case.settings["hidden_units"])


def sac(case: OnlineCase, env: Any) -> Learner:
    rate = case.settings["learning_rate"]
    algo = d3rlpy.algos.SAC(
        batch_size=case.settings["batch_size"],
        actor_learning_rate=rate,
        critic_learning_rate=rate,
        temp_learning_rate=rate,
        actor_encoder_factory=encoder(case),
        critic_encoder_factory=encoder(case),
        action_scaler="min_max",
        random_state=0,
    )
    return Learner(algo, env)


def dqn(case: OnlineCase, env: Any) -> Learner:
    algo = d3rlpy.algos.DQN(
        batch_size=case.settings["batch_size"],
        learning_rate=case.settings["learning_rate"],
        optim_factory=AdamFactory(clip_grad_norm=case.settings["clip_grad_norm"]),
        encoder_factory=encoder(case),
        target_update_interval=case.settings["target_update_interval"],
        random_state=0,
    )
    return Learner(algo, env, ConstantEpsilonGreedy(case.settings["epsilon"]))


class UpdateLearner:
    """RLPD without an environment: ``step`` of its impl, as training calls it."""

    clock: Any

    def __init__(self, case: OnlineCase):
        settings = case.settings
        algo = d3rlpy.algos.RLPD(
            batch_size=settings["batch_size"],
            n_critics=settings["n_critics"],
            n_target_critics=settings["n_target_critics"],
            n_gradient_steps=settings["n_gradient_steps"],
            actor_encoder_factory=VectorEncoderFactory(settings["hidden_units"]),
            critic_encoder_factory=VectorEncoderFactory(settings["hidden_units"], use_layer_norm=True),
            random_state=0,
        )
        self.impl = algo.create_impl((OBSERVATION_SIZE,), ACTION_SIZE).impl
        self.batches = [own_batch(given) for given in batches(settings["batch_size"])]

    @property
    def n_updates(self) -> int:
        return self.impl.grad_step

    def run(self, n_steps: int) -> None:
        meter = Meter()
        with training_mode(self.impl):
            for k in range(n_steps):
                self.clock.tick()
                meter.add(self.impl.step(self.batches[k % len(self.batches)]))


def own_batch(given: Tensors) -> Batch:
    observations, actions, rewards, next_observations, terminals, gamma = given
    return Batch(observations, actions, rewards, next_observations, gamma * (1 - terminals))


LEARNERS = {"SAC": sac, "DQN": dqn, "RLPD": UpdateLearner}

"""Offline, then online: Pendulum with IQL, from clumsy logs to a policy that goes on learning, in about 20 seconds.

Run it with ``make demo-online``; it writes no files.
"""

import gymnasium
import numpy as np
import torch

import d3rlpy
from d3rlpy.metrics.scorer import evaluate_on_environment
from d3rlpy.models.encoders import VectorEncoderFactory

torch.set_num_threads(1)
quiet = {"save_metrics": False, "verbose": False}

# 1. The first logged episodes of a training run, none of them good.
dataset, env = d3rlpy.datasets.get_pendulum()
logged = dataset.episodes[:60]
returns = [episode.compute_return() for episode in logged]
print(f"{len(logged)} logged episodes, mean return {np.mean(returns):.0f}, best {max(returns):.0f}")

# 2. Learn from them. Torques lie in [-2, 2], policies act in [-1, 1]; small networks are quick.
small = VectorEncoderFactory(hidden_units=(64, 64))
iql = d3rlpy.algos.IQL(
    actor_learning_rate=1e-3,
    critic_learning_rate=1e-3,
    actor_encoder_factory=small,
    critic_encoder_factory=small,
    value_encoder_factory=small,
    batch_size=64,
    weight_temp=10.0,
    tau=0.02,
    action_scaler="min_max",
    reward_scaler="standard",
    random_state=0,
)
iql.fit(logged, n_steps=1_000, n_steps_per_epoch=1_000, **quiet)
score = evaluate_on_environment(gymnasium.make("Pendulum-v1"), n_trials=10, seed=1000)
before = score(iql)

# 3. Act and go on learning; half of each batch are logged transitions.
iql.fit_online(env, n_steps=1_000, n_steps_per_epoch=1_000, offline_dataset=logged, offline_ratio=0.5, **quiet)
after = score(iql)
print(f"return of the policy, mean of 10 episodes: {before:.0f} offline, {after:.0f} after 1000 steps online")

"""Continuous actions: Pendulum with TD3+BC, from logged data to a policy.

Run it with ``make demo-pendulum``; files go to ``demo_output/``.
"""

import numpy as np
import torch

import d3rlpy
from d3rlpy.metrics.scorer import evaluate_on_environment

torch.set_num_threads(1)

dataset, env = d3rlpy.datasets.get_pendulum()
returns = [episode.compute_return() for episode in dataset]
print(f"{len(dataset)} episodes, mean return {np.mean(returns):.0f}, best {max(returns):.0f}")

# Torques lie in [-2, 2]: the scaler maps them to the [-1, 1] that the policy acts in, and back.
td3_plus_bc = d3rlpy.algos.TD3PlusBC(action_scaler="min_max", random_state=0)
td3_plus_bc.fit(
    dataset,
    n_steps=10_000,
    n_steps_per_epoch=2_000,
    scorers={"environment": evaluate_on_environment(env, n_trials=10, seed=0)},
    logdir="demo_output/logs",
)

policy_return = evaluate_on_environment(env, n_trials=20, seed=1000)(td3_plus_bc)
share = (policy_return - np.mean(returns)) / (max(returns) - np.mean(returns))
print(f"return of the policy, mean of 20 episodes: {policy_return:.0f}; {share:.0%} of the way from mean to best")

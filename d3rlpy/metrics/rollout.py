"""Rollouts of an algorithm in an environment, scored by their mean return."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..envs import EnvAdapter, FrameStack
from .checks import check_algo, check_environment


class EnvironmentScorer:
    """``scorer(algo)``: mean undiscounted return over episodes; see ``evaluate_on_environment``.

    A class rather than a closure, so that a search object of scikit-learn that holds it can be pickled.
    """

    __name__ = "environment"
    negated = False
    needs_episodes = False
    needs_values = False

    def __init__(self, env: Any, n_trials: int, epsilon: float, render: bool, seed: int | None):
        if not isinstance(n_trials, (int, np.integer)) or n_trials < 1:
            raise ValueError(f"n_trials must be a whole number of at least 1, got {n_trials!r}")
        if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float, np.number)) or not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must be a number within [0, 1], got {epsilon!r}")
        if seed is not None and (not isinstance(seed, (int, np.integer)) or seed < 0):
            raise ValueError(f"seed must be None or a whole number of at least 0, got {seed!r}")
        self.env = EnvAdapter(env)
        if epsilon > 0.0 and not _can_draw_uniformly(self.env):
            raise ValueError(
                f"epsilon={epsilon} draws uniform actions, but action_space {self.env.env.action_space} has"
                " no bounds; use epsilon=0"
            )
        self.n_trials = n_trials
        self.epsilon = epsilon
        self.render = render
        self.seed = seed

    def __call__(self, algo: Any, *ignored: Any, **also_ignored: Any) -> float:
        """Mean return of ``algo``; episodes and targets that scikit-learn passes are not looked at.

        Raises ``ValueError`` for an algorithm of other observations or actions than the environment has.
        """
        check_algo(algo)
        check_environment(algo, self.env)
        rng = np.random.default_rng(self.seed)
        seeds = [None if self.seed is None else self.seed + trial for trial in range(self.n_trials)]
        return float(np.mean([self._episode(algo, seed, rng) for seed in seeds]))

    def _episode(self, algo: Any, seed: int | None, rng: np.random.Generator) -> float:
        frames = FrameStack(getattr(algo, "n_frames", 1))
        observation, _ = self.env.reset(seed=seed)
        stacked = frames.reset(observation)
        total, over = 0.0, False
        while not over:
            if self.epsilon > 0.0 and rng.random() < self.epsilon:
                action = self._random_action(rng)
            else:
                action = algo.predict(stacked[None])[0]
            if not np.isfinite(action).all():
                return float("nan")  # of a policy that has diverged
            observation, reward, terminated, truncated, _ = self.env.step(self.env.clip(action))
            stacked = frames.push(self._checked(observation, reward))
            total += reward
            over = terminated or truncated
            if self.render:
                self.env.render()
        return total

    def _checked(self, observation: np.ndarray, reward: float) -> np.ndarray:
        if not np.isfinite(reward) or (observation.dtype != np.uint8 and not np.isfinite(observation).all()):
            what = f"the reward {reward}" if not np.isfinite(reward) else "an observation that isn't finite"
            raise ValueError(f"{type(self.env.env).__name__} returned {what} in an evaluation: nothing can be scored")
        return observation

    def _random_action(self, rng: np.random.Generator) -> Any:
        """Uniform over the ids, or over the box."""
        if self.env.discrete:
            return rng.integers(self.env.action_size)
        return rng.uniform(self.env.action_low, self.env.action_high)


def _can_draw_uniformly(env: EnvAdapter) -> bool:
    return env.discrete or bool(np.isfinite([env.action_low, env.action_high]).all())

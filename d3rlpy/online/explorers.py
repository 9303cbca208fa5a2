"""Explorers: how an algorithm that acts greedily tries something else.

An explorer draws from the random stream of the algorithm that it explores for, so a seeded run is reproducible and
a saved model goes on with the same numbers. ``sample`` takes a batch of observations ``(batch, ...)`` or a single one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch


class Explorer(ABC):
    """Base class of explorers."""

    action_space: ClassVar[str]
    advice: ClassVar[str]

    def check(self, algo: Any) -> None:
        """Raise ``ValueError`` for an algorithm whose actions can't be explored in this way."""
        if algo.action_space != self.action_space:
            raise ValueError(
                f"{type(self).__name__} explores {self.action_space} actions, those of {type(algo).__name__} are "
                f"{algo.action_space}: {self.advice}"
            )

    def reset(self, row: int | None = None) -> None:  # noqa: B027
        """Forget what belongs to the episode in ``row`` of the batch, or to all of them; called where one begins."""

    def sample(self, algo: Any, x: Any, step: int) -> Any:
        """Actions for observations ``x``, shaped as by ``predict``; one action for a single observation.

        Parameters
        ----------
        algo : algorithm with networks.
        x : observations ``(batch, ...)``, or one observation.
        step : steps made in the environment, this one included.
        """
        self.check(algo)
        x = np.asarray(x)
        if x.shape == algo.observation_shape:
            return self._explore(algo, x[None], step)[0]
        return self._explore(algo, x, step)

    @abstractmethod
    def _explore(self, algo: Any, x: np.ndarray, step: int) -> np.ndarray:
        """Actions for a batch of observations."""

    def get_state(self) -> dict[str, Any]:
        """What a resumed run needs, in plain Python values."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``get_state`` was called."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, got {sorted(state)}")


class EpsilonGreedy(Explorer):
    """Each row acts at random with a probability, and greedily otherwise."""

    action_space = "discrete"
    advice = "use NormalNoise or OrnsteinUhlenbeck"

    @abstractmethod
    def compute_epsilon(self, step: int) -> float:
        """Probability of a random action in this step."""

    def _explore(self, algo: Any, x: np.ndarray, step: int) -> np.ndarray:
        rng = algo.stream_.numpy
        explores = rng.random(len(x)) < self.compute_epsilon(step)
        n_explore = np.count_nonzero(explores)
        if n_explore == len(x):
            return rng.integers(algo.action_size, size=len(x))
        actions = algo.predict(x)
        if n_explore:
            actions = np.where(explores, rng.integers(algo.action_size, size=len(x)), actions)
        return actions


class ConstantEpsilonGreedy(EpsilonGreedy):
    """Random with probability ``epsilon``, greedy otherwise.

    Parameters
    ----------
    epsilon : probability of a random action, within [0, 1].
    """

    def __init__(self, epsilon: float):
        self.epsilon = _within("epsilon", epsilon, 0.0, 1.0)

    def compute_epsilon(self, step: int) -> float:
        return self.epsilon

    def __repr__(self) -> str:
        return f"ConstantEpsilonGreedy(epsilon={self.epsilon})"


class LinearDecayEpsilonGreedy(EpsilonGreedy):
    """Random with a probability that falls linearly over ``duration`` steps and then stays.

    Parameters
    ----------
    start_epsilon, end_epsilon : probability at step 0 and from step ``duration`` on.
    duration : steps of the environment.
    """

    def __init__(self, start_epsilon: float = 1.0, end_epsilon: float = 0.1, duration: int = 1_000_000):
        self.start_epsilon = _within("start_epsilon", start_epsilon, 0.0, 1.0)
        self.end_epsilon = _within("end_epsilon", end_epsilon, 0.0, 1.0)
        self.duration = _within("duration", duration, 1, math.inf)

    def compute_epsilon(self, step: int) -> float:
        """``start + (end - start) min(step / duration, 1)``."""
        return self.start_epsilon + (self.end_epsilon - self.start_epsilon) * min(step / self.duration, 1.0)

    def __repr__(self) -> str:
        return f"LinearDecayEpsilonGreedy({self.start_epsilon}, {self.end_epsilon}, duration={self.duration})"


class Noise(Explorer):
    """Noise on greedy actions.

    It is measured on the policy's own scale, on which actions go from -1 to 1: with an action scaler, 0.1 is a
    twentieth of the range of actions. The sum is clipped to that range.
    """

    action_space = "continuous"
    advice = "use ConstantEpsilonGreedy or LinearDecayEpsilonGreedy"

    def _explore(self, algo: Any, x: np.ndarray, step: int) -> np.ndarray:
        actions, scaler = algo.predict(x), algo.fitted_scalers_.action
        noise = self._draw(algo.stream_.numpy, actions.shape)
        if scaler is None:
            return np.clip(actions + noise, -1.0, 1.0).astype(np.float32)
        scaled = scaler.transform(torch.from_numpy(actions)) + torch.from_numpy(noise.astype(np.float32))
        return scaler.reverse_transform(scaled.clamp(-1.0, 1.0)).numpy()

    @abstractmethod
    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Noise ``(batch, action_size)``."""


class NormalNoise(Noise):
    """Normal noise, drawn anew for each row and dimension.

    Parameters
    ----------
    mean, std : of the noise, on the scale from -1 to 1.
    """

    def __init__(self, mean: float = 0.0, std: float = 0.1):
        self.mean = _within("mean", mean, -math.inf, math.inf)
        self.std = _within("std", std, 0.0, math.inf)

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return self.mean + self.std * rng.standard_normal(shape)

    def __repr__(self) -> str:
        return f"NormalNoise(mean={self.mean}, std={self.std})"


class OrnsteinUhlenbeck(Noise):
    """Noise that drifts: ``x <- x + theta (mean - x) + std N(0, 1)``, from ``mean`` at the start of each episode.

    The defaults are those of Lillicrap et al. 2016, arXiv:1509.02971, section 7.

    Parameters
    ----------
    mean, std : where it is drawn to, and the standard deviation of its steps, on the scale from -1 to 1.
    theta : share of the distance to ``mean`` that a step takes back.
    """

    def __init__(self, mean: float = 0.0, std: float = 0.2, theta: float = 0.15):
        self.mean = _within("mean", mean, -math.inf, math.inf)
        self.std = _within("std", std, 0.0, math.inf)
        self.theta = _within("theta", theta, 0.0, 1.0)
        self._noise: np.ndarray | None = None

    def reset(self, row: int | None = None) -> None:
        if row is None:
            self._noise = None
        elif self._noise is not None and row < len(self._noise):
            self._noise[row] = self.mean

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if self._noise is None or self._noise.shape != shape:
            self._noise = np.full(shape, self.mean)
        self._noise = self._noise + self.theta * (self.mean - self._noise) + self.std * rng.standard_normal(shape)
        return self._noise

    def get_state(self) -> dict[str, Any]:
        return {"noise": None if self._noise is None else self._noise.tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        noise = state["noise"]
        self._noise = None if noise is None else np.array(noise, dtype=np.float64)

    def __repr__(self) -> str:
        return f"OrnsteinUhlenbeck(mean={self.mean}, std={self.std}, theta={self.theta})"


def _within(name: str, value: float, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} must be a number within [{low}, {high}]")
    if math.isinf(value):
        raise ValueError(f"{name}={value!r} must be finite")
    return value

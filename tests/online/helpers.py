"""Environments whose every number is known, and small algorithms for them."""

import numpy as np

from d3rlpy.algos import DQN, SAC
from d3rlpy.models.encoders import VectorEncoderFactory

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SMALL = VectorEncoderFactory(hidden_units=(8,))


def small_dqn(**params):
    return DQN(**{"batch_size": 4, "encoder_factory": SMALL, "random_state": 0, **params})


def small_sac(**params):
    encoders = {"actor_encoder_factory": SMALL, "critic_encoder_factory": SMALL}
    return SAC(**{"batch_size": 4, "random_state": 0, **encoders, **params})


class Box:
    """As much of a box as the library looks at."""

    def __init__(self, low, high, dtype=np.float32):
        self.low, self.high = np.asarray(low, dtype), np.asarray(high, dtype)
        self.shape, self.dtype = self.low.shape, np.dtype(dtype)


class Ids:
    """As much of gymnasium's Discrete as the library looks at."""

    def __init__(self, n):
        self.n, self.start, self.shape, self.dtype = n, 0, (), np.dtype(np.int64)


class Counter:
    """Counts its steps; the observation is ``(episode, step in it)`` and the reward is ``1 + step in it``.

    An episode ends after ``length`` steps, by a terminal or, with ``limit=True``, by a time limit.
    """

    def __init__(self, length=5, limit=False, discrete=True, low=-1.0, high=1.0):
        self.length, self.limit = length, limit
        self.observation_space = Box([-np.inf, -np.inf], [np.inf, np.inf])
        self.action_space = Ids(2) if discrete else Box([low] * 2, [high] * 2)
        self.episode, self.t, self.actions, self.seeds = -1, 0, [], []

    def reset(self, seed=None, options=None):
        self.episode, self.t = self.episode + 1, 0
        self.seeds.append(seed)
        return self.observation(), {}

    def observation(self):
        return np.array([self.episode, self.t], np.float32)

    def step(self, action):
        self.actions.append(action)
        self.t += 1
        over = self.t == self.length
        return self.observation(), float(self.t), over and not self.limit, over and self.limit, {}


class Walk:
    """A noisy walk whose state can be copied: everything is in its attributes."""

    def __init__(self, discrete=False):
        self.observation_space = Box([-10.0] * 2, [10.0] * 2)
        self.action_space = Ids(2) if discrete else Box([-1.0] * 2, [1.0] * 2)
        self.discrete, self.rng, self.t = discrete, np.random.default_rng(0), 0
        self.place = np.zeros(2)

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.place, self.t = self.rng.normal(size=2), 0
        return self.place.astype(np.float32), {}

    def step(self, action):
        push = np.eye(2)[action] if self.discrete else action
        self.place = np.clip(self.place + 0.1 * push + 0.1 * self.rng.normal(size=2), -10, 10)
        self.t += 1
        terminated = bool(self.rng.random() < 0.05)
        return self.place.astype(np.float32), -float(np.square(self.place).sum()), terminated, self.t == 17, {}

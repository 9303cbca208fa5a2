"""Tiny decision problems whose answers are known.

``corridor`` has discrete actions and a table of optimal values; ``two_step_dataset`` has continuous actions and an
optimum in closed form.
"""

from __future__ import annotations

import numpy as np

from ..dataset import MDPDataset

LEFT, RIGHT = 0, 1


def corridor(n_states: int = 4, n_copies: int = 50) -> MDPDataset:
    """Every state and action of a corridor, ``n_copies`` times.

    States are one-hot vectors. RIGHT from the last state ends the episode with reward 1, LEFT from the first stays
    there; all other rewards are 0. Each row is an episode of its own, cut by a timeout unless it ends.
    """
    state, action = (a.ravel() for a in np.meshgrid(np.arange(n_states), [LEFT, RIGHT], indexing="ij"))
    ends = (state == n_states - 1) & (action == RIGHT)
    following = np.where(action == RIGHT, np.minimum(state + 1, n_states - 1), np.maximum(state - 1, 0))
    one_hot = np.eye(n_states, dtype=np.float32)
    return MDPDataset(
        np.tile(one_hot[state], (n_copies, 1)),
        np.tile(action, n_copies),
        np.tile(ends.astype(np.float32), n_copies),
        np.tile(ends, n_copies),
        timeouts=np.tile(~ends, n_copies),
        next_observations=np.tile(one_hot[following], (n_copies, 1)),
    )


def corridor_values(n_states: int = 4, gamma: float = 0.9) -> np.ndarray:
    """Optimal action values of ``corridor``, ``(n_states, 2)``: one discount per step that is left."""
    right = gamma ** (n_states - 1 - np.arange(n_states, dtype=float))
    left = gamma * right[np.maximum(np.arange(n_states) - 1, 0)]
    return np.stack([left, right], axis=1)


BEST_ACTIONS = np.array([0.5, -0.5])
"""Optimal actions of the two states of ``two_step_dataset``."""


def two_step_dataset(n_episodes: int = 1000, behavior: tuple[float, float] | None = None, seed: int = 0) -> MDPDataset:
    """Episodes of two steps with one action dimension.

    The states are (1, 0) and then (0, 1); the reward of action ``a`` in state ``i`` is
    ``i - (a - BEST_ACTIONS[i])^2``. Actions are uniform in [-1, 1], or, if ``behavior`` gives two means, uniform
    within 0.2 of the mean of the state.
    """
    rng = np.random.default_rng(seed)
    state = np.tile([0, 1], n_episodes)
    low, high = (-1.0, 1.0) if behavior is None else (np.array(behavior)[state] - 0.2, np.array(behavior)[state] + 0.2)
    action = rng.uniform(low, high, size=len(state))
    reward = state - (action - BEST_ACTIONS[state]) ** 2
    return MDPDataset(
        np.eye(2, dtype=np.float32)[state],
        action[:, None].astype(np.float32),
        reward.astype(np.float32),
        state == 1,
    )


def two_step_value(state: int, action: float, gamma: float) -> float:
    """Optimal value of ``action`` in ``state`` of ``two_step_dataset``."""
    following = gamma * 1.0 if state == 0 else 0.0
    return float(state - (action - BEST_ACTIONS[state]) ** 2 + following)

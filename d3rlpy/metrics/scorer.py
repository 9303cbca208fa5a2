"""Scorers: what an algorithm is worth, on held-out episodes or in the environment itself.

A scorer is a function ``(algo, episodes, window_size=1024) -> float`` where greater is better, as
scikit-learn wants it: errors come back negated. Each carries ``negated`` (whether ``natural_value`` turns its
sign) and ``needs_episodes``. Episodes may be a data set, a list of episodes or a list of transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from ..dataset import TransitionMiniBatch, gather, rows_of
from ..registry import nearest
from .rollout import EnvironmentScorer

Scorer = Callable[..., float]
S = TypeVar("S", bound=Scorer)

WINDOW = 1024  # transitions in one forward pass

SCORERS: dict[str, Scorer] = {}


def _scorer(negated: bool) -> Callable[[S], S]:
    """Enter a function into ``SCORERS`` under its name without ``_scorer`` and mark its sign."""

    def register(function: S) -> S:
        function.negated = negated  # type: ignore[attr-defined]
        function.needs_episodes = True  # type: ignore[attr-defined]
        SCORERS[function.__name__.removesuffix("_scorer")] = function
        return function

    return register


def get_scorer(scorer: str | Scorer) -> Scorer:
    """The scorer of that short name (``"td_error"``); a function comes back as it is.

    Raises
    ------
    ValueError
        For an unknown name; the message gives the nearest one.
    """
    if isinstance(scorer, str):
        if scorer not in SCORERS:
            known = sorted(SCORERS)
            raise ValueError(
                f"no scorer is called {scorer!r}; known are {known}.{nearest(scorer, known)} For returns in"
                " an environment pass evaluate_on_environment(env)"
            )
        return SCORERS[scorer]
    if not callable(scorer):
        raise TypeError(f"a scorer is a function or one of the names {sorted(SCORERS)}, not {scorer!r}")
    return scorer


def natural_value(scorer: Scorer, value: float) -> float:
    """``value`` with the sign that a reader expects: an error is positive again."""
    return -value if getattr(scorer, "negated", False) else value


@_scorer(negated=True)
def td_error_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Negated mean squared one-step TD error, ``E[(Q(s, a) - r - gamma Q(s', pi(s')))^2]``.

    ``pi`` is the greedy policy, so with discrete actions this is the error of ``max_a Q(s', a)``. Rewards are
    scaled as in training, and ``gamma`` is the algorithm's. A large error on held-out episodes suggests that
    Q has over-fitted the training episodes.
    """
    value = _value_function(algo, "td_error")

    def squared_errors(batch: TransitionMiniBatch) -> np.ndarray:
        q = value(batch.observations, batch.actions)
        q_next = value(batch.next_observations, algo.predict(batch.next_observations))
        target = batch.rewards[:, 0] + batch.discounts[:, 0] * q_next  # (window,)
        return np.square(q - target)

    scaler = algo.fitted_scalers_.reward
    transform = None if scaler is None else scaler.transform_numpy
    return -_mean(squared_errors, _windows(algo, episodes, window_size, transform))


@_scorer(negated=True)
def average_value_estimation_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Negated mean value of the greedy actions, ``E[Q(s, pi(s))]``.

    A value far above the returns of the data tells of over-estimation. It is in units of scaled rewards.
    """
    value = _value_function(algo, "average_value_estimation")
    return -_mean(lambda batch: _greedy_value(algo, value, batch), _windows(algo, episodes, window_size))


@_scorer(negated=False)
def initial_state_value_estimation_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Mean value of the greedy actions in the first states, ``E[Q(s_0, pi(s_0))]``.

    How much discounted, scaled return the policy expects from where episodes begin. Paine et al. (2020),
    "Hyperparameter Selection for Offline Reinforcement Learning", found it the best of the simple criteria.
    """
    value = _value_function(algo, "initial_state_value_estimation")
    windows = _windows(algo, episodes, window_size, first_only=True)
    return _mean(lambda batch: _greedy_value(algo, value, batch), windows)


@_scorer(negated=False)
def discrete_action_match_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Share in [0, 1] of transitions whose action is the greedy one, ``E[1{a = pi(s)}]``."""

    def matches(batch: TransitionMiniBatch) -> np.ndarray:
        if not np.issubdtype(batch.actions.dtype, np.integer):
            raise ValueError(
                "discrete_action_match needs discrete actions, the episodes hold continuous ones: use"
                " continuous_action_diff"
            )
        return algo.predict(batch.observations) == batch.actions

    return _mean(matches, _windows(algo, episodes, window_size))


@_scorer(negated=True)
def continuous_action_diff_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Negated mean squared distance of the greedy actions from those of the data, ``E[|a - pi(s)|^2]``.

    The squares are summed over the action's components, in the units of the data.
    """

    def squared_distances(batch: TransitionMiniBatch) -> np.ndarray:
        if np.issubdtype(batch.actions.dtype, np.integer):
            raise ValueError(
                "continuous_action_diff needs continuous actions, the episodes hold discrete ones: use"
                " discrete_action_match"
            )
        return np.square(batch.actions - algo.predict(batch.observations)).sum(axis=1)

    return -_mean(squared_distances, _windows(algo, episodes, window_size))


def evaluate_on_environment(
    env: Any, n_trials: int = 10, epsilon: float = 0.0, render: bool = False, seed: int | None = None
) -> EnvironmentScorer:
    """Scorer ``scorer(algo)`` that plays whole episodes and returns their mean undiscounted return.

    Parameters
    ----------
    env : gymnasium environment, gym environment or one of the older 4-tuple API.
    n_trials : episodes played at each call.
    epsilon : share of uniformly random actions, in [0, 1].
    render : call the environment's ``render`` after each step.
    seed : trial ``i`` starts from ``env.reset(seed=seed + i)`` and the random actions are the same at each
        call, so that two algorithms, or two epochs, meet the same starts. None: the environment goes on as it
        will.

    Raises
    ------
    ValueError
        For ``n_trials`` below 1, ``epsilon`` outside [0, 1] or spaces that no algorithm can use.
    """
    return EnvironmentScorer(env, n_trials, epsilon, render, seed)


def _windows(
    algo: Any,
    episodes: Any,
    window_size: int | None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    first_only: bool = False,
) -> Iterator[TransitionMiniBatch]:
    """All transitions in order, at most ``window_size`` at a time, across the borders of episodes."""
    size = WINDOW if window_size is None else window_size  # scikit-learn may put its y=None there
    if size < 1:
        raise ValueError(f"window_size must be at least 1, got {size}")
    rows, indices = rows_of(episodes)
    if first_only:
        indices = indices[np.isin(indices, rows.bounds()[:, 0])]
        if len(indices) == 0:
            raise ValueError("none of the transitions is the first one of an episode: pass whole episodes")
    rewards = None if transform is None else transform(rows.rewards)
    gamma, n_frames = getattr(algo, "gamma", 1.0), getattr(algo, "n_frames", 1)
    for start in range(0, len(indices), size):
        yield gather(rows, indices[start : start + size], n_frames=n_frames, gamma=gamma, rewards=rewards)


def _mean(values: Callable[[TransitionMiniBatch], np.ndarray], windows: Iterator[TransitionMiniBatch]) -> float:
    """Mean over transitions, not over windows: the last window may be short."""
    total, count = 0.0, 0
    for batch in windows:
        total += float(values(batch).sum(dtype=np.float64))
        count += len(batch)
    return total / count


def _greedy_value(algo: Any, value: Callable[..., np.ndarray], batch: TransitionMiniBatch) -> np.ndarray:
    """``Q(s, pi(s))``, (window,)."""
    return value(batch.observations, algo.predict(batch.observations))


def _value_function(algo: Any, name: str) -> Callable[..., np.ndarray]:
    """``algo.predict_value``, or an error that names what to use instead."""
    value = getattr(algo, "predict_value", None)
    if value is None:
        raise TypeError(
            f"{name} needs action values, but {type(algo).__name__} learns none: use discrete_action_match,"
            " continuous_action_diff or evaluate_on_environment(env)"
        )
    return value

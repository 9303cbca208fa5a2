"""Scorers: what an algorithm is worth, on held-out episodes or in the environment itself.

A scorer is a function ``(algo, episodes, window_size=1024) -> float`` where greater is better, as
scikit-learn wants it: errors come back negated. Episodes may be a data set, a list of episodes or a list of
transitions. Each scorer carries

- ``negated`` : whether ``natural_value`` turns its sign,
- ``needs_episodes`` and ``needs_values`` : whether it looks at episodes, and at ``algo.predict_value``,
- ``action_space`` : the only kind of action that it takes, else None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any, TypeVar

import numpy as np

from ..dataset import Rows, TransitionMiniBatch, gather, rows_of
from ..registry import nearest
from .checks import check_algo, check_environment, check_episodes
from .rollout import EnvironmentScorer

Scorer = Callable[..., float]
S = TypeVar("S", bound=Scorer)

WINDOW = 1024  # transitions in one forward pass

SCORERS: dict[str, Scorer] = {}


def _short_name(scorer: Any) -> str:
    return scorer.__name__.removesuffix("_scorer")


def _scorer(negated: bool = False, needs_values: bool = False, action_space: str | None = None) -> Callable[[S], S]:
    """Enter a function into ``SCORERS`` under its name without ``_scorer`` and say what it needs."""

    def register(function: S) -> S:
        vars(function).update(
            negated=negated, needs_episodes=True, needs_values=needs_values, action_space=action_space
        )
        SCORERS[_short_name(function)] = function
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


def check_scorer(name: str, scorer: Any, algo: Any, eval_episodes: Any) -> None:
    """Say before training what would go wrong when ``scorer`` is called after it.

    Parameters
    ----------
    name : what the user calls the scorer, for error messages.
    scorer : one of this module, or a function of the user; of the latter nothing but that it is one is known, unless
        it carries the attributes of the former.
    algo : an algorithm with networks.
    eval_episodes : what the scorer will be given.

    Raises
    ------
    TypeError
        For something that can't be called, for episodes that are none, for ``algo`` without the values needed.
    ValueError
        Without episodes, or for episodes or an environment of other observations or actions than ``algo`` has.
    """
    if not callable(scorer):
        raise TypeError(f"the scorer {name!r} must be a function of (algo, episodes), not {scorer!r}")
    if isinstance(scorer, EnvironmentScorer):
        check_environment(algo, scorer.env)
    if getattr(scorer, "needs_episodes", False):
        if eval_episodes is None or (isinstance(eval_episodes, Sized) and len(eval_episodes) == 0):
            raise ValueError(f"the scorer {name!r} needs episodes: pass eval_episodes=")
        _usable_rows(name, scorer, algo, eval_episodes)


@_scorer(negated=True, needs_values=True)
def td_error_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Negated mean squared one-step TD error, ``E[(Q(s, a) - r - gamma Q(s', pi(s')))^2]``.

    ``pi`` is the greedy policy, so with discrete actions this is the error of ``max_a Q(s', a)``. Rewards are
    scaled as in training, and ``gamma`` is the algorithm's. A large error on held-out episodes suggests that
    Q has over-fitted the training episodes.
    """

    def squared_errors(batch: TransitionMiniBatch) -> np.ndarray:
        q = _value(algo, batch.observations, batch.actions)
        q_next = _value(algo, batch.next_observations, algo.predict(batch.next_observations))
        target = batch.rewards[:, 0] + batch.discounts[:, 0] * q_next  # (window,)
        return np.square(q - target)

    return -_mean(squared_errors, _windows(td_error_scorer, algo, episodes, window_size, scaled_rewards=True))


@_scorer(negated=True, needs_values=True)
def average_value_estimation_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Negated mean value of the greedy actions, ``E[Q(s, pi(s))]``.

    A value far above the returns of the data tells of over-estimation. It is in units of scaled rewards.
    """
    windows = _windows(average_value_estimation_scorer, algo, episodes, window_size)
    return -_mean(lambda batch: _greedy_value(algo, batch), windows)


@_scorer(needs_values=True)
def initial_state_value_estimation_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Mean value of the greedy actions in the first states, ``E[Q(s_0, pi(s_0))]``.

    How much discounted, scaled return the policy expects from where episodes begin. On choosing hyper-parameters by
    such estimates see Paine et al. (2020), "Hyperparameter Selection for Offline Reinforcement Learning".
    """
    windows = _windows(initial_state_value_estimation_scorer, algo, episodes, window_size, first_only=True)
    return _mean(lambda batch: _greedy_value(algo, batch), windows)


@_scorer(action_space="discrete")
def discrete_action_match_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Share in [0, 1] of transitions whose action is the greedy one, ``E[1{a = pi(s)}]``."""
    windows = _windows(discrete_action_match_scorer, algo, episodes, window_size)
    return _mean(lambda batch: _greedy_like(algo, batch) == batch.actions, windows)


@_scorer(negated=True, action_space="continuous")
def continuous_action_diff_scorer(algo: Any, episodes: Any, window_size: int | None = WINDOW) -> float:
    """Negated mean squared distance of the greedy actions from those of the data, ``E[|a - pi(s)|^2]``.

    The squares are summed over the action's components, in the units of the data.
    """

    def squared_distances(batch: TransitionMiniBatch) -> np.ndarray:
        return np.square(batch.actions - _greedy_like(algo, batch)).sum(axis=1)

    return -_mean(squared_distances, _windows(continuous_action_diff_scorer, algo, episodes, window_size))


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
        For ``n_trials`` below 1, ``epsilon`` outside [0, 1], a negative ``seed`` or spaces that no algorithm can use.
    """
    return EnvironmentScorer(env, n_trials, epsilon, render, seed)


def _usable_rows(name: str, scorer: Any, algo: Any, episodes: Any) -> tuple[Rows, np.ndarray]:
    """Storage and transitions of ``episodes``, known to suit ``scorer`` and ``algo``."""
    check_algo(algo)
    if getattr(scorer, "needs_values", False) and not hasattr(algo, "predict_value"):
        raise TypeError(
            f"{name} needs action values, but {type(algo).__name__} learns none: use discrete_action_match,"
            " continuous_action_diff or evaluate_on_environment(env)"
        )
    rows, indices = rows_of(episodes)
    kind = "discrete" if rows.discrete_action else "continuous"
    needed = getattr(scorer, "action_space", None)
    if needed not in (None, kind):
        other = next(short for short, s in SCORERS.items() if getattr(s, "action_space", None) == kind)
        raise ValueError(f"{name} needs {needed} actions, the episodes hold {kind} ones: use {other}")
    check_episodes(name, algo, rows, indices)
    return rows, indices


def _windows(
    scorer: Scorer,
    algo: Any,
    episodes: Any,
    window_size: int | None,
    scaled_rewards: bool = False,
    first_only: bool = False,
) -> Iterator[TransitionMiniBatch]:
    """All transitions in order, at most ``window_size`` at a time, across the borders of episodes."""
    size = WINDOW if window_size is None else window_size  # scikit-learn may put its y=None there
    if not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"window_size must be a whole number of at least 1, got {size!r}")
    rows, indices = _usable_rows(_short_name(scorer), scorer, algo, episodes)
    if first_only:
        indices = indices[np.isin(indices, rows.bounds()[:, 0])]
        if len(indices) == 0:
            raise ValueError("none of the transitions is the first one of an episode: pass whole episodes")
    scaler = algo.fitted_scalers_.reward if scaled_rewards else None
    rewards = None if scaler is None else scaler.transform_numpy(rows.rewards)
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


def _greedy_value(algo: Any, batch: TransitionMiniBatch) -> np.ndarray:
    """``Q(s, pi(s))``, (window,)."""
    return _value(algo, batch.observations, algo.predict(batch.observations))


def _value(algo: Any, observations: np.ndarray, actions: Any) -> np.ndarray:
    """``Q(s, a)``, (window,)."""
    return _of_shape("predict_value", algo, algo.predict_value(observations, actions), (len(observations),))


def _greedy_like(algo: Any, batch: TransitionMiniBatch) -> np.ndarray:
    """``pi(s)``, of the shape of the actions in the data, so that nothing is repeated when they are compared."""
    return _of_shape("predict", algo, algo.predict(batch.observations), batch.actions.shape)


def _of_shape(method: str, algo: Any, result: Any, shape: tuple[int, ...]) -> np.ndarray:
    if np.shape(result) != shape:
        raise ValueError(f"{method} of {type(algo).__name__} returned the shape {np.shape(result)}, not {shape}")
    return np.asarray(result)

"""Who chooses the actions of a rollout: chance, an explorer, the policy or its greedy half."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset.validation import warn_caller
from ..envs import EnvAdapter
from ..impl import AlgorithmImpl
from ..metrics.checks import check_environment
from ..preprocessing import Scalers
from .rollout import Bounds

if TYPE_CHECKING:
    from ..base import Algo


class Actor:
    """Actions for the observations of a rollout.

    Parameters
    ----------
    algo : what acts; its networks exist.
    explorer : chooses the actions; None leaves it to the policy.
    bounds : box of the actions.
    random_steps : steps at the start in which actions are uniform.
    deterministic : whether the policy acts greedily.
    """

    def __init__(self, algo: Algo, explorer: Any, bounds: Bounds, random_steps: int = 0, deterministic: bool = False):
        if isinstance(explorer, type):
            raise TypeError(f"explorer={explorer.__name__} is a class: pass an object, {explorer.__name__}(...)")
        if explorer is not None and not hasattr(explorer, "sample"):
            raise TypeError(f"explorer={explorer!r} must have a method sample(algo, x, step)")
        if hasattr(explorer, "check"):
            explorer.check(algo)
        if random_steps > 0:
            bounds.check_finite()
        self.algo, self.explorer, self.bounds, self.random_steps = algo, explorer, bounds, random_steps
        self.choose = algo.predict if deterministic else algo.sample_action

    def act(self, observations: np.ndarray, step: int) -> np.ndarray:
        """Actions ``(n, ...)``, in the scale of the environment."""
        algo = self.algo
        if step <= self.random_steps:
            return self.bounds.draw(algo.stream_.numpy, len(observations), algo.action_size or 0)
        if all_fitted(algo.fitted_scalers_):
            return self._choose(observations, step)
        with unfitted_scalers_aside(algo):
            return self._choose(observations, step)

    def _choose(self, observations: np.ndarray, step: int) -> np.ndarray:
        if self.explorer is None:
            actions = self.choose(observations)
            if not self.bounds.discrete and not np.isfinite(actions).all():
                name = type(self.algo).__name__
                raise ValueError(f"the policy of {name} chose {actions[0]} in step {step}: training has diverged")
            return actions
        actions = np.asarray(self.explorer.sample(self.algo, observations, step))
        self._check(actions, len(observations), step)
        return actions

    def _check(self, actions: np.ndarray, n: int, step: int) -> None:
        """Raise ``ValueError`` for what an explorer must not return."""
        bounds, name = self.bounds, f"{type(self.explorer).__name__}.sample"
        if bounds.discrete:
            if actions.shape != (n,) or actions.dtype.kind not in "iu":
                raise ValueError(
                    f"{name} returned {actions.dtype} of shape {actions.shape} in step {step}, it must return ids, "
                    f"whole numbers of shape ({n},)"
                )
            if actions.min() < 0 or actions.max() >= bounds.size:
                raise ValueError(f"{name} returned {actions} in step {step}, ids are from 0 to {bounds.size - 1}")
        elif actions.shape != (n, bounds.size) or actions.dtype.kind not in "fiu":
            raise ValueError(
                f"{name} returned {actions.dtype} of shape {actions.shape} in step {step}, it must return actions, "
                f"numbers of shape ({n}, {bounds.size})"
            )
        elif not np.isfinite(actions).all():
            raise ValueError(f"{name} returned {actions} in step {step}: actions must be finite")

    def begin(self, row: int | None = None) -> None:
        """An episode begins in this row, or in all."""
        if hasattr(self.explorer, "reset"):
            self.explorer.reset(row)


def all_fitted(scalers: Scalers) -> bool:
    """Whether each scaler knows its statistics."""
    return all(s is None or s.fitted for s in (scalers.observation, scalers.action, scalers.reward))


@contextmanager
def unfitted_scalers_aside(algo: Algo) -> Iterator[None]:
    """Inside, what a scaler that isn't fitted would change passes through unchanged."""
    before = algo.fitted_scalers_
    given: Any = (s if s is None or s.fitted else None for s in (before.observation, before.action, before.reward))
    algo.fitted_scalers_ = Scalers(*given)
    try:
        yield
    finally:
        algo.fitted_scalers_ = before


def build_for(algo: Algo, single: EnvAdapter) -> None:
    """Networks for the spaces of an environment, and warnings about ranges that don't fit; errors build nothing."""
    if algo.impl is not None:
        check_environment(algo, single)
    algo.build_with_env(single.env)
    if single.discrete or getattr(algo, "action_scaler", None) is not None:
        return
    low, high = single.action_low, single.action_high
    if np.isfinite([low, high]).all() and ((low != -1).any() or (high != 1).any()):
        warn_caller(
            f"the environment takes actions in {shown(low, high)}, but {type(algo).__name__} acts in [-1, 1]: "
            f"pass action_scaler='min_max' to {type(algo).__name__}; what lies outside of the box is clipped"
        )


def shown(low: np.ndarray, high: np.ndarray) -> str:
    """The ranges of actions, one where all are the same."""
    each = dict.fromkeys(f"[{a:.4g}, {b:.4g}]" for a, b in zip(low, high, strict=True))
    return " and ".join(each)


def warn_about_exploration(algo: Algo, explorer: Any, random_steps: int, n_steps: int) -> None:
    """Warn where a deterministic policy is left alone."""
    never_overridden = type(algo.impl).sample_action is AlgorithmImpl.sample_action
    if explorer is None and never_overridden and random_steps < n_steps:
        kind = "ConstantEpsilonGreedy or LinearDecayEpsilonGreedy" if algo.action_space == "discrete" else "NormalNoise"
        warn_caller(
            f"{type(algo).__name__} acts greedily and explorer is None, so it explores nothing: pass an explorer of "
            f"d3rlpy.online.explorers, for instance {kind}"
        )

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
            return self.choose(observations)
        return np.asarray(self.explorer.sample(self.algo, observations, step))

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
    low, high = float(single.action_low.min()), float(single.action_high.max())
    if np.isfinite([low, high]).all() and ((single.action_low != -1).any() or (single.action_high != 1).any()):
        warn_caller(
            f"the environment takes actions in [{low:.4g}, {high:.4g}], but {type(algo).__name__} acts in [-1, 1]: "
            f"pass action_scaler='min_max' to {type(algo).__name__}; what lies outside of the box is clipped"
        )


def warn_about_exploration(algo: Algo, explorer: Any, random_steps: int, n_steps: int) -> None:
    """Warn where a deterministic policy is left alone."""
    never_overridden = type(algo.impl).sample_action is AlgorithmImpl.sample_action
    if explorer is None and never_overridden and random_steps < n_steps:
        kind = "ConstantEpsilonGreedy or LinearDecayEpsilonGreedy" if algo.action_space == "discrete" else "NormalNoise"
        warn_caller(
            f"{type(algo).__name__} acts greedily and explorer is None, so it explores nothing: pass an explorer of "
            f"d3rlpy.online.explorers, for instance {kind}"
        )

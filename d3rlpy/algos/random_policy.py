"""RandomPolicy: actions that depend on nothing, to collect data with or to compare with.

There is nothing to learn. ``fit`` counts its updates, fits the scalers and changes nothing else, so a call of
``build_with_dataset``, ``build_with_env`` or ``create_impl`` will do. ``predict`` draws as ``sample_action`` does: this
is the one algorithm whose greedy actions are random, reproducible through ``random_state``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base import Algo
from ..hyperparameters import algorithm, hp, hyperparameters
from ..impl import AlgorithmImpl, Batch, Metrics
from ..preprocessing import ActionScaler


class NothingToLearnImpl(AlgorithmImpl):
    """No networks."""

    alone = "there is nothing to train"

    def build(self) -> None:
        pass

    def update(self, batch: Batch) -> Metrics:
        return {}


class RandomPolicyImpl(NothingToLearnImpl):
    """Uniform or normal actions."""

    hp: RandomPolicy

    def best_action(self, observations: Tensor) -> Tensor:
        """Uniform in ``[-1, 1]^A``, or normal and clipped to it."""
        action = torch.empty(len(observations), self.action_size, device=self.device)
        if self.hp.distribution == "uniform":
            return action.uniform_(-1.0, 1.0)
        return (self.hp.normal_std * action.normal_()).clamp(-1.0, 1.0)


class DiscreteRandomPolicyImpl(NothingToLearnImpl):
    """Every action with the same probability."""

    def best_action(self, observations: Tensor) -> Tensor:
        return torch.randint(self.action_size, (len(observations),), device=self.device)


@hyperparameters
class NothingToLearn(Algo):
    """What the two have in common."""

    learns = False

    def predict(self, x: Any) -> np.ndarray:
        """Random actions for observations ``(batch, ...)``, other ones on each call."""
        return self.sample_action(x)


@algorithm
class RandomPolicy(NothingToLearn):
    """Random continuous actions in [-1, 1], or in the range of the data with ``action_scaler="min_max"``.

    Examples
    --------
    >>> RandomPolicy(distribution="normal", normal_std=0.3)
    RandomPolicy(distribution='normal', normal_std=0.3)
    """

    action_space = "continuous"
    distribution: str = hp("uniform", "how actions are drawn before scaling", options=("uniform", "normal"))
    normal_std: float = hp(1.0, "standard deviation of normal actions, which are clipped to [-1, 1]", low=0)
    action_scaler: str | ActionScaler | None = hp(None, "action scaler: 'min_max' or an object", fixed=True)

    Impl = RandomPolicyImpl


@algorithm
class DiscreteRandomPolicy(NothingToLearn):
    """Random discrete actions.

    Examples
    --------
    >>> DiscreteRandomPolicy(random_state=0)
    DiscreteRandomPolicy(random_state=0)
    """

    action_space = "discrete"

    Impl = DiscreteRandomPolicyImpl

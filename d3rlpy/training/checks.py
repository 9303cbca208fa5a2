"""Does this data suit this algorithm? Asked once, before the first update."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dataset import Rows
from ..dataset.validation import warn_caller
from ..gpu import resolve_device
from ..hyperparameters import check_hyperparameters
from ..precision import check_precision


def check_settings(algo: Any) -> None:
    """Raise ``ValueError`` for a hyper-parameter out of bounds, and for what the device can't do."""
    check_hyperparameters(algo)
    check_precision(algo.precision, resolve_device(algo.use_gpu))


def network_shape(observation_shape: tuple[int, ...], n_frames: int) -> tuple[int, ...]:
    """Shape that the networks see: ``n_frames`` images stacked along the channels, vectors as they are."""
    if n_frames == 1:
        return observation_shape
    if len(observation_shape) != 3:
        raise ValueError(
            f"n_frames={n_frames} stacks images, but observations have the shape {observation_shape}: use n_frames=1"
        )
    return (observation_shape[0] * n_frames, *observation_shape[1:])


def check_data(algo: Any, rows: Rows, indices: np.ndarray) -> None:
    """Raise if the data has another action space or shape than the algorithm, warn about a risky range."""
    name = type(algo).__name__
    if algo.action_space == "discrete" and not rows.discrete_action:
        raise ValueError(
            f"{name} learns discrete actions, but the actions of the data set are floats: "
            "use an algorithm for continuous actions, or pass integer actions to MDPDataset"
        )
    if algo.action_space == "continuous" and rows.discrete_action:
        raise ValueError(
            f"{name} learns continuous actions, but the actions of the data set are integers: "
            f"use an algorithm for discrete actions, or pass float actions to MDPDataset"
        )
    shape = network_shape(rows.observation_shape, algo.n_frames)
    if algo.impl is not None:
        if shape != algo.observation_shape:
            raise ValueError(
                f"{name} was built for observations of shape {algo.observation_shape}, the data set has {shape}: "
                "train a fresh object, sklearn.base.clone gives one"
            )
        if rows.action_size > algo.action_size or (not rows.discrete_action and rows.action_size != algo.action_size):
            raise ValueError(
                f"{name} was built for action_size={algo.action_size}, the data set has {rows.action_size}: "
                "train a fresh object, sklearn.base.clone gives one"
            )
    if algo.action_space == "continuous" and getattr(algo, "action_scaler", None) is None:
        low, high = float(rows.actions.min()), float(rows.actions.max())
        if low < -1.0 or high > 1.0:
            warn_caller(
                f"actions of the data set lie in [{low:.4g}, {high:.4g}], but {name} acts in [-1, 1]: "
                f"pass action_scaler='min_max' to {name}"
            )

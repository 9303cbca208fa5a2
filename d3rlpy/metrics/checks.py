"""Whether what an algorithm was made for is what the episodes or the environment of a scorer hold.

What an object doesn't tell about itself (``action_space``, ``action_size``, ``observation_shape``) is not compared,
so that anything with ``predict`` can be scored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dataset import Rows, gather
from ..envs import EnvAdapter, FrameStack


def check_algo(algo: Any) -> None:
    """Raise ``TypeError`` for something that can't act, ``RuntimeError`` for an algorithm without networks."""
    if not hasattr(algo, "predict"):
        raise TypeError(f"a scorer is called as scorer(algo, episodes), but {type(algo).__name__} has no predict")
    if getattr(algo, "impl", algo) is None:
        raise RuntimeError(
            f"{type(algo).__name__} has no networks yet, so there is nothing to score: call fit, load_model or "
            "build_with_dataset first"
        )


def check_episodes(name: str, algo: Any, rows: Rows, indices: Any) -> None:
    """Raise ``ValueError`` for episodes of other spaces than ``algo`` has; ``name`` is that of the scorer.

    Episodes in which the greatest ids are missing are no error.
    """
    owner = f"{name}: the episodes have"
    check_kind(owner, algo, rows.discrete_action)
    size, own = rows.action_size, getattr(algo, "action_size", None)
    if own is not None and (size > own or (size < own and not rows.discrete_action)):
        raise ValueError(f"{owner} action_size={size}, {type(algo).__name__} was built for {own}")
    first = gather(rows, indices[:1], n_frames=getattr(algo, "n_frames", 1))
    check_shape(owner, algo, first.observations.shape[1:])


def check_environment(algo: Any, env: EnvAdapter) -> None:
    """Raise ``ValueError`` for an environment of other spaces than ``algo`` has.

    An environment with more ids than the data had is no error: ``algo`` just never takes them.
    """
    owner = "the environment has"
    check_kind(owner, algo, env.discrete)
    size, own = env.action_size, getattr(algo, "action_size", None)
    if own is not None and (size < own or (size > own and not env.discrete)):
        raise ValueError(f"{owner} action_size={size}, {type(algo).__name__} was built for {own}")
    frames = FrameStack(getattr(algo, "n_frames", 1))
    check_shape(owner, algo, frames.reset(np.zeros(env.observation_shape)).shape)


def check_kind(owner: str, algo: Any, discrete: bool) -> None:
    """Raise ``ValueError`` unless actions are of the kind that ``algo`` takes."""
    kind = "discrete" if discrete else "continuous"
    own = getattr(algo, "action_space", None)
    if own not in (None, kind):
        raise ValueError(f"{owner} {kind} actions, {type(algo).__name__} takes {own} ones")


def check_shape(owner: str, algo: Any, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless observations, frames stacked, are of the shape that ``algo`` sees."""
    own = getattr(algo, "observation_shape", None)
    if own not in (None, shape):
        raise ValueError(f"{owner} observations of shape {shape}, {type(algo).__name__} was built for {own}")

"""What may go into a replay buffer: single values, and data that it starts with."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..dataset import Episode, MDPDataset, Rows
from ..dataset.rows import Piece
from ..dataset.validation import FLOAT32_MAX, check_whole, warn_caller
from ..envs import EnvAdapter


def to_finite(name: str, array: np.ndarray) -> np.ndarray:
    """Float32 without NaN and infinities; the error names the first bad number."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold numbers, got dtype {array.dtype}")
    given = array
    if array.dtype != np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        place = int(np.argmin(finite))
        raise ValueError(f"{name} must be finite and within float32, got {given[place]} in place {place}")
    return array


def to_reward(value: Any) -> float:
    """A finite number that float32 can hold."""
    if type(value) is float and -FLOAT32_MAX <= value <= FLOAT32_MAX:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, (Real, np.bool_)) or not abs(float(value)) <= FLOAT32_MAX:  # false for NaN
        raise ValueError(f"reward must be a finite number within float32, got {value!r}")
    return float(value)


def to_flag(name: str, value: Any) -> bool:
    """True or False from either of them or from 1 and 0."""
    if value is True or value is False:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, (Real, np.bool_)) or (value != 0 and value != 1):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def pieces_of(episodes: MDPDataset | Sequence[Episode] | None, dataset: MDPDataset | None) -> list[Piece]:
    """Where the rows to start with lie; nowhere if neither is given."""
    if episodes is not None and dataset is not None:
        raise ValueError("episodes= and dataset= are both given: put what you want into one of them")
    if dataset is not None:
        if not isinstance(dataset, MDPDataset):
            raise TypeError(f"dataset must be an MDPDataset, got {type(dataset).__name__}; a list goes to episodes=")
        return [(dataset.rows, 0, len(dataset.rows))]
    if episodes is None:
        return []
    if isinstance(episodes, MDPDataset):
        return pieces_of(None, episodes)
    given = list(episodes)
    if not given:
        raise ValueError("episodes is empty: leave it out to start with an empty buffer")
    for position, episode in enumerate(given):
        if not isinstance(episode, Episode):
            raise TypeError(f"episodes must be a list of Episode, but item {position} is {type(episode).__name__}")
    return [(episode._rows, episode._start, episode._stop) for episode in given]


def kind_of_rows(
    env: Any,
    pieces: list[Piece],
    observation_shape: Sequence[int] | None,
    discrete_action: bool | None,
    action_size: int | None,
) -> tuple[tuple[int, ...], bool, int]:
    """Observation shape, whether actions are discrete, and their size, on which all sources must agree."""
    shape = None if observation_shape is None else to_shape(observation_shape)
    if discrete_action is not None:
        check_flag("discrete_action", discrete_action, "ReplayBuffer")
    discrete = None if discrete_action is None else bool(discrete_action)
    if action_size is not None:
        check_whole("action_size", action_size, 1)
    if env is not None:
        if hasattr(env, "single_observation_space"):
            raise ValueError(f"env is a {type(env).__name__}: pass one of its environments, rows are of one")
        adapter = EnvAdapter(env)
        dtype = getattr(adapter.env.observation_space, "dtype", None)
        if len(adapter.observation_shape) == 3 and dtype != np.uint8:
            raise ValueError(f"env has images of dtype {dtype}, but images must be uint8")
        shape = agreed("observation_shape", shape, adapter.observation_shape, "env")
        discrete = agreed("discrete_action", discrete, adapter.discrete, "env")
        action_size = agreed("action_size", action_size, adapter.action_size, "env")
    for rows, _, _ in pieces:
        check_columns(rows)
        shape = agreed("observation_shape", shape, rows.observation_shape, "the data")
        discrete = agreed("discrete_action", discrete, rows.discrete_action, "the data")
    if pieces:
        largest = max(rows.action_size for rows, _, _ in pieces)
        action_size = largest if action_size is None else action_size
    for rows, _, _ in pieces:
        fewer = discrete and rows.action_size < int(action_size or 0)  # not every id has to occur
        agreed("action_size", action_size, action_size if fewer else rows.action_size, "the data")
    if shape is None or discrete is None or action_size is None:
        raise ValueError(
            "what does the buffer hold? Give env=, episodes= or dataset=, or all of observation_shape=, action_size= "
            "and discrete_action="
        )
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ValueError(f"observations must be vectors (D,) or uint8 images (C, H, W), got observation_shape={shape}")
    return shape, discrete, int(action_size)


def to_shape(given: Any) -> tuple[int, ...]:
    """``observation_shape`` as a tuple of whole numbers."""
    try:
        return tuple(operator.index(n) for n in given)
    except TypeError as error:
        raise ValueError(f"observation_shape={given!r} must be a sequence of whole numbers, such as (4,)") from error


def agreed(name: str, known: Any, found: Any, source: str) -> Any:
    """``found``; ``ValueError`` if something else was known before."""
    if known is not None and known != found:
        raise ValueError(f"{name} is {known} so far, but {source} has {found}")
    return found


def check_columns(rows: Rows) -> None:
    """A buffer has no named columns: refuse what would change targets, warn of the rest."""
    if "discount" in rows.columns:
        raise ValueError("the data have a column 'discount', which a replay buffer cannot keep: it has one gamma")
    if rows.columns:
        warn_caller(f"a replay buffer keeps no named columns, {sorted(rows.columns)} are left out")


def check_flag(name: str, value: Any, owner: str) -> None:
    """Raise ``TypeError`` for anything but True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r} of {owner} must be True or False")


def check_buffer(buffer: Any, algo: Any, env: EnvAdapter) -> None:
    """Raise if steps of ``env`` can't go into ``buffer``, or ``algo`` can't learn from what it holds."""
    from .buffers import ReplayBuffer

    if not isinstance(buffer, ReplayBuffer):
        hint = ": for offline data pass ReplayBuffer(maxlen, dataset=...)" if isinstance(buffer, MDPDataset) else ""
        raise TypeError(f"buffer must be a ReplayBuffer, got {type(buffer).__name__}{hint}")
    held = buffer.get_observation_shape(), buffer.is_action_discrete()
    if held != (env.observation_shape, env.discrete):
        raise ValueError(
            f"the buffer holds observations {held[0]} and {kind(held[1])} actions, the environment has "
            f"{env.observation_shape} and {kind(env.discrete)} ones: make it with env="
        )
    size = buffer.get_action_size()
    if size < env.action_size or (size > env.action_size and not env.discrete):
        raise ValueError(f"the buffer has action_size={size}, the environment {env.action_size}: make it with env=")
    if env.discrete and buffer.n_rows and (largest := int(buffer.rows.actions.max())) >= algo.action_size:
        raise ValueError(
            f"the buffer holds the action {largest}, but {type(algo).__name__} was built for action_size="
            f"{algo.action_size}: build it with build_with_dataset of data that hold all actions"
        )


def kind(discrete: bool) -> str:
    return "discrete" if discrete else "continuous"

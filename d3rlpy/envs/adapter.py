"""EnvAdapter: gymnasium, gym 0.26 and 4-tuple environments behind gymnasium's reset and step.

Everything is decided by what an object can do, never by its class: gym and gymnasium share no class, and
neither package is imported here.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from types import NoneType
from typing import Any

import numpy as np


class EnvAdapter:
    """An environment whose ``reset`` and ``step`` always speak gymnasium's 5-tuple API.

    Wrapping an adapter gives a second handle on the same environment, so callers may wrap what they are
    handed without asking.

    Parameters
    ----------
    env : environment with ``observation_space``, ``action_space``, ``reset`` and ``step``. Actions are a
        one-dimensional box or ids ``0 ... n - 1``; observations are one array.

    Raises
    ------
    TypeError
        When something of the above is missing.
    ValueError
        When a space is of a kind that no algorithm here can use; the message says which wrapper helps.

    Attributes
    ----------
    env : the environment as it was handed in.
    observation_shape : shape of one observation, ``()`` never occurs.
    discrete : whether actions are ids.
    action_size : number of ids, or length of an action vector.
    """

    def __init__(self, env: Any):
        self.env: Any = env.env if isinstance(env, EnvAdapter) else env
        for name in ("observation_space", "action_space", "reset", "step"):
            if not hasattr(self.env, name):
                raise TypeError(f"env must be a gymnasium or gym environment; {type(env).__name__} has no {name!r}")
        self.observation_shape = _observation_shape(self.env.observation_space)
        self.discrete, self.action_size = _action_kind(self.env.action_space)
        _silence_gym_checker(self.env)

    @cached_property
    def action_low(self) -> np.ndarray:
        """Lower bounds ``(action_size,)`` float32; absent where actions are ids."""
        return self._bound("low")

    @cached_property
    def action_high(self) -> np.ndarray:
        """Upper bounds ``(action_size,)`` float32; absent where actions are ids."""
        return self._bound("high")

    def _bound(self, side: str) -> np.ndarray:
        if self.discrete:
            raise AttributeError(f"action_{side}: actions of {type(self.env).__name__} are ids")
        return np.asarray(getattr(self.env.action_space, side), dtype=np.float32)

    @property
    def takes_seed(self) -> bool:
        """Whether ``reset`` of this environment can be given a seed."""
        return _accepts_seed(self.env) or hasattr(self.env, "seed")

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """``actions`` moved into the box; ids as they are."""
        return actions if self.discrete else np.minimum(np.maximum(actions, self.action_low), self.action_high)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """First observation and info of a new episode.

        ``seed`` reaches environments without ``reset(seed=...)`` through their ``seed`` method.
        """
        if seed is None:
            result = self.env.reset()
        elif _accepts_seed(self.env):
            result = self.env.reset(seed=seed)
        elif hasattr(self.env, "seed"):
            self.env.seed(seed)
            result = self.env.reset()
        else:
            raise ValueError(
                f"seed={seed}: {type(self.env).__name__} takes no seed, neither by reset(seed=...) nor by"
                " seed(...); leave seed at None"
            )
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], (dict, NoneType)):
            return self._observation(result[0]), result[1] or {}
        return self._observation(result), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated and info.

        A 4-tuple environment is truncated where it is done and ``info["TimeLimit.truncated"]`` is true; the
        key alone says nothing, since old time limits also write it with the value False.
        """
        result = self.env.step(self._action(action))
        n_values = len(result) if isinstance(result, (tuple, list)) else 0
        if n_values == 5:
            observation, reward, over, cut, info = result
            terminated, truncated = self._flag("terminated", over), self._flag("truncated", cut)
        elif n_values == 4:
            observation, reward, over, info = result
            done = self._flag("done", over)
            truncated = done and bool((info or {}).get("TimeLimit.truncated", False))
            terminated = done and not truncated
        else:
            got = f"{n_values} values" if n_values else repr(result)
            raise ValueError(
                f"step of {type(self.env).__name__} returned {got}; expected 5 (gymnasium, gym 0.26) or 4 (older gym)"
            )
        return self._observation(observation), self._reward(reward), terminated, truncated, info or {}

    def _flag(self, name: str, value: Any) -> bool:
        if value is True or value is False:
            return value
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf" or array.item() not in (0, 1):
            raise ValueError(f"step of {type(self.env).__name__} returned {name}={value!r}, it must be True or False")
        return bool(array.item())

    def _reward(self, value: Any) -> float:
        try:
            return to_number(value)
        except ValueError as error:
            raise ValueError(f"step of {type(self.env).__name__}: {error}") from error

    def sample_action(self) -> int | np.ndarray:
        """Action drawn by the environment's own space: an id, or float32 ``(action_size,)``."""
        action = self.env.action_space.sample()
        return int(action) if self.discrete else np.asarray(action, dtype=np.float32)

    def render(self) -> Any:
        """What the environment's ``render`` gives; its kind was chosen when the environment was made."""
        return self.env.render()

    def close(self) -> None:
        """Release windows and other resources of the environment."""
        if hasattr(self.env, "close"):
            self.env.close()

    def _observation(self, observation: Any) -> np.ndarray:
        """Array of the declared shape: uint8 images stay as they are, all else is float32.

        A copy, since environments may write the next observation over this one.
        """
        array = np.array(observation)
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"{type(self.env).__name__} returned an observation of dtype {array.dtype}, it must hold numbers"
            )
        if array.shape != self.observation_shape:
            raise ValueError(
                f"{type(self.env).__name__} returned an observation of shape {array.shape}, but its"
                f" observation_space says {self.observation_shape}"
            )
        if array.dtype == np.uint8 and array.ndim > 1:
            return array
        return array.astype(np.float32, copy=False)

    def _action(self, action: Any) -> Any:
        """What the action space expects: a Python int, or an array of its own dtype and shape.

        A copy, since environments may change what they are given.
        """
        if self.discrete:
            return int(np.asarray(action).item())
        space = self.env.action_space
        return np.array(action, dtype=space.dtype).reshape(space.shape)


def _observation_shape(space: Any) -> tuple[int, ...]:
    shape = getattr(space, "shape", None)
    if shape is None or not hasattr(space, "low"):
        raise ValueError(
            f"observation_space {space} is not a box; turn observations into one array first, for example"
            " with gymnasium.wrappers.FlattenObservation"
        )
    if shape == ():
        raise ValueError(f"observation_space {space} holds single numbers; return arrays of shape (1,)")
    return tuple(int(size) for size in shape)


def _action_kind(space: Any) -> tuple[bool, int]:
    """Whether actions are ids, and how many ids or how long a vector."""
    if hasattr(space, "n") and not hasattr(space, "nvec") and getattr(space, "shape", ()) == ():
        start = int(getattr(space, "start", 0))
        if start != 0:
            raise ValueError(f"action_space {space} starts at {start}; action ids must start at 0")
        return True, int(space.n)
    if hasattr(space, "low") and hasattr(space, "high") and len(space.shape) == 1:
        if not np.issubdtype(space.dtype, np.floating):
            raise ValueError(f"action_space {space} has dtype {space.dtype}; actions must be floats")
        return False, int(space.shape[0])
    raise ValueError(
        f"action_space {space} is neither Discrete nor a one-dimensional Box; wrap the environment, for"
        " example with gymnasium.wrappers.TransformAction"
    )


def _accepts_seed(env: Any) -> bool:
    """Whether ``env.reset`` takes a seed.

    Signatures are asked, down the chain of wrappers that pass everything on: calling and catching TypeError
    would hide a TypeError of the environment itself. What converts an environment without seeds says so.
    """
    if not getattr(getattr(env, "unwrapped", env), "takes_seed", True):
        return False
    while env is not None:
        try:
            parameters = inspect.signature(env.reset).parameters
        except ValueError:  # a compiled reset without a signature
            return True
        if "seed" in parameters:
            return True
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return False
        env = _wrapped(env)
    return True


def _wrapped(env: Any) -> Any:
    """What a wrapper wraps, else None; read from the instance, since wrappers forward unknown names."""
    return getattr(env, "__dict__", {}).get("env")


def _silence_gym_checker(env: Any) -> None:
    """Switch off gym 0.26's checker: it asks NumPy 2 for ``np.bool8`` and dies at the first step."""
    while env is not None:
        if type(env).__name__ == "PassiveEnvChecker" and type(env).__module__.startswith("gym."):
            env.checked_step = env.checked_reset = env.checked_render = True
        env = _wrapped(env)


def to_number(reward: Any) -> float:
    """A reward as a float, whatever array of one number it is."""
    if type(reward) is float:
        return reward
    array = np.asarray(reward)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise ValueError(f"a reward is one number, the environment returned {reward!r}")
    return float(array.item())

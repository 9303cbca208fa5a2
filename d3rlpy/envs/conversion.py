"""Environments of gym and of the older 4-tuple API as gymnasium's class, which its wrappers ask for."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from .adapter import EnvAdapter


def to_gymnasium(env: Any) -> gymnasium.Env:
    """``env`` itself if gymnasium knows its class, else ``Converted(env)``.

    Raises
    ------
    TypeError, ValueError
        For what is no single environment, or has spaces that no algorithm here can use.
    """
    if hasattr(env, "num_envs"):
        raise ValueError(f"{type(env).__name__} holds several environments: wrap each of them, then make the vector")
    if isinstance(env, EnvAdapter):
        env = env.env
    return env if isinstance(env, gymnasium.Env) else Converted(env)


class Converted(gymnasium.Env):
    """An environment that isn't gymnasium's, seen through ``EnvAdapter``: vectors are float32, images uint8.

    Attributes
    ----------
    adapter : the adapter, whose ``env`` is the environment as it was handed in.
    takes_seed : whether ``reset`` can be given a seed.
    render_mode : the environment's own; ``"rgb_array"`` if its ``render`` is told the mode at each call.
    """

    def __init__(self, env: Any):
        self.adapter = EnvAdapter(env)
        self.takes_seed = self.adapter.takes_seed
        space = self.adapter.env.observation_space
        shape = self.adapter.observation_shape
        dtype: Any = np.uint8 if space.dtype == np.uint8 and len(shape) > 1 else np.float32
        self.observation_space = Box(
            np.broadcast_to(np.asarray(space.low, dtype), shape),
            np.broadcast_to(np.asarray(space.high, dtype), shape),
            dtype=dtype,
        )
        if self.adapter.discrete:
            self.action_space = Discrete(self.adapter.action_size)
        else:
            self.action_space = Box(self.adapter.action_low, self.adapter.action_high, dtype=np.float32)
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self.render_mode = getattr(env, "render_mode", "rgb_array" if _is_told_the_mode(env) else None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """First observation and info; ``ValueError`` for options, and for a seed if the environment takes none."""
        if options:
            raise ValueError(f"options={options!r}: only environments of gymnasium take options")
        return self.adapter.reset(seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated and info."""
        return self.adapter.step(action)

    def render(self) -> Any:
        """The picture, if there is one."""
        env = self.adapter.env
        return env.render() if hasattr(env, "render_mode") else env.render(mode=self.render_mode)

    def close(self) -> None:
        """Release what the environment holds."""
        self.adapter.close()


def _is_told_the_mode(env: Any) -> bool:
    """Whether ``render(mode=...)`` works, as it did before gym 0.26."""
    render = getattr(env, "render", None)
    if render is None:
        return False
    parameters = inspect.signature(render).parameters
    return "mode" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())

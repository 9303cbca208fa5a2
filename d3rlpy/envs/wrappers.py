"""ChannelFirst and ActionRepeat: images and time as the algorithms want them.

Wrappers take environments of gymnasium, of gym 0.26 and of the older 4-tuple API, and are gymnasium's.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from ..dataset.validation import check_whole
from .adapter import to_number
from .conversion import to_gymnasium


class ChannelFirst(gymnasium.ObservationWrapper):
    """Images ``(H, W)`` and ``(H, W, C)`` as ``(1, H, W)`` and ``(C, H, W)``, uint8, the space included.

    Parameters
    ----------
    env : environment whose observations are such images.

    Raises
    ------
    ValueError
        For other observations. An image of fewer rows than columns and channels counts as one whose channels are
        first already.
    """

    def __init__(self, env: Any):
        super().__init__(to_gymnasium(env))
        space = self.env.observation_space
        if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
            raise ValueError(
                f"ChannelFirst takes uint8 images (H, W) or (H, W, C), but observation_space is {space}; turn"
                " observations into such images first, for example with gymnasium.wrappers.TransformObservation"
            )
        if len(space.shape) == 3 and space.shape[0] < min(space.shape[1:]):
            raise ValueError(
                f"ChannelFirst takes images (H, W) or (H, W, C), but observations of shape {space.shape} have their"
                " channels first already: leave the wrapper out"
            )
        self.observation_space = Box(_channels_first(space.low), _channels_first(space.high), dtype=np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        """The image ``(C, H, W)``."""
        return _channels_first(np.asarray(observation))


def _channels_first(image: np.ndarray) -> np.ndarray:
    return image[None] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, -1, 0))


class ActionRepeat(gymnasium.Wrapper):
    """Each action is executed ``n`` times, or until the episode ends; rewards are summed, the last observation stays.

    A time limit inside (the one of ``gymnasium.make``, say) counts the steps of the environment, one outside counts
    actions.

    Parameters
    ----------
    env : the environment.
    n : how often an action is executed, at least 1.

    Raises
    ------
    ValueError
        For another ``n``.
    """

    def __init__(self, env: Any, n: int):
        check_whole("n", n, 1)
        super().__init__(to_gymnasium(env))
        self.n = n

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The last of the steps, with the sum of their rewards."""
        total = 0.0
        for _ in range(self.n):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += to_number(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info

"""FrameStack: the last few images of a rollout as one observation, stacked as the mini-batches stack them."""

from __future__ import annotations

import numpy as np


class FrameStack:
    """Keeps the last ``n_frames`` images ``(C, H, W)`` of an episode as one array ``(n_frames * C, H, W)``.

    The oldest frame comes first; before there are enough, the first frame of the episode is repeated. With
    ``n_frames=1`` observations of any kind pass unchanged.

    Raises
    ------
    ValueError
        With ``n_frames`` above 1, for observations that are not images.
    """

    def __init__(self, n_frames: int):
        if n_frames < 1:
            raise ValueError(f"n_frames must be at least 1, got {n_frames}")
        self.n_frames = n_frames
        self._frames: list[np.ndarray] = []

    def reset(self, observation: np.ndarray) -> np.ndarray:
        """The stack at the start of an episode."""
        if self.n_frames > 1 and observation.ndim != 3:
            raise ValueError(
                f"n_frames={self.n_frames} needs images (C, H, W), but observations have the shape {observation.shape}"
            )
        self._frames = [observation.copy()] * self.n_frames
        return self._stacked(observation)

    def push(self, observation: np.ndarray) -> np.ndarray:
        """The stack after one more step."""
        self._frames = [*self._frames[1:], observation.copy()]
        return self._stacked(observation)

    def _stacked(self, newest: np.ndarray) -> np.ndarray:
        return newest if self.n_frames == 1 else np.concatenate(self._frames)

    @property
    def newest(self) -> np.ndarray:
        """The last observation alone."""
        return self._frames[-1]

    def get_state(self) -> list[np.ndarray]:
        """The frames, oldest first."""
        return [frame.copy() for frame in self._frames]

    def set_state(self, state: list[np.ndarray]) -> np.ndarray:
        """The stack where ``get_state`` was called."""
        if len(state) != self.n_frames:
            raise ValueError(f"the state holds {len(state)} frames, n_frames={self.n_frames} needs as many")
        self._frames = [np.array(frame) for frame in state]
        return self._stacked(self._frames[-1])

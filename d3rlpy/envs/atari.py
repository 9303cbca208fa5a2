"""Atari games as they are learned: gymnasium's preprocessing, lives as episodes, clipped rewards, channels first.

Mnih et al. (2015), "Human-level control through deep reinforcement learning", Methods; Machado et al. (2018),
"Revisiting the Arcade Learning Environment".
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.wrappers import AtariPreprocessing, ClipReward

from .conversion import to_gymnasium
from .optional import require
from .wrappers import ChannelFirst


class Atari(gymnasium.Wrapper):
    """An Atari game with observations ``(1, 84, 84)`` uint8, for algorithms with ``n_frames=4``.

    gymnasium's ``AtariPreprocessing`` begins a game with 1 to 30 no-ops, repeats each action 4 times, takes the
    brighter of the last two frames at each pixel, and makes it grey and 84 x 84. For training, the loss of a life is
    a terminal, but the game is only reset when it is over, and rewards are clipped to [-1, 1]. For evaluation, an
    episode is a whole game with its own rewards.

    Parameters
    ----------
    env : id of a game (``"ALE/Pong-v5"``), or the environment that gymnasium made of it with ``frameskip=1``.
    is_eval : whether to play whole games with their own rewards.

    Raises
    ------
    ModuleNotFoundError
        Without ale-py and OpenCV, which the extra ``atari`` brings.
    ValueError
        For something that is no Atari game, and for an environment that skips frames itself.
    """

    def __init__(self, env: Any, is_eval: bool = False):
        require("cv2", "opencv-python-headless", "atari", "Atari")
        game: gymnasium.Env = AtariPreprocessing(_game(env), noop_max=30, frame_skip=4, screen_size=84)
        if not is_eval:
            game = ClipReward(LifeEpisodes(game), -1.0, 1.0)
        super().__init__(ChannelFirst(game))


class LifeEpisodes(gymnasium.Wrapper):
    """Losing a life ends the episode, as a terminal; ``reset`` then goes on with the same game.

    That reset executes nothing: the new episode begins with the observation that the last step gave. A reset at
    another time, or one with a seed or options, begins a new game. When no life is left, the game itself says that it
    is over.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self._lives = 0
        self._next_start: tuple[Any, dict[str, Any]] | None = None  # where the game goes on

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """First observation of the next life, or of a new game."""
        start, self._next_start = self._next_start, None
        if start is None or seed is not None or options:
            start = self.env.reset(seed=seed, options=options)
        self._lives = self._count()
        return start

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step that also terminates where a life is lost."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        lives = self._count()
        lost = 0 < lives < self._lives  # at 0 some games go on for a few frames, which are no episode
        self._lives = lives
        self._next_start = (observation, info) if lost and not (terminated or truncated) else None
        return observation, reward, terminated or lost, truncated, info

    def _count(self) -> int:
        emulator: Any = self.env.unwrapped
        return int(emulator.ale.lives())


def _game(env: Any) -> gymnasium.Env:
    """The environment of a game, which shows each frame."""
    if isinstance(env, str):
        require("ale_py", "ale-py", "atari", "Atari")  # importing it registers its games
        if "frameskip" not in gymnasium.spec(env).kwargs:
            raise ValueError(f"{env!r} is no Atari game: pass an id such as 'ALE/Pong-v5'")
        return gymnasium.make(env, frameskip=1)
    game = to_gymnasium(env)
    emulator = game.unwrapped
    if not hasattr(emulator, "ale"):
        raise ValueError(f"{game} is no Atari game of gymnasium: pass an id such as 'ALE/Pong-v5'")
    skipped = getattr(emulator, "_frameskip", None)  # gymnasium's preprocessing looks there as well
    if skipped != 1:
        name = game.spec.id if game.spec else "ALE/..."
        raise ValueError(
            f"{game} skips frames itself (frameskip={skipped}), and Atari does so too: make it with"
            f" gymnasium.make({name!r}, frameskip=1)"
        )
    return game

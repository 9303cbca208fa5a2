"""Rollouts: steps in one environment, or in a vector of them, whose rows go into a buffer.

Both kinds have the same face: ``reset``, ``observations`` to act on, ``step``. A row is the observation, the action as
it was executed, the reward that it caused, and how the episode went on.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..dataset.validation import FLOAT32_MAX
from ..envs import EnvAdapter, FrameStack


class Bounds:
    """The box of actions: what is executed lies in it, and random actions are uniform over it."""

    def __init__(self, env: EnvAdapter):
        self.discrete, self.size, self.space = env.discrete, env.action_size, env.env.action_space
        self.low = np.empty(0) if env.discrete else env.action_low
        self.high = np.empty(0) if env.discrete else env.action_high
        self.clip = env.clip

    def check_finite(self) -> None:
        """Raise ``ValueError`` if nothing is uniform over the box."""
        if not self.discrete and not np.isfinite([self.low, self.high]).all():
            raise ValueError(
                f"random_steps draws uniform actions, but action_space {self.space} has no bounds: use random_steps=0"
            )

    def draw(self, rng: np.random.Generator, n: int, n_ids: int) -> np.ndarray:
        """``n`` random actions."""
        if self.discrete:
            return rng.integers(min(n_ids, self.size), size=n)
        return rng.uniform(self.low, self.high, (n, self.size)).astype(np.float32)


class Rollout:
    """Steps in one environment.

    Attributes
    ----------
    observations : what to act on, frames stacked, ``(1, ...)``.
    steps : how many were made and stored.
    midway : whether the environment may stand elsewhere than ``observations`` say: a step was begun and not finished.
    """

    n_envs = 1

    def __init__(self, env: EnvAdapter, buffer: Any, n_frames: int, timelimit_aware: bool):
        self.env, self.buffer, self.timelimit_aware = env, buffer, timelimit_aware
        self.frames, self.bounds = FrameStack(n_frames), Bounds(env)
        self.steps, self.midway = 0, True

    def reset(self, seed: int | None) -> None:
        """Begin an episode; ``seed`` is left out where the environment takes none."""
        self._begin(self.env.reset(seed=seed if self.env.takes_seed else None)[0])

    def _begin(self, observation: np.ndarray) -> None:
        check_finite("observation", observation, self.steps, self.env.env)
        self.observation, self.total = observation, 0.0
        self.observations = self.frames.reset(observation)[None]
        self.midway = False

    def step(self, actions: np.ndarray, on_begin: Any) -> list[float]:
        """Make a step, store its row, begin a new episode if this one is over; returns of what is over.

        ``on_begin(0)`` is called when an episode begins.
        """
        action = self.bounds.clip(actions[0])
        self.midway = True
        observation, reward, terminated, truncated, _ = self.env.step(action)
        check_finite("observation", observation, self.steps + 1, self.env.env)
        check_reward(reward, self.steps + 1, self.env.env)
        terminal, timeout = ending(terminated, truncated, self.timelimit_aware)
        self.buffer.append(self.observation, action, reward, terminal, timeout, None if terminal else observation)
        self.steps += 1
        self.total += reward
        if not (terminal or timeout):
            self.observation = observation
            self.observations = self.frames.push(observation)[None]
            self.midway = False
            return []
        total = self.total
        on_begin(0)
        self._begin(self.env.reset()[0])
        return [total]

    def close(self) -> None:
        """Nothing is held back from the buffer."""

    def get_state(self) -> dict[str, Any]:
        """Where the rollout stands, apart from the environment and the buffer, in tensors and plain values."""
        frames = [torch.from_numpy(frame) for frame in self.frames.get_state()]
        return {"steps": self.steps, "frames": frames, "total": self.total, "midway": self.midway}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``get_state`` was called, in an environment that stands there too; if midway, ``reset`` it."""
        self.steps, self.total, self.midway = state["steps"], state["total"], state["midway"]
        if self.midway:
            return
        stacked = self.frames.set_state([torch.as_tensor(frame).numpy().copy() for frame in state["frames"]])
        self.observation, self.observations = self.frames.newest, stacked[None]


def ending(terminated: bool, truncated: bool, timelimit_aware: bool) -> tuple[bool, bool]:
    """Whether the episode ended in the problem, and whether a time limit cut it so that values go on."""
    terminal = terminated or (truncated and not timelimit_aware)
    return terminal, truncated and not terminal


def check_finite(name: str, array: np.ndarray, step: int, env: Any) -> None:
    """Raise ``ValueError`` for a NaN or an infinity, before it reaches buffer and networks."""
    if array.dtype != np.uint8 and not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(
            f"{type(env).__name__} returned an {name} with {array[tuple(where)]} at entry {where} in step {step}: "
            "networks can't learn from that, mend the environment or wrap it; the steps before are in the buffer"
        )


def check_reward(reward: float, step: int, env: Any) -> None:
    """Raise ``ValueError`` for a reward that is no number that float32 can hold."""
    if not -FLOAT32_MAX <= reward <= FLOAT32_MAX:
        raise ValueError(
            f"{type(env).__name__} returned the reward {reward} in step {step}: nothing can be learned from that, mend "
            "the environment or wrap it; the steps before are in the buffer"
        )


class Lane:
    """The open episode of one sub-environment."""

    def __init__(self, n_frames: int):
        self.frames, self.rows, self.total = FrameStack(n_frames), [], 0.0
        self.resetting = False  # whether the next step of the vector is only this one's reset

    rows: list[tuple[np.ndarray, Any, float, np.ndarray]]
    observation: np.ndarray

    def begin(self, observation: np.ndarray) -> np.ndarray:
        """The stacked observation of a new episode."""
        self.observation, self.total, self.rows, self.resetting = observation, 0.0, [], False
        return self.frames.reset(observation)

    def write(self, buffer: Any, terminal: bool) -> None:
        """Put the episode into the buffer; unless a terminal ended it, values go on beyond its last row."""
        while self.rows:  # what is written is gone, however this ends
            observation, action, reward, following = self.rows.pop(0)
            last = not self.rows
            ended = last and terminal
            buffer.append(observation, action, reward, ended, last and not terminal, None if ended else following)


class VectorRollout:
    """Steps in gymnasium's ``SyncVectorEnv`` or ``AsyncVectorEnv``, whatever their autoreset mode.

    Rows join the buffer episode by episode, so that n-step sums and stacked frames never mix sub-environments; an
    episode that is still open is written when training ends. The step in which a sub-environment is only reset
    (mode NEXT_STEP) is no row. A step moves all sub-environments.
    """

    def __init__(self, env: Any, buffer: Any, n_frames: int, timelimit_aware: bool):
        self.env, self.buffer, self.timelimit_aware = env, buffer, timelimit_aware
        self.single = single_env(env)
        self.n_envs, self.bounds = int(env.num_envs), Bounds(self.single)
        self.mode = autoreset_mode(env)
        self.lanes = [Lane(n_frames) for _ in range(self.n_envs)]
        self.steps = 0

    def reset(self, seed: int | None) -> None:
        """Begin an episode everywhere; sub-environment i is seeded with ``seed + i``."""
        observations, _ = self.env.reset(seed=seed)
        self._begin(range(self.n_envs), observations)

    def _begin(self, lanes: Any, observations: Any) -> None:
        for i in lanes:
            stacked = self.lanes[i].begin(self._observation(observations[i]))
            if not hasattr(self, "observations"):
                self.observations = np.empty((self.n_envs, *stacked.shape), stacked.dtype)
            self.observations[i] = stacked

    def _observation(self, observation: Any) -> np.ndarray:
        """A copy of the declared type, since vectors may use their memory again."""
        array = self.single._observation(np.array(observation))
        check_finite("observation", array, self.steps, self.env)
        return array

    def step(self, actions: np.ndarray, on_begin: Any) -> list[float]:
        """Make a step everywhere and keep its rows; returns of the episodes that are over."""
        actions = self.bounds.clip(actions)
        space = self.env.action_space
        given = np.array(actions, dtype=space.dtype).reshape(space.shape)  # environments may write into it
        observations, rewards, terminated, truncated, info = self.env.step(given)
        self.steps += 1
        returns, over = [], np.zeros(self.n_envs, np.bool_)
        for i, lane in enumerate(self.lanes):
            if lane.resetting:
                on_begin(i)
                self._begin([i], observations)
                continue
            reward, following = float(rewards[i]), observations[i]
            check_reward(reward, self.steps, self.env)
            over[i] = terminated[i] or truncated[i]
            if over[i] and self.mode == "SAME_STEP":
                following = info["final_obs" if "final_obs" in info else "final_observation"][i]
            following = self._observation(following)
            lane.rows.append((lane.observation, actions[i], reward, following))
            lane.total += reward
            if not over[i]:
                lane.observation = following
                self.observations[i] = lane.frames.push(following)
                continue
            lane.write(self.buffer, ending(bool(terminated[i]), bool(truncated[i]), self.timelimit_aware)[0])
            returns.append(lane.total)
            lane.resetting = True
        if over.any():
            self._reset_those(over, observations, on_begin)
        return returns

    def _reset_those(self, over: np.ndarray, observations: Any, on_begin: Any) -> None:
        """Begin new episodes where this step has shown their first observation, or must ask for it."""
        if self.mode == "NEXT_STEP":
            return
        if self.mode == "DISABLED":
            observations, _ = self.env.reset(options={"reset_mask": over.copy()})
        for i in np.flatnonzero(over):
            on_begin(int(i))
            self._begin([i], observations)

    def close(self) -> None:
        """Put what is open into the buffer, with its true successor."""
        for lane in self.lanes:
            lane.write(self.buffer, False)

    def get_state(self) -> dict[str, Any]:
        """Vectors of environments can't be resumed in the middle."""
        return {}


def is_vector(env: Any) -> bool:
    """Whether ``env`` is a vector of environments."""
    return hasattr(env, "num_envs") and hasattr(env, "single_action_space")


def single_env(env: Any) -> EnvAdapter:
    """The spaces of one sub-environment, behind the face of an environment that can't be stepped."""
    face = SimpleNamespace(
        observation_space=env.single_observation_space, action_space=env.single_action_space, reset=None, step=None
    )
    return EnvAdapter(face)


def autoreset_mode(env: Any) -> str:
    """``NEXT_STEP``, ``SAME_STEP`` or ``DISABLED``; gymnasium 1.0 knew only the first and doesn't say it."""
    mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode", getattr(env, "autoreset_mode", "NEXT_STEP"))
    name = str(getattr(mode, "name", mode)).upper().replace("-", "_").replace("NEXTSTEP", "NEXT_STEP")
    name = name.replace("SAMESTEP", "SAME_STEP")
    if name not in ("NEXT_STEP", "SAME_STEP", "DISABLED"):
        raise ValueError(f"autoreset_mode={mode!r} of {type(env).__name__} is unknown")
    return name

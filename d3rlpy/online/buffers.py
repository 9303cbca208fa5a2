"""``ReplayBuffer``: the last steps of an agent, ready for sampling while it goes on."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import Episode, MDPDataset, Rows, TransitionMiniBatch, gather
from ..dataset.building import finish
from ..dataset.hdf5 import dump, load_buffer
from ..dataset.ring import Ring, RingSampler, check_batch_size, check_enough
from ..dataset.rows import Piece, assemble
from ..dataset.samplers import bit_generator, set_generator
from ..dataset.validation import (
    as_array,
    check_whole,
    to_actions,
    to_flags,
    to_observations,
    to_scalars,
    warn_caller,
)
from ..randomness import new_seed
from .checks import kind_of_rows, pieces_of, to_finite, to_flag, to_reward

if TYPE_CHECKING:
    from ..preprocessing import RewardScaler


class ReplayBuffer:
    """The last ``maxlen`` steps, one row each; the next one takes the place of the oldest.

    A row is a transition, and can be sampled, as soon as what comes after it is known: with ``next_observation``, at a
    terminal, or when the next step is appended. So ``len(buffer)``, the number of transitions, may lag behind
    ``n_rows`` by the step just taken and by steps cut by a time limit without ``next_observation``; those serve only as
    the successor of the step before. Observations are stored once: a ``next_observation`` is kept only while the next
    step does not repeat it.

    Parameters
    ----------
    maxlen : how many steps to keep.
    env : environment whose spaces say what observations and actions look like.
    episodes, dataset : what to start with: a list of ``Episode``, or an ``MDPDataset``; copied.
    observation_shape, action_size, discrete_action : the same as ``env``, in numbers.
    seed : of ``sample``; by default drawn from what ``d3rlpy.seed`` has set.

    Raises
    ------
    ValueError : the shapes are not known, or ``env`` and data differ.

    Examples
    --------
    >>> buffer = ReplayBuffer(100, observation_shape=(1,), action_size=2, discrete_action=True)
    >>> buffer.append([0.0], 1, reward=0.5, terminal=False)
    >>> buffer.append([1.0], 0, reward=1.0, terminal=True)
    >>> len(buffer), buffer.sample(2).observations.shape
    (2, (2, 1))
    """

    def __init__(
        self,
        maxlen: int,
        env: Any = None,
        episodes: Sequence[Episode] | None = None,
        dataset: MDPDataset | None = None,
        *,
        observation_shape: Sequence[int] | None = None,
        action_size: int | None = None,
        discrete_action: bool | None = None,
        seed: int | np.random.SeedSequence | None = None,
    ):
        check_whole("maxlen", maxlen, 1, np.iinfo(np.int32).max - 1)
        pieces = pieces_of(episodes, dataset)
        shape, discrete, size = kind_of_rows(env, pieces, observation_shape, discrete_action, action_size)
        self._generator = np.random.Generator(bit_generator(new_seed() if seed is None else seed))
        try:
            self._ring = Ring(int(maxlen), shape, discrete, size)
        except MemoryError as error:
            raise MemoryError(
                f"maxlen={maxlen} steps with observations {shape} need too much memory: {error}"
            ) from error
        self._fill(pieces)

    @property
    def maxlen(self) -> int:
        """How many rows there is room for."""
        return len(self._ring)

    @property
    def rows(self) -> Ring:
        """The storage behind the buffer, which changes with every step."""
        return self._ring

    @property
    def n_rows(self) -> int:
        """How many rows are in use: the transitions, and the rows whose successor is not known."""
        return self._ring.n_held

    @property
    def is_open(self) -> bool:
        """Whether the episode of the last step goes on."""
        return self._ring.is_open

    def append(
        self,
        observation: Any,
        action: Any,
        reward: float,
        terminal: bool | float,
        timeout: bool | float = False,
        next_observation: Any = None,
    ) -> None:
        """Add one step: the state, the action taken in it, and what came of it.

        Parameters
        ----------
        observation : ``(D,)`` numbers or ``(C, H, W)`` uint8, one frame.
        action : an id, or ``(action_size,)`` numbers.
        reward : caused by ``action``.
        terminal : the task ended with this step; its value counts as zero.
        timeout : a limit cut the episode here, so that the value of what comes after still counts. A terminal wins.
        next_observation : what was seen after the step. Without it the last step of a timed-out episode is no
            transition. Where the next step starts from something else, the two are not linked.

        Raises
        ------
        ValueError, TypeError : a value cannot be used; the buffer is as before.
        """
        ring = self._ring
        observation = self._observation("observation", observation)
        if next_observation is not None:
            next_observation = self._observation("next_observation", next_observation)
        action, reward = self._action(action), to_reward(reward)
        terminal, timeout = to_flag("terminal", terminal), to_flag("timeout", timeout)
        ring.append(observation, action, reward, terminal, terminal or timeout, next_observation)

    def _observation(self, name: str, value: Any) -> np.ndarray:
        """``value`` as it is stored, checked."""
        column = self._ring.observations
        fits = type(value) is np.ndarray and value.dtype == column.dtype
        array = value if fits else as_array(name, value)
        if array.shape != column.shape[1:]:
            raise ValueError(
                f"{name} has shape {array.shape}, but the buffer holds observations of shape {column.shape[1:]}"
            )
        if column.ndim == 4:
            if array.dtype != np.uint8:
                raise ValueError(f"{name} has dtype {array.dtype}, but images must be uint8")
            return array
        return to_finite(name, array)

    def _action(self, value: Any) -> Any:
        """An id as int, or a vector as it is stored, checked."""
        size = self._ring.action_size
        if self._ring.discrete_action:
            try:
                action = operator.index(value)
            except TypeError as error:
                raise ValueError(f"action must be an id, a whole number below {size}, got {value!r}") from error
            if not 0 <= action < size:
                raise ValueError(f"action must be an id from 0 to {size - 1}, got {action}")
            return action
        array = as_array("action", value)
        if array.shape != (size,):
            raise ValueError(f"action must be a vector of shape ({size},), got {value!r} of shape {array.shape}")
        return to_finite("action", array)

    def clip_episode(self) -> None:
        """End the open episode, if there is one, as if a time limit had cut it after the last step."""
        self._ring.end_episode()

    def extend(self, data: MDPDataset | Sequence[Episode]) -> None:
        """Append the rows of a data set or of a list of episodes, as they are there."""
        pieces = pieces_of(data, None)
        kind_of_rows(None, pieces, self.get_observation_shape(), self.is_action_discrete(), self.get_action_size())
        if self.is_open:
            raise ValueError("the buffer's last episode is open: end it with clip_episode() before you extend")
        self._fill(pieces)

    def append_episode(self, episode: Episode) -> None:
        """The same as ``extend([episode])``."""
        self.extend([episode])

    def _fill(self, pieces: list[Piece]) -> None:
        given = sum(stop - start for _, start, stop in pieces)
        if given > self.maxlen:
            warn_caller(f"{given} rows were given, the last {self.maxlen} are kept: maxlen={self.maxlen}")
        for rows, start, stop in pieces:
            self._ring.extend(rows, start, stop)

    def sample(self, batch_size: int, n_frames: int = 1, n_steps: int = 1, gamma: float = 0.99) -> TransitionMiniBatch:
        """Transitions drawn with replacement, in fresh arrays; ``make_sampler`` is faster where many are needed."""
        check_batch_size(self._ring, batch_size)
        check_enough(self._ring, batch_size)
        picks = self._ring.pick(self._generator.random(batch_size))
        return gather(self._ring, picks, n_frames, n_steps, gamma)

    def make_sampler(
        self,
        batch_size: int,
        n_frames: int = 1,
        n_steps: int = 1,
        gamma: float = 0.99,
        *,
        seed: int | np.random.SeedSequence | None = None,
        reward_scaler: RewardScaler | None = None,
    ) -> RingSampler:
        """A sampler that follows the buffer as it grows, with a state of its own and arrays that it uses again.

        ``reward_scaler``, already fitted, acts on each reward before n-step sums; change it and make a new sampler.
        """
        return RingSampler(
            self._ring,
            batch_size,
            n_frames,
            n_steps,
            gamma,
            seed=new_seed() if seed is None else seed,
            scale_rewards=None if reward_scaler is None else reward_scaler.transform_numpy,
        )

    @property
    def episodes(self) -> list[Episode]:
        """Every episode that has a transition, the open one included, oldest first; a copy."""
        return self.to_mdp_dataset().episodes if len(self) else []

    def to_mdp_dataset(self) -> MDPDataset:
        """Every row, oldest first, as a data set; a copy.

        Its transitions are those of the buffer. An open episode counts as cut by a time limit behind its last step;
        ``report`` says how many rows it has, and how many rows are no transitions. The first episode lacks the steps
        that were overwritten.
        """
        if len(self) == 0:
            raise ValueError("the buffer holds no transition: append steps before to_mdp_dataset()")
        rows = self._ring.in_order()
        stops = np.flatnonzero(rows.ends())
        unfinished = 0 if not self.is_open else int(stops[-1] - (stops[-2] if len(stops) > 1 else -1))
        cut_links = int(np.count_nonzero(~rows.ends()[rows.successor_rows[1:]]))
        return MDPDataset._of(*finish(rows, dropped={}, cut_links=cut_links, unfinished=unfinished), rows.action_size)

    def dump(self, fname: str | os.PathLike[str]) -> None:
        """Write everything to an HDF5 file, from which ``load`` goes on as if nothing had happened.

        An older file of that name is replaced only when all is written. ``MDPDataset.load`` reads it too.
        """
        attributes = {
            "maxlen": self.maxlen,
            "is_open": self.is_open,
            "generator": json.dumps(self._generator.bit_generator.state),
        }
        dump(self._ring.in_order(), fname, self.get_action_size(), None, attributes)

    @classmethod
    def load(cls, fname: str | os.PathLike[str]) -> ReplayBuffer:
        """A buffer from a file of ``dump``: it samples the same, and an open episode goes on.

        Raises
        ------
        ValueError : the file is damaged, or not from a replay buffer.
        """
        arrays, attributes = load_buffer(fname)
        try:
            n_rows = len(arrays["observations"])
            maxlen = int(attributes["maxlen"])
            check_whole("maxlen", maxlen, max(1, n_rows))
            buffer = cls(
                maxlen,
                observation_shape=arrays["observations"].shape[1:],
                action_size=arrays["action_size"],
                discrete_action=arrays["discrete_action"],
                seed=0,
            )
            set_generator(buffer._generator, json.loads(attributes["generator"]))
            if n_rows:
                buffer._ring.extend(stored_rows(arrays), 0, n_rows)
            if attributes["is_open"]:
                buffer._ring.reopen_episode()
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{os.fspath(fname)}: {error}") from error
        return buffer

    def get_observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation: (D,) or (C, H, W)."""
        return self._ring.observation_shape

    def get_action_size(self) -> int:
        """Length of a continuous action, or the number of discrete ones."""
        return self._ring.action_size

    def is_action_discrete(self) -> bool:
        """Whether actions are ids."""
        return self._ring.discrete_action

    def size(self) -> int:
        """Number of transitions."""
        return self._ring.n_transitions

    def __len__(self) -> int:
        return self._ring.n_transitions

    def __repr__(self) -> str:
        kind = "discrete" if self.is_action_discrete() else "continuous"
        return (
            f"ReplayBuffer({self.n_rows} of {self.maxlen} rows, {len(self)} transitions, observations "
            f"{self.get_observation_shape()}, {kind} actions of size {self.get_action_size()})"
        )


def stored_rows(arrays: dict[str, Any]) -> Rows:
    """Rows from the arrays of a file, checked as those of a user."""
    observations = to_observations("observations", arrays["observations"])
    n_rows = len(observations)
    actions, discrete, size = to_actions(arrays["actions"], n_rows, arrays["discrete_action"], arrays["action_size"])
    terminals = to_flags("terminals", arrays["terminals"], n_rows)
    successor_rows, successors = arrays["successors"]
    return assemble(
        observations,
        actions,
        to_scalars("rewards", arrays["rewards"], n_rows),
        terminals,
        terminals | to_flags("timeouts", arrays["timeouts"], n_rows),
        columns={},
        discrete_action=discrete,
        action_size=size,
        successor_rows=successor_rows,
        successors=successors,
    )

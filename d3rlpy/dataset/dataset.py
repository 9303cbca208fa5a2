"""``MDPDataset``: logged experience as a list of episodes, ready for scikit-learn and for training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, overload

import numpy as np

from . import hdf5
from .building import Report, build_delayed_rows, build_rows
from .episode import Episode
from .rows import Rows, check_compatible, concatenate
from .statistics import compute_stats
from .validation import check_limit


class MDPDataset:
    """Logged experience, cut into episodes.

    Row t holds a state, the action taken in it, the reward *caused by* that action, and whether the step
    ended the episode: ``terminals`` if the task ended, ``timeouts`` if a limit cut it, so that the value of
    the next state still counts. Contiguous arrays of the right type (float32, uint8 images, bool flags, int32
    or int64 ids) are used in place, so don't change them afterwards; everything else is converted to a copy.
    Behaves like a list of episodes.

    Parameters
    ----------
    observations : ``(N, D)`` vectors, or ``(N, C, H, W)`` uint8 images.
    actions : ``(N, A)`` floats (continuous) or ``(N,)`` integer ids (discrete).
    rewards : ``(N,)``.
    terminals : ``(N,)`` of 0 and 1.
    timeouts : ``(N,)`` of 0 and 1; a terminal on the same row wins.
    episode_terminals : ``(N,)`` of 0 and 1: any end of an episode, in place of or beside ``timeouts``.
    next_observations : like ``observations``; where it is not the next row, the link to the next row is cut.
    discrete_action : overrides what the type of ``actions`` says.
    action_size : how many discrete actions there are, if not all of them occur.
    columns : further arrays with N rows by name; ``discount``, ``action_mask``, ``behavior_log_prob`` have a
        meaning.

    Raises
    ------
    ValueError : an array that cannot be used: the message names it, the first bad row and what to do.

    Examples
    --------
    >>> dataset = MDPDataset([[0.0], [1.0], [5.0]], [0, 1, 1], [1.0, 2.0, 3.0], terminals=[0, 1, 1])
    >>> len(dataset), dataset[0].compute_return(), dataset[1].size()
    (2, 3.0, 1)
    """

    def __init__(
        self,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminals: Any,
        *,
        timeouts: Any = None,
        episode_terminals: Any = None,
        next_observations: Any = None,
        discrete_action: bool | None = None,
        action_size: int | None = None,
        columns: Mapping[str, Any] | None = None,
    ):
        rows, report = build_rows(
            observations,
            actions,
            rewards,
            terminals,
            timeouts=timeouts,
            episode_terminals=episode_terminals,
            next_observations=next_observations,
            discrete_action=discrete_action,
            action_size=action_size,
            columns=columns,
        )
        self._take(rows, report, action_size)

    def _take(self, rows: Rows, report: Report, given_action_size: int | None) -> None:
        self._rows, self._report, self._given_action_size = rows, report, given_action_size
        self._episodes: list[Episode] = []

    @classmethod
    def _of(cls, rows: Rows, report: Report, given_action_size: int | None) -> MDPDataset:
        dataset = cls.__new__(cls)
        dataset._take(rows, report, given_action_size)
        return dataset

    @classmethod
    def from_delayed(
        cls,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminals: Any,
        *,
        timeouts: Any = None,
        episode_terminals: Any = None,
        discrete_action: bool | None = None,
        action_size: int | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> MDPDataset:
        """A data set from the layout of the documents of 2020, where rewards and flags come one row later.

        There ``rewards[t]`` and ``terminals[t]`` belong to the *arrival* in ``observations[t]``; the first
        reward of an episode is a dummy, and so is the action of its last row. Parameters are those of the
        constructor.
        """
        rows, report = build_delayed_rows(
            observations,
            actions,
            rewards,
            terminals,
            timeouts=timeouts,
            episode_terminals=episode_terminals,
            discrete_action=discrete_action,
            action_size=action_size,
            columns=columns,
        )
        return cls._of(rows, report, action_size)

    @property
    def observations(self) -> np.ndarray:
        """``(N, D)`` float32 or ``(N, C, H, W)`` uint8."""
        return self._rows.observations

    @property
    def actions(self) -> np.ndarray:
        """``(N, A)`` float32 or ``(N,)`` int32 or int64."""
        return self._rows.actions

    @property
    def rewards(self) -> np.ndarray:
        """``(N,)`` float32; ``rewards[t]`` is caused by ``actions[t]``."""
        return self._rows.rewards

    @property
    def terminals(self) -> np.ndarray:
        """Where the task ended, ``(N,)`` bool."""
        return self._rows.terminals

    @property
    def episode_terminals(self) -> np.ndarray:
        """The last row of every episode, ``(N,)`` bool."""
        return self._rows.ends()

    @property
    def timeouts(self) -> np.ndarray:
        """Where an episode was cut although the task had not ended, ``(N,)`` bool."""
        return self._rows.ends() & ~self._rows.terminals

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The named columns."""
        return dict(self._rows.columns)

    @property
    def rows(self) -> Rows:
        """The storage that episodes, transitions and samplers share."""
        return self._rows

    @property
    def report(self) -> Report:
        """What became of the rows: how many are transitions, how many were dropped and why."""
        return self._report

    @property
    def discrete_action(self) -> bool:
        """Whether actions are ids."""
        return self._rows.discrete_action

    @property
    def episodes(self) -> list[Episode]:
        """Every episode that has a transition, in order."""
        if not self._episodes:  # every data set has one
            self.build_episodes()
        return self._episodes

    def build_episodes(self) -> None:
        """Make the episode objects; called by itself when they are first needed."""
        views = (Episode.view(self._rows, start, stop) for start, stop in self._rows.bounds().tolist())
        self._episodes = [episode for episode in views if len(episode)]

    def append(
        self,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminals: Any,
        *,
        timeouts: Any = None,
        episode_terminals: Any = None,
        next_observations: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Add rows as new episodes; arguments as in the constructor.

        Copies all rows, so add many at a time. ``action_size`` grows with new ids, unless it was given.
        """
        rows, report = build_rows(
            observations,
            actions,
            rewards,
            terminals,
            timeouts=timeouts,
            episode_terminals=episode_terminals,
            next_observations=next_observations,
            discrete_action=self.discrete_action,
            action_size=self._given_action_size,
            columns=columns,
            least_action_size=self.get_action_size(),
        )
        self._join(rows, report)

    def extend(self, dataset: MDPDataset) -> None:
        """Add the episodes of another data set of the same kind; copies all rows."""
        if not isinstance(dataset, MDPDataset):
            raise TypeError(f"extend takes an MDPDataset, got {type(dataset).__name__}; append takes arrays")
        self._join(dataset.rows, dataset.report)

    def _join(self, rows: Rows, report: Report) -> None:
        check_compatible(self._rows, rows)
        given = self._given_action_size
        if given is not None and rows.action_size > given:
            raise ValueError(f"action_size={given} was given, but the new data have {rows.action_size} actions")
        pieces = [(part, 0, len(part)) for part in (self._rows, rows)]
        self._take(concatenate(pieces), self._report + report, given)

    def clip_reward(self, low: float | None = None, high: float | None = None) -> None:
        """Limit rewards to [low, high]; None leaves that side open. The arrays given are not changed."""
        check_limit("low", low)
        check_limit("high", high)
        if low is not None and high is not None and low > high:
            raise ValueError(f"low must not exceed high, got low={low} and high={high}")
        if low is None and high is None:
            return
        rewards = np.clip(self._rows.rewards, low, high).astype(np.float32, copy=False)
        self._take(self._rows.with_rewards(rewards), self._report, self._given_action_size)

    def compute_stats(self) -> dict[str, Any]:
        """``mean``, ``std``, ``min``, ``max`` of ``return``, ``reward``, ``observation``, ``action``.

        Every row counts. Those of observations and actions have the shape of one row. For discrete actions
        ``stats["action"]`` holds ``frequencies`` instead, the count of each id ``(action_size,)``.
        """
        return compute_stats(self._rows)

    def dump(self, fname: str | os.PathLike[str], compression: str | None = None) -> None:
        """Write an HDF5 file; an older file of that name is replaced only when all is written.

        ``compression`` is None (largest and fastest), ``"lzf"`` or ``"gzip"`` (smallest).
        """
        hdf5.dump(self._rows, fname, self._given_action_size, compression)

    @classmethod
    def load(cls, fname: str | os.PathLike[str], alignment: str | None = None) -> MDPDataset:
        """Read a file of ``dump``, a D4RL-like one, or one of the original d3rlpy.

        ``alignment`` is needed only where the file doesn't say: ``"gymnasium"`` if ``rewards[t]`` is caused
        by ``actions[t]``, ``"delayed"`` if it came with ``observations[t]``.
        """
        return cls._of(*hdf5.load(fname, alignment))

    def get_action_size(self) -> int:
        """Length of a continuous action, or the number of discrete ones (largest id + 1 unless given)."""
        return self._rows.action_size

    def get_observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation: (D,) or (C, H, W)."""
        return self._rows.observation_shape

    def is_action_discrete(self) -> bool:
        """The same as ``discrete_action``."""
        return self._rows.discrete_action

    def size(self) -> int:
        """Number of episodes."""
        return len(self.episodes)

    def __len__(self) -> int:
        return len(self.episodes)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        return self.episodes[index]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.episodes)

    def __repr__(self) -> str:
        kind = "discrete" if self.discrete_action else "continuous"
        return (
            f"MDPDataset({self._report.episodes} episodes, {self._rows.n_transitions} transitions, "
            f"observations {self.get_observation_shape()}, {kind} actions of size {self.get_action_size()})"
        )

"""``Episode``: the rows from a start to a terminal, a time limit or the end of the data, as a view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from .building import build_rows
from .rows import Rows
from .transition import Transition
from .validation import as_numbers


class Episode:
    """The rows of one episode, and a list of its transitions.

    ``observations``, ``actions``, ``rewards`` and ``compute_return`` keep every row; ``size``, ``len``,
    indexing and iteration count transitions, of which there is one less when a time limit ended the episode
    and what came after its last row is unknown.

    Parameters
    ----------
    observation_shape : shape of one observation: (D,) or (C, H, W).
    action_size : length of a continuous action, or how many discrete ones there are.
    observations : ``(N, D)``, or ``(N, C, H, W)`` uint8.
    actions : ``(N, A)`` floats, or ``(N,)`` integer ids.
    rewards : ``(N,)``; ``rewards[t]`` is caused by ``actions[t]``.
    terminal : whether the task ended with the last row, rather than a time limit.

    Examples
    --------
    >>> episode = Episode((1,), 2, observations=[[0.0], [1.0]], actions=[0, 1], rewards=[1.0, 2.0])
    >>> len(episode), episode.compute_return(), episode[1].terminal
    (2, 3.0, 1.0)
    """

    __slots__ = ("_rows", "_start", "_stop")

    def __init__(
        self,
        observation_shape: Sequence[int],
        action_size: int,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminal: bool = True,
    ):
        observations, actions = as_numbers("observations", observations), as_numbers("actions", actions)
        shape = observations.shape[1:]
        if shape != tuple(observation_shape):
            raise ValueError(
                f"observations has rows of shape {shape}, but observation_shape={tuple(observation_shape)}"
            )
        flags = np.zeros(len(observations), np.bool_)
        flags[-1:] = True
        never = np.zeros(len(observations), np.bool_)
        self._rows, _ = build_rows(
            observations,
            actions,
            rewards,
            flags if terminal else never,
            episode_terminals=flags,
            discrete_action=actions.dtype.kind in "iub",
            action_size=action_size,
        )
        self._start, self._stop = 0, len(self._rows)

    @classmethod
    def view(cls, rows: Rows, start: int, stop: int) -> Episode:
        """The episode in the rows from ``start`` to before ``stop``."""
        episode = cls.__new__(cls)
        episode._rows, episode._start, episode._stop = rows, start, stop
        return episode

    @property
    def observations(self) -> np.ndarray:
        """Every row's observation, ``(N, ...)``."""
        return self._rows.observations[self._start : self._stop]

    @property
    def actions(self) -> np.ndarray:
        """Every row's action, ``(N, A)`` or ``(N,)``."""
        return self._rows.actions[self._start : self._stop]

    @property
    def rewards(self) -> np.ndarray:
        """Every row's reward, ``(N,)``."""
        return self._rows.rewards[self._start : self._stop]

    @property
    def terminals(self) -> np.ndarray:
        """Every row's terminal flag, ``(N,)`` bool."""
        return self._rows.terminals[self._start : self._stop]

    @property
    def terminal(self) -> bool:
        """Whether the task ended with the last row, rather than a time limit."""
        return bool(self._rows.terminals[self._stop - 1])

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Every row's values of the named columns."""
        return {name: column[self._start : self._stop] for name, column in self._rows.columns.items()}

    @property
    def transitions(self) -> list[Transition]:
        """All transitions, in order."""
        return list(self)

    def build_transitions(self) -> list[Transition]:
        """The same as ``transitions``: they are made on access, so there is nothing to prepare."""
        return self.transitions

    def compute_return(self) -> float:
        """Sum of the rewards of all rows, not discounted."""
        return float(self.rewards.sum(dtype=np.float64))

    def get_observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self._rows.observation_shape

    def get_action_size(self) -> int:
        """Length of a continuous action, or the number of discrete ones."""
        return self._rows.action_size

    def is_action_discrete(self) -> bool:
        """Whether actions are ids."""
        return self._rows.discrete_action

    def size(self) -> int:
        """Number of transitions."""
        return len(self)

    def __len__(self) -> int:
        return self._stop - self._start - (not self._rows.is_transition(self._stop - 1))

    @overload
    def __getitem__(self, index: int) -> Transition: ...
    @overload
    def __getitem__(self, index: slice) -> list[Transition]: ...
    def __getitem__(self, index: int | slice) -> Transition | list[Transition]:
        picked = range(self._start, self._start + len(self))[index]
        if isinstance(picked, range):
            return [Transition.view(self._rows, row) for row in picked]
        return Transition.view(self._rows, picked)

    def __iter__(self) -> Iterator[Transition]:
        return (Transition.view(self._rows, row) for row in range(self._start, self._start + len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Episode):
            return NotImplemented
        return self._rows is other._rows and self._start == other._start and self._stop == other._stop

    def __hash__(self) -> int:
        return hash((id(self._rows), self._start, self._stop))

    def __repr__(self) -> str:
        return f"Episode({len(self)} transitions, return {self.compute_return():g}, terminal {self.terminal})"

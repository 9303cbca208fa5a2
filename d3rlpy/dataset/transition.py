"""``Transition``: one step, (s, a, r, s'), as a view of a row; cheap to make, nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .rows import Rows, assemble
from .validation import as_array, to_actions, to_observations, to_scalars, warn_caller

NEXT_REWARD = (
    "{name} meant the reward caused by this action in d3rlpy's documents of 2020; here that is {plain}, and "
    "{name} returns it. Write {plain}"
)


class Transition:
    """The step from one state to the next, with links to its neighbours in the same episode.

    The constructor makes a transition from single values; the transitions of data sets are views of their
    rows.

    Parameters
    ----------
    observation_shape : shape of ``observation``: (D,) or (C, H, W).
    action_size : length of a continuous action, or how many discrete ones there are.
    observation, next_observation : s and s', float vectors or uint8 images.
    action : an id (a whole number, not an array) or a vector.
    reward : caused by ``action``.
    terminal : whether the task ended with this step.
    prev_transition, next_transition : neighbours; a hand-made neighbour is linked back to this one.
    """

    __slots__ = ("_next", "_previous", "_row", "_rows")

    def __init__(
        self,
        observation_shape: Sequence[int],
        action_size: int,
        observation: Any,
        action: Any,
        reward: float,
        next_observation: Any,
        terminal: bool,
        prev_transition: Transition | None = None,
        next_transition: Transition | None = None,
    ):
        self._rows = single_row(observation_shape, action_size, observation, action, reward, next_observation, terminal)
        self._row = 0
        self._previous: Transition | None = None
        self._next: Transition | None = None
        if prev_transition is not None:
            self.prev_transition = prev_transition
        if next_transition is not None:
            self.next_transition = next_transition

    @classmethod
    def view(cls, rows: Rows, row: int) -> Transition:
        """The transition that starts in ``row``; the caller knows that it is one."""
        transition = cls.__new__(cls)
        transition._rows, transition._row = rows, row
        transition._previous = transition._next = None
        return transition

    @property
    def observation(self) -> np.ndarray:
        """s: ``(D,)`` float32 or ``(C, H, W)`` uint8, one frame."""
        return self._rows.observations[self._row]

    @property
    def action(self) -> np.ndarray | int:
        """a: ``(A,)`` float32, or an int for a discrete one."""
        action = self._rows.actions[self._row]
        return int(action) if self._rows.discrete_action else action

    @property
    def reward(self) -> float:
        """r, caused by ``action``."""
        return float(self._rows.rewards[self._row])

    @property
    def next_observation(self) -> np.ndarray:
        """s'; zeros if it is unknown, which happens after a terminal only."""
        return self._rows.next_observation(self._row)

    @property
    def terminal(self) -> float:
        """1.0 if the task ended with this step, otherwise 0.0 (also at a time limit)."""
        return float(self._rows.terminals[self._row])

    @property
    def next_action(self) -> np.ndarray | int | None:
        """The action taken in s', None at the end of an episode and where it is not recorded."""
        if self._next is not None:
            return self._next.action
        row = self._rows.next_row(self._row)
        if row is None:
            return None
        action = self._rows.actions[row]
        return int(action) if self._rows.discrete_action else action

    @property
    def next_reward(self) -> float:
        """``reward``, under the name it had in the delayed layout; warns."""
        warn_caller(NEXT_REWARD.format(name="next_reward", plain="reward"), FutureWarning)
        return self.reward

    @property
    def columns(self) -> dict[str, Any]:
        """Values of the named columns in this row."""
        return {name: column[self._row] for name, column in self._rows.columns.items()}

    @property
    def prev_transition(self) -> Transition | None:
        """The step before, None at the start of an episode."""
        if self._previous is not None:
            return self._previous
        row = self._rows.previous_row(self._row)
        return None if row is None else Transition.view(self._rows, row)

    @prev_transition.setter
    def prev_transition(self, other: Transition | None) -> None:
        link(other, self)

    @property
    def next_transition(self) -> Transition | None:
        """The step after, None at the end of an episode."""
        if self._next is not None:
            return self._next
        row = self._rows.next_row(self._row) if self._rows.has_next(self._row) else None
        return None if row is None else Transition.view(self._rows, row)

    @next_transition.setter
    def next_transition(self, other: Transition | None) -> None:
        link(self, other)

    @property
    def is_discrete(self) -> bool:
        """Whether the action is an id."""
        return self._rows.discrete_action

    def get_observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self._rows.observation_shape

    def get_action_size(self) -> int:
        """Length of a continuous action, or the number of discrete ones."""
        return self._rows.action_size

    def __copy__(self) -> Transition:
        """The same step without hand-made links, which go both ways and so have room for one only."""
        return Transition.view(self._rows, self._row)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Transition):
            return NotImplemented
        return self._rows is other._rows and self._row == other._row

    def __hash__(self) -> int:
        return hash((id(self._rows), self._row))

    def __repr__(self) -> str:
        kind = "discrete" if self.is_discrete else "continuous"
        return (
            f"Transition(observation {self.get_observation_shape()}, {kind} action, reward {self.reward:g}, "
            f"terminal {self.terminal:g})"
        )


def link(before: Transition | None, after: Transition | None) -> None:
    """Make two hand-made transitions neighbours, None for none; their old neighbours there lose them."""
    for neighbour in (before, after):
        if neighbour is None:
            continue
        if not isinstance(neighbour, Transition):
            raise TypeError(f"a neighbour must be a Transition or None, got {type(neighbour).__name__}")
        if len(neighbour._rows) != 1:
            raise ValueError("only transitions made by hand can be linked; those of a data set know their neighbours")
    if before is not None and after is not None and leads_to(after, before):
        raise ValueError("the transitions would form a circle: cut one of its links first, by setting it to None")
    if before is not None:
        if before._next is not None:
            before._next._previous = None
        before._next = after
    if after is not None:
        if after._previous is not None:
            after._previous._next = None
        after._previous = before


def leads_to(first: Transition, last: Transition) -> bool:
    """Whether ``last`` follows on ``first``; searched from both ends, so that growing a chain stays cheap."""
    ahead: Transition | None = first
    behind: Transition | None = last
    while ahead is not None and behind is not None:
        if ahead is last or behind is first:
            return True
        ahead, behind = ahead._next, behind._previous
    return False


def single_row(
    observation_shape: Sequence[int],
    action_size: int,
    observation: Any,
    action: Any,
    reward: float,
    next_observation: Any,
    terminal: bool,
) -> Rows:
    """A storage of one transition."""
    pair = []
    for name, value in (("observation", observation), ("next_observation", next_observation)):
        array = as_array(name, value)
        if array.shape != tuple(observation_shape):
            raise ValueError(f"{name} has shape {array.shape}, but observation_shape={tuple(observation_shape)}")
        pair.append(to_observations(name, array[None]))
    given = as_array("action", action)
    discrete = given.ndim == 0
    if discrete and given.dtype.kind == "f" and given != np.rint(given):
        raise ValueError(f"action is the single number {given}: ids are whole numbers, a continuous action is an array")
    actions, _, size = to_actions(given[None], 1, discrete, action_size)
    flag = np.array([bool(terminal)])
    return assemble(
        pair[0],
        actions,
        to_scalars("reward", [reward], 1),
        flag,
        np.array([True]),
        columns={},
        discrete_action=discrete,
        action_size=size,
        successor_rows=np.zeros(1, np.int64),
        successors=pair[1],
    )

"""``Rows``, the one storage behind datasets, episodes, transitions and batches: columns and links.

A row is one time step. Contiguous arrays of the right type are used in place; what is added is two bytes a
row (``links``: how the row goes on, see ``_kernels.pyx``) and the few successors that are not simply the next
row. A *segment* is a run of linked transitions: an episode, or a piece of one where ``next_observations`` cut
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ._kernels import ENDS_EPISODE, KNOWN_APART, LINK_KIND, MOST_STEPS, NO_TRANSITION, NOT_KNOWN, link_rows


@dataclass(eq=False, frozen=True)
class Rows:
    """Contiguous columns of N rows, all already checked.

    ``observations`` (N, D) float32 or (N, C, H, W) uint8; ``actions`` (N, A) float32 or (N,) int32 or int64;
    ``rewards`` (N,) float32; ``terminals`` (N,) bool; ``columns`` (N, ...) each. ``successors`` (K + 1, ...)
    are the observations after the rows ``successor_rows`` (K + 1,) int64; entry 0 is all zeros and belongs to
    row -1.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    columns: Mapping[str, np.ndarray]
    discrete_action: bool
    action_size: int
    links: np.ndarray
    successor_rows: np.ndarray
    successors: np.ndarray
    n_transitions: int = field(init=False)

    def __post_init__(self) -> None:
        self.links.flags.writeable = False  # a wrong link would send the kernels out of bounds
        self.successor_rows.flags.writeable = False
        n_others = int(np.count_nonzero((self.links & LINK_KIND) == NO_TRANSITION))
        object.__setattr__(self, "n_transitions", len(self.links) - n_others)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self.observations.shape[1:]

    @property
    def is_image(self) -> bool:
        """Whether observations are uint8 images ``(C, H, W)``."""
        return self.observations.ndim == 4

    def transition_indices(self) -> np.ndarray:
        """Rows that are transitions, ascending, ``(n_transitions,)`` int64."""
        if self.n_transitions == len(self):
            return np.arange(len(self), dtype=np.int64)
        return np.flatnonzero((self.links & LINK_KIND) != NO_TRANSITION).astype(np.int64, copy=False)

    def ends(self) -> np.ndarray:
        """Flags of the last row of each episode, ``(N,)`` bool."""
        return (self.links & ENDS_EPISODE) != 0

    def bounds(self) -> np.ndarray:
        """First row and one past the last row of each episode, ``(episodes, 2)`` int64."""
        stops = np.flatnonzero(self.ends()) + 1
        return np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1)

    def is_transition(self, row: int) -> bool:
        """Whether ``row`` is a transition rather than only somebody's successor."""
        return (int(self.links[row]) & LINK_KIND) != NO_TRANSITION

    @property
    def slots(self) -> np.ndarray | None:
        """``(N,)`` int32, where in ``successors`` each row's is, if not told by ``successor_rows``."""
        return None

    def steps_linked(self) -> np.ndarray:
        """How many linked transitions follow each row, ``(N,)`` int64, as far as links look."""
        return (self.links & MOST_STEPS).astype(np.int64)

    def successor_places(self) -> np.ndarray:
        """Where in ``successors`` the observation after each row is, ``(N,)`` int64; -1 where it is the next row."""
        kind = self.links & LINK_KIND
        places = np.where(kind == NOT_KNOWN, 0, -1)
        apart = np.flatnonzero(kind == KNOWN_APART)
        places[apart] = np.searchsorted(self.successor_rows, apart) if self.slots is None else self.slots[apart]
        return places

    def look_ahead(self, n_steps: int) -> None:
        """Be ready for sums of ``n_steps`` rewards."""

    def has_next(self, row: int) -> bool:
        """Whether the transition ``row`` is linked to a transition in the next row."""
        return (int(self.links[row]) & MOST_STEPS) > 0

    def continues(self, indices: np.ndarray) -> np.ndarray:
        """``has_next`` of many transitions, bool."""
        return (self.links[indices] & MOST_STEPS) > 0

    def following(self, indices: np.ndarray) -> np.ndarray:
        """Rows of these transitions and of all that are linked behind them, ascending, each once, int64."""
        last = indices.copy()
        while (steps := self.links[last] & MOST_STEPS).any():  # links look no further than ``MOST_STEPS``
            last += steps
        n = len(self) + 1
        begun, ended = np.bincount(indices, minlength=n), np.bincount(last + 1, minlength=n)
        return np.flatnonzero(np.cumsum(begun - ended)[:-1] > 0)

    def places(self, rows: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Where the rows ``indices`` stand in ``rows``, a result of ``following``, int64."""
        return rows.searchsorted(indices)

    def next_row(self, row: int) -> int | None:
        """The row that holds the state after ``row``, None if it is stored apart or unknown."""
        return (row + 1) % len(self) if (int(self.links[row]) & LINK_KIND) == 0 else None

    def previous_row(self, row: int) -> int | None:
        """The row of the transition that is linked to the transition ``row``, None if there is none."""
        before = (row - 1) % len(self)
        return before if self.has_next(before) else None

    def next_observation(self, row: int) -> np.ndarray:
        """The observation after the transition ``row``; zeros if unknown, which only a terminal's can be."""
        following = self.next_row(row)
        if following is not None:
            return self.observations[following]
        k = int(np.searchsorted(self.successor_rows, row))
        found = k < len(self.successor_rows) and self.successor_rows[k] == row
        return self.successors[k if found else 0]

    def with_rewards(self, rewards: np.ndarray) -> Rows:
        """The same rows with other rewards; nothing else is copied."""
        return replace(self, rewards=rewards)


def check_indices(indices: Any, rows: Rows) -> np.ndarray:
    """``indices`` as contiguous int64 ``(T,)``, at least one, each a transition of ``rows``."""
    given = np.asarray(indices)
    if given.ndim != 1 or len(given) == 0:
        raise ValueError(f"indices must name at least one row, got shape {given.shape}")
    if given.dtype.kind not in "iu":
        cure = ": for a mask pass np.flatnonzero(mask)" if given.dtype == np.bool_ else ""
        raise TypeError(f"indices must be row numbers, integers, got {given.dtype}{cure}")
    picks = np.ascontiguousarray(given, dtype=np.int64)
    if picks.min() < 0 or picks.max() >= len(rows):
        raise IndexError(f"indices must lie in [0, {len(rows)}), got {picks.min()} to {picks.max()}")
    if rows.n_transitions < len(rows):
        others = (rows.links[picks] & LINK_KIND) == NO_TRANSITION
        if others.any():
            raise IndexError(f"row {picks[np.argmax(others)]} is not a transition: its successor is unknown")
    return picks


def assemble(
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    terminals: np.ndarray,
    ends: np.ndarray,
    *,
    columns: Mapping[str, np.ndarray],
    discrete_action: bool,
    action_size: int,
    successor_rows: np.ndarray,
    successors: np.ndarray,
) -> Rows:
    """Link checked columns; ``successor_rows`` (K,), ``successors`` (K, ...) lack the entry of zeros."""
    zeros = np.zeros((1, *observations.shape[1:]), observations.dtype)
    rows = np.concatenate([np.array([-1]), successor_rows]).astype(np.int64, copy=False)
    links = np.empty(len(rewards), np.uint16)
    if len(links):
        link_rows(terminals, ends, rows, links)
    return Rows(
        observations, actions, rewards, terminals, dict(columns), discrete_action, action_size, links,
        rows, np.concatenate([zeros, successors]),
    )  # fmt: skip


Piece = tuple[Rows, int, int]  # a storage, first row, one past the last row: whole episodes


def concatenate(pieces: Sequence[Piece], action_size: int | None = None) -> Rows:
    """Copy pieces of storages behind each other into a new storage.

    Raises ``ValueError`` when observations, kinds of action or names of columns differ.
    """
    for rows, _, _ in pieces[1:]:
        check_compatible(pieces[0][0], rows)
    first = pieces[0][0]

    def column(get: Any) -> np.ndarray:
        return np.concatenate([get(rows)[start:stop] for rows, start, stop in pieces])

    offset, successor_rows, successors = 0, [], []
    for rows, start, stop in pieces:
        low, high = np.searchsorted(rows.successor_rows, [start, stop])
        successor_rows.append(rows.successor_rows[low:high] - start + offset)
        successors.append(rows.successors[low:high])
        offset += stop - start
    return assemble(
        column(lambda r: r.observations),
        column(lambda r: r.actions),
        column(lambda r: r.rewards),
        column(lambda r: r.terminals),
        np.concatenate([(rows.links[start:stop] & ENDS_EPISODE) != 0 for rows, start, stop in pieces]),
        columns={name: column(lambda r, name=name: r.columns[name]) for name in first.columns},
        discrete_action=first.discrete_action,
        action_size=max(rows.action_size for rows, _, _ in pieces) if action_size is None else action_size,
        successor_rows=np.concatenate(successor_rows),
        successors=np.concatenate(successors),
    )


def check_compatible(a: Rows, b: Rows) -> None:
    """Refuse to put ``b`` behind ``a`` where their rows differ in kind."""
    if a.observation_shape != b.observation_shape:
        raise ValueError(f"observations of shape {b.observation_shape} do not fit {a.observation_shape}")
    if a.discrete_action != b.discrete_action:
        kinds = {True: "discrete", False: "continuous"}
        raise ValueError(f"{kinds[b.discrete_action]} actions do not fit {kinds[a.discrete_action]} ones")
    if not a.discrete_action and a.action_size != b.action_size:
        raise ValueError(f"actions of size {b.action_size} do not fit {a.action_size}")
    if a.columns.keys() != b.columns.keys():
        raise ValueError(f"columns {sorted(b.columns)} do not fit {sorted(a.columns)}: the names must be the same")
    for name, column in a.columns.items():
        if column.shape[1:] != b.columns[name].shape[1:]:
            raise ValueError(f"columns[{name!r}] has rows of different shape")

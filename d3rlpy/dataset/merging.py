"""``rows_of``: one storage and the rows in it, for a data set, a list of episodes or of transitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from .building import build_rows
from .dataset import MDPDataset
from .episode import Episode
from .rows import Piece, Rows, concatenate
from .transition import Transition

Data: TypeAlias = MDPDataset | Sequence[Episode] | Sequence[Transition]


def rows_of(data: Data) -> tuple[Rows, np.ndarray]:
    """The storage of ``data`` and the rows of its transitions, in order, int64.

    Where several storages are involved, the episodes concerned are copied into a new one.

    Raises
    ------
    TypeError : not a data set nor a list of episodes or of transitions.
    ValueError : an empty list, or storages that differ in kind.
    """
    if isinstance(data, MDPDataset):
        return data.rows, data.rows.transition_indices()
    if isinstance(data, (str, bytes)) or not hasattr(data, "__iter__"):
        hint = ": pass its to_mdp_dataset()" if hasattr(data, "to_mdp_dataset") else ""
        raise TypeError(f"expected an MDPDataset, episodes or transitions, got {type(data).__name__}{hint}")
    if isinstance(data, Iterator):
        raise TypeError("an iterator can be read only once: pass list(...) of it")
    items: list[Any] = list(data)
    if not items:
        raise ValueError("the list of episodes or transitions is empty")
    kind = type(items[0])
    if kind not in (Episode, Transition):
        raise TypeError(f"expected an MDPDataset, episodes or transitions, got a list of {kind.__name__}")
    for position, item in enumerate(items):
        if type(item) is not kind:
            raise TypeError(f"the list starts with {kind.__name__}, but item {position} is {type(item).__name__}")
    return rows_of_episodes(items) if kind is Episode else rows_of_transitions(items)


def rows_of_episodes(episodes: list[Episode]) -> tuple[Rows, np.ndarray]:
    rows = episodes[0]._rows
    starts = np.array([e._start for e in episodes], np.int64)
    lengths = np.array([len(e) for e in episodes], np.int64)
    if any(e._rows is not rows for e in episodes):
        rows = concatenate([(e._rows, e._start, e._stop) for e in episodes])
        sizes = np.array([e._stop - e._start for e in episodes], np.int64)
        starts = np.cumsum(sizes) - sizes
    # start of the episode plus 0, 1, 2, ... within it
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, np.repeat(starts, lengths) + within


def rows_of_transitions(transitions: list[Transition]) -> tuple[Rows, np.ndarray]:
    rows = transitions[0]._rows
    linked = any(t._previous is not None or t._next is not None for t in transitions)
    if not linked and all(t._rows is rows for t in transitions):
        return rows, np.array([t._row for t in transitions], np.int64)
    return Merger().merge(transitions)


class Merger:
    """Copies the episodes around some transitions of several storages, each episode once."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.n_rows = 0
        self.placed: dict[tuple[int, int], int] = {}  # (id of storage, first row) -> new first row
        self.bounds: dict[int, np.ndarray] = {}
        self.chained: dict[int, int] = {}  # id of a hand-made transition -> new row

    def merge(self, transitions: list[Transition]) -> tuple[Rows, np.ndarray]:
        picks = [self.place(t) for t in transitions]
        return concatenate(self.pieces), np.array(picks, np.int64)

    def place(self, transition: Transition) -> int:
        """The row that ``transition`` has in the new storage."""
        if transition._previous is not None or transition._next is not None:
            if id(transition) not in self.chained:
                self.add_chain(transition)
            return self.chained[id(transition)]
        rows, row = transition._rows, transition._row
        bounds = self.bounds.setdefault(id(rows), rows.bounds())
        start, stop = bounds[np.searchsorted(bounds[:, 1], row, side="right")].tolist()
        key = (id(rows), start)
        if key not in self.placed:
            self.placed[key] = self.add(rows, start, stop)
        return self.placed[key] + row - start

    def add(self, rows: Rows, start: int, stop: int) -> int:
        first = self.n_rows
        self.pieces.append((rows, start, stop))
        self.n_rows += stop - start
        return first

    def add_chain(self, transition: Transition) -> None:
        """Follow the links of hand-made transitions to both ends and store the chain as one episode."""
        chain = chain_of(transition)
        first = self.add(chain_rows(chain), 0, len(chain))
        self.chained.update({id(t): first + k for k, t in enumerate(chain)})


def chain_of(transition: Transition) -> list[Transition]:
    """All transitions linked to this one, first to last."""
    head = transition
    while head._previous is not None:
        head = head._previous
    chain = [head]
    while chain[-1]._next is not None:
        chain.append(chain[-1]._next)
    return chain


def chain_rows(chain: list[Transition]) -> Rows:
    """One storage for a chain; where a next observation is not the next one's observation, it is cut."""
    rows, _ = build_rows(
        np.stack([t.observation for t in chain]),
        np.stack([np.asarray(t.action) for t in chain]),
        np.array([t.reward for t in chain]),
        np.array([t.terminal for t in chain]),
        episode_terminals=np.arange(len(chain)) == len(chain) - 1,
        next_observations=np.stack([t.next_observation for t in chain]),
        discrete_action=chain[0].is_discrete,
        action_size=chain[0].get_action_size(),
    )
    return rows

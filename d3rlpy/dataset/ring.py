"""``Ring``: rows that are written step by step, the newest over the oldest, and its sampler.

Columns, links and successors are those of ``Rows``, so the same kernels gather from both. An episode may run from the
last row on in row 0. Nothing is linked across the seam between the newest and the oldest row: the newest row has no
linked follower yet. A row becomes a transition when what comes after it is known; ``_queue`` keeps the transitions from
oldest to newest, themselves in a ring, so appending and drawing take the same time however many rows there are.

Memory is reserved at once and, where the system can, used only when rows are written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._kernels import (
    ENDS_EPISODE,
    FOLLOWS,
    KNOWN_APART,
    LINK_KIND,
    MOST_STEPS,
    NO_TRANSITION,
    NOT_KNOWN,
    count_all,
    count_back,
)
from .batch import TransitionMiniBatch, reusable_batch
from .rows import Rows, assemble
from .samplers import DRAWN_AHEAD, bit_generator, restore
from .validation import check_whole

FEW_STEPS = 64  # how far links look when the rest of an episode is looked for


class Ring(Rows):
    """Columns of ``size`` rows, of which ``n_held`` are in use; everything written is already checked.

    Row numbers stand for places, not for age; what is listed (transitions, ``following``) comes oldest first. Links
    count following transitions only as far as the largest ``n_steps`` asked so far needs (``look_ahead``).

    Attributes
    ----------
    newest : the row written last.
    n_held : how many rows are in use, up to ``size``.
    n_written : how many rows were ever written.
    is_open : whether the newest row's episode goes on.
    """

    __setattr__ = object.__setattr__  # a ring changes, other rows do not

    def __init__(self, size: int, observation_shape: tuple[int, ...], discrete_action: bool, action_size: int):
        dtype = np.uint8 if len(observation_shape) == 3 else np.float32
        self._links = np.full(size, NO_TRANSITION, np.uint16)
        super().__init__(
            observations=np.zeros((size, *observation_shape), dtype),
            actions=np.zeros(size, np.int64) if discrete_action else np.zeros((size, action_size), np.float32),
            rewards=np.zeros(size, np.float32),
            terminals=np.zeros(size, np.bool_),
            columns={},
            discrete_action=discrete_action,
            action_size=action_size,
            links=self._links.view(),
            successor_rows=np.array([-1]),
            successors=np.zeros((size + 1, *observation_shape), dtype),  # a slot for each row behind the zeros
        )
        self._slots = np.zeros(size, np.int32)
        self._free_slots: list[int] = []
        self._n_slots = 1  # slots that were ever used, entry 0 included
        self._most = 1  # how far links count
        self._queue, self._first, self._n_transitions = np.zeros(size, np.int64), 0, 0
        self.newest, self.n_held, self.n_written, self.is_open = size - 1, 0, 0, False

    def __post_init__(self) -> None:
        self.links.flags.writeable = False  # a view: only the ring itself writes

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a copy, too, ``links`` is a view."""
        self.__dict__.update(state, links=state["_links"].view())
        self.__post_init__()

    @property
    def n_transitions(self) -> int:
        """How many rows are transitions."""
        return self._n_transitions

    @property
    def slots(self) -> np.ndarray:
        return self._slots

    @property
    def oldest(self) -> int:
        """The row that is overwritten next once all are in use."""
        return (self.newest + 1 - self.n_held) % len(self)

    def append(
        self,
        observation: np.ndarray,
        action: Any,
        reward: float,
        terminal: bool,
        ends: bool,
        following: np.ndarray | None,
    ) -> None:
        """Write one step; ``following`` is the observation after it, if known already."""
        before, row = self.newest, (self.newest + 1) % len(self)
        if self.n_held == len(self):
            self._forget_oldest()
        if self.is_open and before != row:
            self._continue(before, observation)
        self.observations[row], self.actions[row] = observation, action
        self.rewards[row], self.terminals[row] = reward, terminal
        kind = NOT_KNOWN if terminal else NO_TRANSITION
        if following is not None:
            kind, self._slots[row] = KNOWN_APART, self._store(following)
        self._links[row] = kind | ENDS_EPISODE if ends else kind
        self.newest, self.is_open = row, not ends
        self.n_held += 1
        self.n_written += 1
        if kind != NO_TRANSITION:
            self._now_a_transition(row)

    def _forget_oldest(self) -> None:
        row = self.oldest
        kind = int(self._links[row]) & LINK_KIND
        if kind == KNOWN_APART:
            self._free_slots.append(int(self._slots[row]))
        if kind != NO_TRANSITION:
            self._first = (self._first + 1) % len(self)
            self._n_transitions -= 1
        self._links[row] = NO_TRANSITION
        self.n_held -= 1

    def _continue(self, row: int, observation: np.ndarray) -> None:
        """Link ``row``, the newest so far, to the next one, unless its successor is known to be something else."""
        if int(self._links[row]) & LINK_KIND == KNOWN_APART:
            slot = int(self._slots[row])
            known = self.successors[slot]
            if known.tobytes() == observation.tobytes() or np.array_equal(known, observation):
                self._links[row] = FOLLOWS
                self._free_slots.append(slot)
        else:
            self._links[row] = FOLLOWS
            self._now_a_transition(row)

    def _store(self, observation: np.ndarray) -> int:
        """Keep a successor that is not the next row; returns its slot."""
        slot = self._take_slot()
        self.successors[slot] = observation
        return slot

    def _take_slot(self) -> int:
        if self._free_slots:
            return self._free_slots.pop()
        self._n_slots += 1
        return self._n_slots - 1

    def _now_a_transition(self, row: int) -> None:
        self._queue[(self._first + self.n_transitions) % len(self)] = row
        self._n_transitions += 1
        count_back(self._links, row, self._most)

    def end_episode(self) -> None:
        """The newest row is the last of its episode, cut by a time limit; nothing if no episode is open."""
        if self.is_open:
            self._links[self.newest] |= ENDS_EPISODE
            self.is_open = False

    def reopen_episode(self) -> None:
        """The newest row's episode goes on: undoes ``end_episode``."""
        self._links[self.newest] &= MOST_STEPS | LINK_KIND
        self.is_open = True

    def extend(self, rows: Rows, start: int, stop: int) -> None:
        """Copy the rows from ``start`` to before ``stop`` of another storage, whole episodes, as if appended."""
        start = max(start, stop - len(self))
        places = (self.newest + 1 + np.arange(stop - start)) % len(self)
        for _ in range(self.n_held + len(places) - len(self)):
            self._forget_oldest()
        for name in ("observations", "actions", "rewards", "terminals"):
            write_round(getattr(self, name), int(places[0]), getattr(rows, name)[start:stop])
        links = rows.links[start:stop]
        self._links[places] = links
        low, high = np.searchsorted(rows.successor_rows, [start, stop])
        slots = np.array([self._take_slot() for _ in range(high - low)], np.int32)
        self.successors[slots] = rows.successors[low:high]
        self._slots[places[rows.successor_rows[low:high] - start]] = slots
        transitions = places[(links & LINK_KIND) != NO_TRANSITION]
        write_round(self._queue, (self._first + self.n_transitions) % len(self), transitions)
        self._n_transitions += len(transitions)
        self.newest, self.is_open = int(places[-1]), False
        self.n_held += len(places)
        self.n_written += len(places)

    def look_ahead(self, n_steps: int) -> None:
        if n_steps - 1 > self._most:
            self._most = n_steps - 1
            count_all(self._links, self.newest, self._most)

    def pick(self, shares: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The rows of the transitions at ``shares`` in [0, 1) of the way from the oldest to the newest."""
        positions = (shares * self.n_transitions).astype(np.int64)
        positions += self._first
        return np.take(self._queue, positions, out=out, mode="wrap")

    def newest_rows(self, count: int) -> np.ndarray:
        """The rows written last, oldest first."""
        return (self.newest + 1 - count + np.arange(count)) % len(self)

    def newest_slices(self, count: int) -> list[slice]:
        """The same places as one slice, or as two where they go round the end."""
        start = self.newest + 1 - count
        return [slice(start, self.newest + 1)] if start >= 0 else [slice(start, None), slice(self.newest + 1)]

    def transition_indices(self) -> np.ndarray:
        return self._queue[(self._first + np.arange(self.n_transitions)) % len(self)]

    def ages(self, indices: np.ndarray) -> np.ndarray:
        """0 for the oldest row, ``n_held - 1`` for the newest."""
        return (indices - self.oldest) % len(self)

    def following(self, indices: np.ndarray) -> np.ndarray:
        self.look_ahead(FEW_STEPS)
        last = indices.copy()
        while (steps := self._links[last] & MOST_STEPS).any():
            last = (last + steps) % len(self)
        n = len(self) + 1
        begun, ended = np.bincount(self.ages(indices), minlength=n), np.bincount(self.ages(last) + 1, minlength=n)
        return (np.flatnonzero(np.cumsum(begun - ended)[:-1] > 0) + self.oldest) % len(self)

    def places(self, rows: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return self.ages(rows).searchsorted(self.ages(indices))

    def next_observation(self, row: int) -> np.ndarray:
        following = self.next_row(row)
        if following is not None:
            return self.observations[following]
        apart = int(self._links[row]) & LINK_KIND == KNOWN_APART
        return self.successors[self._slots[row] if apart else 0]

    def bounds(self) -> np.ndarray:
        raise TypeError("episodes of a replay buffer may run across the end of its arrays: use to_mdp_dataset()")

    def in_order(self) -> Rows:
        """A copy, oldest row first; an open episode counts as cut behind its newest row."""
        order = self.newest_rows(self.n_held)
        links = self._links[order]
        ends = (links & ENDS_EPISODE) != 0
        ends[-1:] = True
        apart = np.flatnonzero((links & LINK_KIND) == KNOWN_APART)
        return assemble(
            self.observations[order],
            self.actions[order],
            self.rewards[order],
            self.terminals[order],
            ends,
            columns={},
            discrete_action=self.discrete_action,
            action_size=self.action_size,
            successor_rows=apart,
            successors=self.successors[self._slots[order[apart]]],
        )

    def __repr__(self) -> str:
        return f"Ring({self.n_held} of {len(self)} rows, {self.n_transitions} transitions)"


def write_round(column: np.ndarray, first: int, values: np.ndarray) -> None:
    """Write ``values`` into ``column`` from row ``first`` on, and from row 0 on what does not fit."""
    fitting = len(column) - first
    column[first : first + len(values)] = values[:fitting]
    column[: max(0, len(values) - fitting)] = values[fitting:]


class RingSampler:
    """Mini-batches of the transitions that a ring holds when they are asked for, drawn with replacement.

    Parameters
    ----------
    ring : what to sample from; it may grow and turn between two batches.
    batch_size, n_frames, n_steps, gamma : shape of a batch, see ``TransitionMiniBatch``.
    seed : of the sampler's own generator; None takes one from the system.
    scale_rewards : from rewards ``(n,)`` float32 to rewards of the same kind, each by itself. They are scaled before
        n-step sums, and each once, when the first batch after it was appended is asked for.
    """

    def __init__(
        self,
        ring: Ring,
        batch_size: int,
        n_frames: int = 1,
        n_steps: int = 1,
        gamma: float = 0.99,
        *,
        seed: int | np.random.SeedSequence | None = None,
        scale_rewards: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        check_batch_size(ring, batch_size)
        self._ring, self._scale_rewards = ring, scale_rewards
        self._picks = np.zeros(batch_size, np.int64)
        self._rewards = None if scale_rewards is None else np.zeros(len(ring), np.float32)
        self._n_scaled = 0  # how many of the rows ever written were scaled
        self._batch = reusable_batch(ring, self._picks, n_frames, n_steps, gamma, self._rewards)
        self._fill = self._batch._gather.fill
        self._generator = np.random.Generator(bit_generator(seed))
        self._next_draw()

    def _next_draw(self) -> None:
        self._before = self._generator.bit_generator.state
        self._drawn, self._cursor = self._generator.random((DRAWN_AHEAD, len(self._picks))), 0

    def sample(self) -> TransitionMiniBatch:
        """The next batch. Its arrays are the same objects every time, valid until the next call.

        Raises
        ------
        ValueError : there are fewer transitions than ``batch_size``.
        """
        check_enough(self._ring, len(self._picks))
        if self._cursor == DRAWN_AHEAD:
            self._next_draw()
        self._ring.pick(self._drawn[self._cursor], out=self._picks)
        self._cursor += 1
        if self._rewards is not None and self._n_scaled < self._ring.n_written:
            self._scale_new_rewards(self._rewards)
        self._fill()
        return self._batch

    def _scale_new_rewards(self, rewards: np.ndarray) -> None:
        assert self._scale_rewards is not None
        count = min(self._ring.n_written - self._n_scaled, len(self._ring))
        for rows in self._ring.newest_slices(count):
            rewards[rows] = self._scale_rewards(self._ring.rewards[rows])
        self._n_scaled = self._ring.n_written

    @property
    def n_transitions(self) -> int:
        """How many transitions are sampled from now."""
        return self._ring.n_transitions

    def get_state(self) -> dict[str, Any]:
        """Where the sampler stands, in plain Python values; the ring's content is not part of it."""
        return {
            "sampler": type(self).__name__,
            "batch_size": len(self._picks),
            "generator": self._before,
            "cursor": self._cursor,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``get_state`` was called, on a sampler made with the same arguments."""
        restore(self._generator, state, self.get_state(), DRAWN_AHEAD)
        self._next_draw()
        self._cursor = int(state["cursor"])


def check_batch_size(ring: Ring, batch_size: int) -> None:
    """Refuse a batch that the ring can never fill."""
    check_whole("batch_size", batch_size, 1)
    if batch_size > len(ring):
        raise ValueError(
            f"batch_size={batch_size} is more than the buffer can hold, maxlen={len(ring)}: make the buffer larger"
        )


def check_enough(ring: Ring, batch_size: int) -> None:
    """Refuse a batch larger than what the ring holds now."""
    if ring.n_transitions < batch_size:
        raise ValueError(
            f"batch_size={batch_size}, but the buffer holds {ring.n_transitions} transitions: append more first"
        )

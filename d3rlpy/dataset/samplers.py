"""Samplers: endless mini-batches from a storage, by permutations or with replacement, with a state to save.

Both cut full batches from an endless chain of *draws*, arrays of row numbers; they differ in what a draw is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import numpy as np

from .batch import TransitionMiniBatch, reusable_batch
from .rows import Rows, check_indices
from .validation import check_whole

DRAWN_AHEAD = 64  # batches in one draw with replacement: one call of the generator for all of them


def bit_generator(seed: Any) -> np.random.PCG64:
    """PCG64 started from ``seed``."""
    try:
        return np.random.PCG64(seed)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"seed must be None, a whole number of at least 0 or a numpy SeedSequence, got {seed!r}"
        ) from error


def restore(generator: Any, state: dict[str, Any], mine: dict[str, Any], last_cursor: int) -> None:
    """Put a generator where ``state`` says; an error unless that comes from a sampler like this one (``mine``)."""
    if not isinstance(state, dict):
        raise TypeError(f"set_state takes a dictionary of get_state, got {type(state).__name__}")
    for name in [name for name in mine if name not in ("generator", "cursor")]:
        if state.get(name) != mine[name]:
            raise ValueError(f"the state is of a sampler with {name}={state.get(name)}, this one has {mine[name]}")
    check_whole("the state is damaged: cursor", state.get("cursor"), 0, last_cursor)
    set_generator(generator, state.get("generator"))


def set_generator(generator: np.random.Generator, state: Any) -> None:
    """Put a generator where ``state`` was taken; ``ValueError`` if that is no such state."""
    try:
        generator.bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"the state is damaged: generator cannot be set ({error!r})") from error


class _Sampler(ABC):
    """The chain of draws and its state.

    Parameters
    ----------
    rows, indices : the storage, and the rows of the transitions to sample, ``(T,)``.
    batch_size, n_frames, n_steps, gamma : shape of a batch, see ``TransitionMiniBatch``.
    seed : of the sampler's own generator; None takes one from the system.
    rewards : ``(N,)`` float32 in place of the stored ones, so that scaling comes before n-step sums.
    """

    def __init__(
        self,
        rows: Rows,
        indices: np.ndarray,
        batch_size: int,
        n_frames: int = 1,
        n_steps: int = 1,
        gamma: float = 0.99,
        *,
        seed: int | np.random.SeedSequence | None = None,
        rewards: np.ndarray | None = None,
    ):
        check_whole("batch_size", batch_size, 1)
        self._window = (n_frames, n_steps, gamma)
        self._indices = check_indices(indices, rows)
        self._picks = np.full(batch_size, self._indices[0])
        self._batch = reusable_batch(rows, self._picks, n_frames, n_steps, gamma, rewards)
        self._fill = self._batch._gather.fill
        self._generator = np.random.Generator(bit_generator(seed))
        self._next_draw()

    @abstractmethod
    def _draw(self) -> np.ndarray:
        """The next row numbers, int64."""

    def _next_draw(self) -> None:
        self._before = self._generator.bit_generator.state
        self._drawn, self._cursor = self._draw(), 0

    def sample(self) -> TransitionMiniBatch:
        """The next batch. Its arrays are the same objects every time, valid until the next call."""
        stop = self._cursor + len(self._picks)
        if stop <= len(self._drawn):
            self._picks[:] = self._drawn[self._cursor : stop]
            self._cursor = stop
        else:
            self._pick_across()
        self._fill()
        return self._batch

    def _pick_across(self) -> None:
        """Fill the picks from the rest of this draw and the start of the next ones."""
        filled = 0
        while filled < len(self._picks):
            if self._cursor == len(self._drawn):
                self._next_draw()
            part = self._drawn[self._cursor : self._cursor + len(self._picks) - filled]
            self._picks[filled : filled + len(part)] = part
            self._cursor += len(part)
            filled += len(part)

    @property
    def n_batches(self) -> int:
        """Batches until every transition could have been seen once: T / batch_size, rounded up."""
        return -(-len(self._indices) // len(self._picks))

    @property
    def n_transitions(self) -> int:
        """How many transitions are sampled from, T."""
        return len(self._indices)

    def get_state(self) -> dict[str, Any]:
        """Where the chain stands, in plain Python values."""
        return {
            "sampler": type(self).__name__,
            "transitions": len(self._indices),
            "batch_size": len(self._picks),
            "generator": self._before,
            "cursor": self._cursor,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``get_state`` was called, on a sampler made with the same arguments."""
        restore(self._generator, state, self.get_state(), len(self._drawn))
        self._next_draw()
        self._cursor = int(state["cursor"])

    def _arguments(self) -> dict[str, Any]:
        """What to make the same sampler with, apart from its state."""
        n_frames, n_steps, gamma = self._window
        return {
            "rows": self._batch.rows,
            "indices": self._indices,
            "batch_size": len(self._picks),
            "n_frames": n_frames,
            "n_steps": n_steps,
            "gamma": gamma,
            "rewards": self._batch._column,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles go on from the same place, with buffers of their own."""
        return partial(type(self), **self._arguments()), (), self.get_state()

    __setstate__ = set_state


class PermutationSampler(_Sampler):
    """Every transition once, in random order, then in another one, and so on.

    The last batch of a pass is filled from the next permutation, so every batch is full and no row is
    skipped. ``shuffle=False`` walks in the given order, round and round.
    """

    def __init__(
        self,
        rows: Rows,
        indices: np.ndarray,
        batch_size: int,
        n_frames: int = 1,
        n_steps: int = 1,
        gamma: float = 0.99,
        shuffle: bool = True,
        seed: int | np.random.SeedSequence | None = None,
        rewards: np.ndarray | None = None,
    ):
        self._shuffle = shuffle
        super().__init__(rows, indices, batch_size, n_frames, n_steps, gamma, seed=seed, rewards=rewards)

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | {"shuffle": self._shuffle}

    def _draw(self) -> np.ndarray:
        if not self._shuffle:
            return self._indices
        return self._generator.permutation(self._indices)


class RandomSampler(_Sampler):
    """Each transition drawn independently, with replacement: for buffers that grow."""

    def _draw(self) -> np.ndarray:
        count = DRAWN_AHEAD * len(self._picks)
        return self._indices[self._generator.integers(0, len(self._indices), size=count)]

"""``TransitionMiniBatch``: the arrays that one gradient step learns from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, overload

import numpy as np

from ._kernels import MOST_STEPS, Gather
from .merging import rows_of
from .rows import Rows, check_indices
from .transition import NEXT_REWARD, Transition
from .validation import check_whole, warn_caller


def check_window(rows: Rows, n_frames: int, n_steps: int, gamma: float) -> None:
    """Refuse settings that the kernels cannot follow."""
    check_whole("n_steps", n_steps, 1, MOST_STEPS)
    check_whole("n_frames", n_frames, 1)
    if n_frames > 1 and not rows.is_image:
        raise ValueError(f"n_frames={n_frames} needs uint8 images (C, H, W); observations are {rows.observation_shape}")
    if not isinstance(gamma, Real) or not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma!r}")
    rows.look_ahead(n_steps)


def check_rewards(rows: Rows, rewards: np.ndarray | None) -> np.ndarray:
    """``rewards`` in place of those stored, held to their type and length."""
    if rewards is None:
        return rows.rewards
    is_array = isinstance(rewards, np.ndarray)
    if is_array and rewards.dtype == np.float32 and rewards.shape == rows.rewards.shape and rewards.flags.c_contiguous:
        return rewards
    got = f"{rewards.dtype} {rewards.shape}" if is_array else type(rewards).__name__
    raise ValueError(f"rewards must be a contiguous float32 array of shape {rows.rewards.shape}, got {got}")


def least_value(reward: float, gamma: float) -> float:
    """What a policy is worth at least where no reward is below ``reward``: ``min(reward, 0) / (1 - gamma)``.

    Above 0 it cannot be told, because a terminal may come at once.
    """
    if reward >= 0.0:
        return 0.0
    return reward / (1.0 - gamma) if gamma < 1.0 else -math.inf


class TransitionMiniBatch:
    """B transitions as arrays, n-step sums and frame stacks done.

    Parameters
    ----------
    transitions : what the batch holds.
    n_frames : how many frames to stack, oldest to newest along the channels; images only.
    n_steps : the largest number of rewards to sum; sums end where the episode ends.
    gamma : discount of one step, unless the transitions have a column ``discount``.

    Attributes
    ----------
    observations, next_observations : ``(B, D)`` float32 or ``(B, n_frames * C, H, W)`` uint8; the latter
        after the last row that the n-step sum visits.
    actions : ``(B, A)`` float32 or ``(B,)`` int.
    rewards : ``(B, 1)`` float32, discounted sums of up to ``n_steps`` rewards.
    terminals : ``(B, 1)`` float32, of the last row visited.
    n_steps : ``(B, 1)`` float32, how many rewards were really summed.
    discounts : ``(B, 1)`` float32, what the value of ``next_observations`` is multiplied with: gamma to the
        number summed (or the product of the ``discount`` column), 0 after a terminal.
    """

    __slots__ = (
        "_column",
        "_gather",
        "_given",
        "_indices",
        "_rows",
        "actions",
        "discounts",
        "gamma",
        "n_frames",
        "n_steps",
        "next_observations",
        "observations",
        "rewards",
        "terminals",
    )

    _given: list[Transition] | None

    def __init__(self, transitions: Sequence[Transition], n_frames: int = 1, n_steps: int = 1, gamma: float = 0.99):
        given = list(transitions)
        if any(not isinstance(t, Transition) for t in given):
            raise TypeError("TransitionMiniBatch takes a list of Transition")
        rows, indices = rows_of(given)
        self._allocate(rows, indices, n_frames, n_steps, gamma, None)
        self._given = given
        self._gather.fill()

    def _allocate(
        self,
        rows: Rows,
        indices: np.ndarray,
        n_frames: int,
        n_steps: int,
        gamma: float,
        rewards: np.ndarray | None,
    ) -> None:
        """Make the buffers for the transitions that ``indices`` names whenever ``_gather.fill`` is called."""
        check_window(rows, n_frames, n_steps, gamma)
        size, shape = len(indices), rows.observation_shape
        stacked = (n_frames * shape[0], *shape[1:])
        self._rows, self._indices = rows, indices
        self._given = None
        self.n_frames, self.gamma = n_frames, gamma
        self.observations = np.empty((size, *stacked), rows.observations.dtype)
        self.next_observations = np.empty_like(self.observations)
        self.actions = np.empty((size, *rows.actions.shape[1:]), rows.actions.dtype)
        self.rewards, self.terminals, self.n_steps, self.discounts = np.empty((4, size, 1), np.float32)
        self._column = check_rewards(rows, rewards)
        discount = rows.columns.get("discount")
        self._gather = Gather(rows, self._column, discount, indices, self, n_frames, n_steps, gamma)

    @property
    def rows(self) -> Rows:
        """The storage that holds the transitions."""
        return self._rows

    @property
    def indices(self) -> np.ndarray:
        """The rows where the transitions start, ``(B,)`` int64."""
        return self._indices

    @property
    def transitions(self) -> list[Transition]:
        """The transitions that were given, or views of those that were sampled; single frames."""
        if self._given is not None:
            return self._given
        return [Transition.view(self._rows, row) for row in self._indices.tolist()]

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The named columns in the rows where the transitions start."""
        return {name: column[self._indices] for name, column in self._rows.columns.items()}

    @property
    def next_actions(self) -> np.ndarray:
        """Actions taken in ``next_observations``, shaped like ``actions``; zeros where none is recorded."""
        last = (self._indices + self.n_steps.astype(np.int64).reshape(-1) - 1) % len(self._rows)
        following = [self._rows.next_row(row) for row in last.tolist()]
        known = np.array([row is not None for row in following])
        actions = np.zeros_like(self.actions)
        actions[known] = self._rows.actions[[row for row in following if row is not None]]
        return actions

    @property
    def next_rewards(self) -> np.ndarray:
        """``rewards``, under the name they had in the delayed layout; warns."""
        warn_caller(NEXT_REWARD.format(name="next_rewards", plain="rewards"), FutureWarning)
        return self.rewards

    def returns_to_go(self) -> np.ndarray:
        """Discounted sums of all rewards to the end of each transition's episode, whatever ``n_steps``, ``(B, 1)``.

        Where no terminal ends the episode (a time limit cuts it, it is still open, or ``next_observations`` show a
        jump), the worst reward of the storage, or 0 if none is negative, counts as if it came in every step from there
        on. So, unless worse rewards exist, the sum is no more than what would have come.
        """
        discount = self._rows.columns.get("discount")
        gamma = self.gamma if discount is None else float(discount.max())
        returns = np.empty_like(self.rewards)
        self._gather.sum_rest(least_value(float(self._column.min()), gamma), returns.reshape(-1))
        return returns

    def with_rewards(self, transform: Callable[[np.ndarray], np.ndarray]) -> TransitionMiniBatch:
        """The same batch from rewards that went through ``transform`` *before* they were summed.

        ``transform`` takes and gives the rewards of the storage, ``(N,)`` float32.
        """
        rewards = np.array(transform(self._rows.rewards), np.float32)
        steps = int(self.n_steps.max())  # what stopped shorter sums stops them again
        return gather(self._rows, self._indices, self.n_frames, steps, self.gamma, rewards)

    def single_steps(self, indices: np.ndarray) -> TransitionMiniBatch:
        """Other transitions of the storage, one step each, frames and rewards as in this batch, in fresh arrays."""
        return gather(self._rows, indices, self.n_frames, 1, self.gamma, self._column)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are gathered anew."""
        steps = int(self.n_steps.max())  # what stopped shorter sums stops them again
        if self._given is not None:
            return TransitionMiniBatch, (self._given, self.n_frames, steps, self.gamma)
        return gather, (self._rows, self._indices, self.n_frames, steps, self.gamma, self._column)

    def size(self) -> int:
        """Number of transitions."""
        return len(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Transition: ...
    @overload
    def __getitem__(self, index: slice) -> list[Transition]: ...
    def __getitem__(self, index: int | slice) -> Transition | list[Transition]:
        return self.transitions[index]

    def __iter__(self) -> Iterator[Transition]:
        return iter(self.transitions)

    def __repr__(self) -> str:
        return f"TransitionMiniBatch({len(self)} transitions, observations {self.observations.shape[1:]})"


def reusable_batch(
    rows: Rows,
    indices: np.ndarray,
    n_frames: int = 1,
    n_steps: int = 1,
    gamma: float = 0.99,
    rewards: np.ndarray | None = None,
) -> TransitionMiniBatch:
    """A batch that is not yet filled; ``_gather.fill()`` fills it with what ``indices`` holds then."""
    batch = TransitionMiniBatch.__new__(TransitionMiniBatch)
    batch._allocate(rows, indices, n_frames, n_steps, gamma, rewards)
    return batch


def gather(
    rows: Rows,
    indices: np.ndarray,
    n_frames: int = 1,
    n_steps: int = 1,
    gamma: float = 0.99,
    rewards: np.ndarray | None = None,
) -> TransitionMiniBatch:
    """The transitions that start in the rows ``indices``, in fresh arrays.

    ``rewards`` ``(N,)`` float32 stands in for the stored ones. ``IndexError`` for a row that is no
    transition.
    """
    picks = check_indices(indices, rows).copy()
    batch = reusable_batch(rows, picks, n_frames, n_steps, gamma, rewards)
    batch._gather.fill()
    return batch

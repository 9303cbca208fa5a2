"""From the user's arrays to ``Rows`` and a report: flags, episode ends, successors, delayed rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .rows import Rows, assemble
from .validation import (
    check_length,
    row_chunks,
    to_actions,
    to_columns,
    to_flags,
    to_observations,
    to_scalars,
    warn_caller,
)

NO_SUCCESSOR = "last row of a timed-out episode, its successor unknown"
STATE_ONLY = "last row of an episode with delayed rewards, a state without action"


@dataclass(frozen=True)
class Report:
    """What became of the rows that were given: ``rows == transitions + sum(dropped.values())``.

    A dropped row is no transition of its own; it may still be the successor of the row before it.
    """

    rows: int
    transitions: int
    episodes: int
    dropped: dict[str, int] = field(default_factory=dict)
    cut_links: int = 0  # inside episodes, where next_observations was not the next row
    unfinished_rows: int = 0  # after the last end flag, taken as a timed-out episode

    def to_dict(self) -> dict[str, Any]:
        """The same numbers as a plain dictionary."""
        return asdict(self)

    def __add__(self, other: Report) -> Report:
        reasons = [*self.dropped, *(r for r in other.dropped if r not in self.dropped)]
        return Report(
            rows=self.rows + other.rows,
            transitions=self.transitions + other.transitions,
            episodes=self.episodes + other.episodes,
            dropped={r: self.dropped.get(r, 0) + other.dropped.get(r, 0) for r in reasons},
            cut_links=self.cut_links + other.cut_links,
            unfinished_rows=self.unfinished_rows + other.unfinished_rows,
        )


def listed(rows: np.ndarray, most: int = 5) -> str:
    """The first few row numbers, for a message."""
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return ", ".join(str(r) for r in rows[:most]) + more


def resolve_ends(terminals: np.ndarray, timeouts: Any, episode_terminals: Any) -> tuple[np.ndarray, int]:
    """Flags of each episode's last row ``(N,)`` bool, and the number of rows after the last given flag."""
    n_rows = len(terminals)
    ends = terminals.copy()
    if timeouts is not None:
        cut = to_flags("timeouts", timeouts, n_rows)
        both = np.flatnonzero(cut & terminals)
        if len(both):
            warn_caller(
                f"terminals and timeouts are both set in {len(both)} rows ({listed(both)}): taken as "
                "terminals, so the value after them counts as zero"
            )
        ends |= cut
    if episode_terminals is not None:
        stops = to_flags("episode_terminals", episode_terminals, n_rows)
        open_rows = np.flatnonzero(terminals & ~stops)
        if len(open_rows):
            warn_caller(
                f"terminals is set and episode_terminals is not in {len(open_rows)} rows "
                f"({listed(open_rows)}): taken as terminals, which end an episode"
            )
        ends |= stops
    unfinished = n_rows if not ends.any() else int(np.argmax(ends[::-1]))
    if unfinished:
        warn_caller(
            f"no end flag in the last {unfinished} of {n_rows} rows: taken as one episode cut by a time "
            "limit; set timeouts (or terminals) in its last row"
        )
        ends[-1] = True
    return ends, unfinished


def find_successors(
    observations: np.ndarray, next_observations: Any, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose successor is not simply the next row, and those successors."""
    following = to_observations("next_observations", next_observations)
    check_length("next_observations", following, len(observations))
    if following.shape != observations.shape or following.dtype != observations.dtype:
        raise ValueError(
            f"next_observations must be like observations, {observations.shape} {observations.dtype}, got "
            f"{following.shape} {following.dtype}"
        )
    apart = ends.copy()
    for part in row_chunks(observations[:-1]):
        after = slice(part.start + 1, part.stop + 1)
        differ = following[:-1][part] != observations[after]
        apart[:-1][part] |= differ.reshape(len(differ), -1).any(axis=1)
    rows = np.flatnonzero(apart).astype(np.int64, copy=False)
    return rows, following[rows]


def finish(rows: Rows, *, dropped: Mapping[str, int], cut_links: int = 0, unfinished: int = 0) -> tuple[Rows, Report]:
    """Add the report; an error if nothing can be learned from the rows."""
    if rows.n_transitions == 0:
        raise ValueError(
            "the data hold no transition: every episode is a single row that a time limit ended, and what "
            "came after it is unknown; give next_observations, or set terminals where the task ended"
        )
    lost = len(rows) - rows.n_transitions
    reasons = {**dropped, NO_SUCCESSOR: lost}
    return rows, Report(
        rows=len(rows) + sum(dropped.values()),
        transitions=rows.n_transitions,
        episodes=int(np.count_nonzero(rows.ends())),
        dropped={reason: count for reason, count in reasons.items() if count},
        cut_links=cut_links,
        unfinished_rows=unfinished,
    )


def build_rows(
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
    successors: tuple[np.ndarray, np.ndarray] | None = None,
    least_action_size: int = 0,
) -> tuple[Rows, Report]:
    """Rows in Gymnasium's alignment, where ``rewards[t]`` is caused by ``actions[t]``; see ``MDPDataset``.

    ``successors`` are (rows, observations) already known not to be the next row, in place of
    ``next_observations``. ``least_action_size`` counts where ``action_size`` is not given and the ids are few.
    """
    observations = to_observations("observations", observations)
    n_rows = len(observations)
    actions, discrete, size = to_actions(actions, n_rows, discrete_action, action_size, least_action_size)
    rewards = to_scalars("rewards", rewards, n_rows)
    terminals = to_flags("terminals", terminals, n_rows)
    ends, unfinished = resolve_ends(terminals, timeouts, episode_terminals)
    if next_observations is not None:
        successors = find_successors(observations, next_observations, ends)
    elif successors is None:
        successors = np.empty(0, np.int64), observations[:0]
    cut_links = int(np.count_nonzero(~ends[successors[0]]))
    rows = assemble(
        observations,
        actions,
        rewards,
        terminals,
        ends,
        columns=to_columns(columns, n_rows, discrete, size),
        discrete_action=discrete,
        action_size=size,
        successor_rows=successors[0],
        successors=successors[1],
    )
    return finish(rows, dropped={}, cut_links=cut_links, unfinished=unfinished)


def build_delayed_rows(
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
) -> tuple[Rows, Report]:
    """Rows from the layout in which ``rewards[t]`` and ``terminals[t]`` tell of the *arrival* in state t.

    Reward and flags move up by one row, to the action that caused them; the last row of an episode, a state
    without action, becomes the known successor of the row before it.
    """
    observations = to_observations("observations", observations)
    n_rows = len(observations)
    actions, discrete, size = to_actions(actions, n_rows, discrete_action, action_size)
    rewards = to_scalars("rewards", rewards, n_rows)
    terminals = to_flags("terminals", terminals, n_rows)
    ends, unfinished = resolve_ends(terminals, timeouts, episode_terminals)
    columns = to_columns(columns, n_rows, discrete, size)

    starts = np.concatenate([[True], ends[:-1]])
    if rewards[starts].any():
        lost = np.flatnonzero(starts & (rewards != 0))
        warn_caller(
            f"the first row of {len(lost)} episodes has a reward (rows {listed(lost)}), which no action "
            "caused if rewards are delayed: left out. Is this really the delayed layout?"
        )
    kept = np.flatnonzero(~ends)  # each is caused by its own action and arrives in the row behind it
    if len(kept) == 0:
        raise ValueError("the data hold no transition: with delayed rewards an episode needs at least two rows")
    last = np.flatnonzero(ends[kept + 1])  # positions in kept of each episode's last transition
    arrived_at_end = np.zeros(len(kept), np.bool_)
    arrived_at_end[last] = True
    rows = assemble(
        observations[kept],
        actions[kept],
        rewards[kept + 1],
        terminals[kept + 1],
        arrived_at_end,
        columns={name: column[kept] for name, column in columns.items()},
        discrete_action=discrete,
        action_size=size,
        successor_rows=last.astype(np.int64, copy=False),
        successors=observations[kept[last] + 1],
    )
    return finish(rows, dropped={STATE_ONLY: n_rows - len(kept)}, unfinished=unfinished)

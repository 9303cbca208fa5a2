"""Data sets that others wrote as HDF5: D4RL, the original d3rlpy (1.x, 2.x), and what looks like them.

Nothing guards against damage here: a damaged file can make the HDF5 library itself hang or crash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .building import Report, build_delayed_rows, build_rows
from .rows import Rows
from .validation import warn_caller

Layout = Callable[..., tuple[Rows, Report]]
EPISODE_STEMS = ("observations", "actions", "rewards", "terminated")  # of d3rlpy 2.x, each followed by a number
NUMBERED = re.compile(r"(.+)_(\d+)")


def read_foreign(file: Any, alignment: str | None) -> tuple[Layout, dict[str, Any]]:
    """Choose by what the file holds; see the table in ``docs/data.md``."""
    if "observations_0_0" in file or count_episodes(file) > 0:
        return build_rows, read_episodes(file, alignment)
    missing = [name for name in ("observations", "actions", "rewards", "terminals") if name not in file]
    if missing:
        raise ValueError(f"not a data set: {', '.join(missing)} missing; it holds {sorted(file)}")
    if alignment is None:
        alignment = guess_alignment(file)
    names = ["observations", "actions", "rewards", "terminals", "timeouts", "episode_terminals"]
    if alignment == "gymnasium":
        names.append("next_observations")
    arrays: dict[str, Any] = {name: file[name][()] for name in names if name in file}
    n_rows = len(np.atleast_1d(arrays["observations"]))
    warn_of_others(file, [name for name in file if name not in names and n_entries(file[name]) == n_rows])
    if "discrete_action" in file:
        arrays["discrete_action"] = read_flag(file, "discrete_action")
    return build_rows if alignment == "gymnasium" else build_delayed_rows, arrays


def guess_alignment(file: Any) -> str:
    if "timeouts" in file or "version" in file:
        return "gymnasium"
    if "discrete_action" in file:
        warn_caller(
            "the file has discrete_action and no version: taken as one of d3rlpy before 1.1, whose rewards "
            'and terminals are delayed by one row, and converted; pass alignment="gymnasium" if they are not'
        )
        return "delayed"
    raise ValueError(
        "the file does not say to which action a reward belongs (neither timeouts nor version): pass "
        'alignment="gymnasium" if rewards[t] is caused by actions[t], or alignment="delayed" if it came with '
        "observations[t]"
    )


def read_episodes(file: Any, alignment: str | None) -> dict[str, Any]:
    """d3rlpy 2.x: one HDF5 dataset for each column and episode, ``terminated_{i}`` one flag."""
    if "observations_0_0" in file:
        raise ValueError("observations are tuples of arrays, which cannot be read: keep one array a row")
    if alignment == "delayed":
        raise ValueError("files of d3rlpy 2.x are not delayed; leave out alignment=")
    count, present = count_episodes(file), set(file)
    missing = next((name for name in episode_names(count) if name not in present), None)
    if missing is not None:
        raise ValueError(f"{missing} is missing, though there is observations_{count - 1}")
    further = present.difference(episode_names(count))
    warn_of_others(file, sorted(name for name in further if NUMBERED.fullmatch(name)))
    parts: dict[str, list[np.ndarray]] = {"observations": [], "actions": [], "rewards": []}
    terminals, ends = [], []
    for i in range(count):
        for name, arrays in parts.items():
            arrays.append(file[f"{name}_{i}"][()])
        last = np.zeros(len(parts["observations"][-1]), np.bool_)
        last[-1:] = True
        ends.append(last)
        terminals.append(last & read_flag(file, f"terminated_{i}"))
    joined: dict[str, Any] = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return {**joined, "terminals": np.concatenate(terminals), "episode_terminals": np.concatenate(ends)}


def count_episodes(file: Any) -> int:
    """One more than the highest number of an ``observations_{i}``."""
    matches = [NUMBERED.fullmatch(name) for name in file]
    return 1 + max((int(m[2]) for m in matches if m and m[1] == "observations"), default=-1)


def episode_names(count: int) -> Iterator[str]:
    """What the arrays of ``count`` episodes are called."""
    return (f"{stem}_{i}" for i in range(count) for stem in EPISODE_STEMS)


def n_entries(item: Any) -> int:
    """Length of an array in a file, 0 for a group or a single value."""
    shape = getattr(item, "shape", None)
    return shape[0] if shape else 0


def read_flag(file: Any, name: str) -> bool:
    """A flag stored as a single value or as an array of one."""
    value = np.asarray(file[name][()])
    if value.size != 1 or value.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be one flag, got {value.dtype} {value.shape}")
    return bool(value.reshape(-1)[0])


def warn_of_others(file: Any, names: list[str]) -> None:
    """Warn of arrays that a data set could have used."""
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        verb = "is" if len(names) == 1 else "are"
        warn_caller(
            f"{file.filename}: {shown} {verb} left out; to use such arrays, read them with h5py and pass them to "
            "MDPDataset, for instance as columns="
        )

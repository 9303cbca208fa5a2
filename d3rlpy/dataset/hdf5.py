"""Data sets in HDF5 files: our own layout, and, to read, those of D4RL and the original d3rlpy (1.x, 2.x).

Own layout: attributes ``format`` and ``version``, one HDF5 dataset for each column under the names that D4RL
uses, named columns in the group ``columns``, known successors in the group ``successors``. Nothing is ever
unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .building import Report, build_delayed_rows, build_rows
from .rows import Rows
from .validation import check_finite, warn_caller

FORMAT, VERSION = "d3rlpy offline rows", 1
COMPRESSIONS = ("gzip", "lzf")
ALIGNMENTS = ("gymnasium", "delayed")
CHUNK_BYTES = 1 << 17  # large enough to compress well, small enough to read a few rows


def dump(rows: Rows, fname: str | os.PathLike[str], action_size: int | None, compression: str | None) -> None:
    """Write ``rows``; ``action_size`` is the one that the user gave, None if it follows from the ids."""
    import h5py

    if compression not in (None, *COMPRESSIONS):
        raise ValueError(f"compression must be None or one of {COMPRESSIONS}, got {compression!r}")
    ends = rows.ends()
    arrays = {
        "observations": rows.observations,
        "actions": rows.actions,
        "rewards": rows.rewards,
        "terminals": rows.terminals,
        "timeouts": ends & ~rows.terminals,
        "successors/rows": rows.successor_rows[1:],
        "successors/observations": rows.successors[1:],
        **{f"columns/{name}": column for name, column in rows.columns.items()},
    }
    path = Path(fname)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file.attrs["discrete_action"] = rows.discrete_action
        if action_size is not None:
            file.attrs["action_size"] = action_size
        for name, array in arrays.items():
            options = {} if compression is None or array.size == 0 else chunk_options(array, compression)
            file.create_dataset(name, data=array, **options)


def chunk_options(array: np.ndarray, compression: str) -> dict[str, Any]:
    """Chunks of whole rows, so that reading rows never unpacks more than it must."""
    rows = max(1, min(len(array), CHUNK_BYTES // array[:1].nbytes))
    options: dict[str, Any] = {
        "chunks": (rows, *array.shape[1:]),
        "compression": compression,
        "shuffle": True,
    }
    return options | ({"compression_opts": 1} if compression == "gzip" else {})


def load(fname: str | os.PathLike[str], alignment: str | None) -> tuple[Rows, Report, int | None]:
    """Rows, report, and the action size if the file fixes one; ``ValueError`` if it is not a data set."""
    import h5py

    if alignment not in (None, *ALIGNMENTS):
        raise ValueError(f"alignment must be one of {ALIGNMENTS}, got {alignment!r}")
    path = Path(fname)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with h5py.File(path, "r") as file:
            own = file.attrs.get("format") == FORMAT
            layout, arrays = read_own(file, alignment) if own else read_foreign(file, alignment)
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is not a readable data set: truncated, damaged or no HDF5 file ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    action_size = arrays.get("action_size")
    try:
        return *layout(**arrays), action_size
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


Layout = Callable[..., tuple[Rows, Report]]


def read_own(file: Any, alignment: str | None) -> tuple[Layout, dict[str, Any]]:
    if alignment == "delayed":
        raise ValueError("this file was written by MDPDataset.dump and is not delayed; leave out alignment=")
    if file.attrs["version"] != VERSION:
        raise ValueError(f"version {file.attrs['version']} of the format; this release reads version {VERSION}")
    arrays = {name: file[name][()] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    rows, successors = file["successors/rows"][()], file["successors/observations"][()]
    ascending = rows.ndim == 1 and rows.dtype == np.int64 and (np.diff(rows) > 0).all()
    inside = len(rows) == 0 or (rows[0] >= 0 and rows[-1] < len(arrays["observations"]))
    like = successors.shape == (len(rows), *arrays["observations"].shape[1:])
    if not (ascending and inside and like and successors.dtype == arrays["observations"].dtype):
        raise ValueError("the stored successors do not fit the rows: the file is damaged")
    check_finite("successors", successors)
    size = file.attrs.get("action_size")
    return build_rows, {
        **arrays,
        "successors": (rows, successors),
        "columns": {name: column[()] for name, column in file.get("columns", {}).items()},
        "discrete_action": bool(file.attrs["discrete_action"]),
        "action_size": None if size is None else int(size),
    }


def read_foreign(file: Any, alignment: str | None) -> tuple[Layout, dict[str, Any]]:
    """Choose by what the file holds; see the table in ``docs/data.md``."""
    if "observations_0" in file or "observations_0_0" in file:
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
    if "discrete_action" in file:
        arrays["discrete_action"] = bool(file["discrete_action"][()])
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
    count = 0
    while f"observations_{count}" in file:
        count += 1
    parts: dict[str, list[np.ndarray]] = {"observations": [], "actions": [], "rewards": []}
    terminals, ends = [], []
    for i in range(count):
        for name, arrays in parts.items():
            arrays.append(file[f"{name}_{i}"][()])
        last = np.zeros(len(parts["observations"][-1]), np.bool_)
        last[-1:] = True
        ends.append(last)
        terminals.append(last & bool(np.ravel(file[f"terminated_{i}"][()])[0]))
    joined: dict[str, Any] = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return {**joined, "terminals": np.concatenate(terminals), "episode_terminals": np.concatenate(ends)}

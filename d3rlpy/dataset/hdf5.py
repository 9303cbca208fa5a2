"""Data sets in HDF5 files: our own layout; those of others are read by ``foreign``.

Own layout: attributes ``format`` and ``version``, one HDF5 dataset for each column under the names that D4RL
uses, named columns in the group ``columns``, known successors in the group ``successors``. Nothing is ever
unpickled. The HDF5 library can crash on a damaged file, so the file starts with a block that HDF5 skips (its
"user block"): ``MAGIC``, the CRC-32 of all that follows the block as 8 hexadecimal digits, and zeros.

The file of a replay buffer is that of a data set of its rows, with further attributes.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .building import Report, build_rows
from .foreign import Layout, read_foreign
from .rows import Rows
from .validation import check_finite

FORMAT, VERSION = "d3rlpy offline rows", 2
MAGIC = b"d3rlpy offline rows, crc32 of the rest: "
HEAD_SIZE = 512  # the smallest that HDF5 allows
COMPRESSIONS = ("gzip", "lzf")
ALIGNMENTS = ("gymnasium", "delayed")
CHUNK_BYTES = 1 << 17  # large enough to compress well, small enough to read a few rows


def dump(
    rows: Rows,
    fname: str | os.PathLike[str],
    action_size: int | None,
    compression: str | None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
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
    with replacing(fname) as temporary:
        image = io.BytesIO()  # HDF5 never touches the disk: it crashes the process where the disk is full
        with h5py.File(image, "w", userblock_size=HEAD_SIZE) as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
            file.attrs["discrete_action"] = rows.discrete_action
            if action_size is not None:
                file.attrs["action_size"] = action_size
            file.attrs.update(attributes or {})
            for name, array in arrays.items():
                options = {} if compression is None or array.size == 0 else chunk_options(array, compression)
                file.create_dataset(name, data=array, **options)
        content = image.getbuffer()
        content[:HEAD_SIZE] = make_head(zlib.crc32(content[HEAD_SIZE:]))
        Path(temporary).write_bytes(content)


def make_head(crc: int) -> bytes:
    """The first ``HEAD_SIZE`` bytes of a file, for the CRC-32 of the bytes after them."""
    return (MAGIC + b"%08x\n" % crc).ljust(HEAD_SIZE, b"\0")


def has_right_checksum(path: Path) -> bool | None:
    """Whether the content is what ``dump`` wrote; None if the file has no head of ours."""
    with path.open("rb", buffering=0) as file:
        head = file.read(HEAD_SIZE)
        if not head.startswith(MAGIC):
            return None
        crc, part = 0, memoryview(bytearray(1 << 20))
        while count := file.readinto(part):
            crc = zlib.crc32(part[:count], crc)
    end = len(MAGIC) + 8
    return head[:end] == make_head(crc)[:end]


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
    if alignment not in (None, *ALIGNMENTS):
        raise ValueError(f"alignment must be one of {ALIGNMENTS}, got {alignment!r}")
    path = existing(fname)
    right = has_right_checksum(path)
    if right is False:
        raise ValueError(
            f"{path} is truncated, damaged or was changed after MDPDataset.dump wrote it: its checksum does not fit"
        )
    with opened(path) as file:
        layout, arrays = read_own(file, alignment) if right else read_others(file, alignment)
    action_size = arrays.get("action_size")
    try:
        return *layout(**arrays), action_size
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_buffer(fname: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the attributes of a file that ``ReplayBuffer.dump`` wrote."""
    path = existing(fname)
    if not has_right_checksum(path):
        raise ValueError(f"{path} is truncated, damaged or was not written by ReplayBuffer.dump")
    with opened(path) as file:
        if "maxlen" not in file.attrs:
            raise ValueError("this is a data set, not a replay buffer: ReplayBuffer(..., dataset=MDPDataset.load(...))")
        return read_own(file, None)[1], dict(file.attrs)


def existing(fname: str | os.PathLike[str]) -> Path:
    path = Path(fname)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The HDF5 file for reading; whatever goes wrong in it is a ``ValueError`` that names ``path``."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} is not a readable data set: truncated, damaged or no HDF5 file ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_others(file: Any, alignment: str | None) -> tuple[Layout, dict[str, Any]]:
    """Read a file without a head of ours."""
    if isinstance(name := file.attrs.get("format"), str) and name == FORMAT:
        raise ValueError(
            f"truncated, damaged or changed: written by MDPDataset.dump, but without its first {HEAD_SIZE} bytes: "
            "copy the whole file again"
        )
    return read_foreign(file, alignment)


def read_own(file: Any, alignment: str | None) -> tuple[Layout, dict[str, Any]]:
    if alignment == "delayed":
        raise ValueError("this file was written by MDPDataset.dump and is not delayed; leave out alignment=")
    if not np.array_equal(file.attrs["version"], VERSION):
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

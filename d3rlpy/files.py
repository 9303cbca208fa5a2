"""Writing files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(fname: str | os.PathLike[str]) -> Iterator[str]:
    """Give the path of a temporary file beside ``fname``, which becomes ``fname`` if the block succeeds.

    A link stays a link: what it leads to is replaced. ``OSError`` where no ordinary file can be.
    """
    target = Path(os.path.realpath(fname))
    check_writable(fname, target)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    os.close(handle)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp gives 0600
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def check_writable(fname: str | os.PathLike[str], target: Path) -> None:
    """Refuse, by the name that the user gave, what ``target`` cannot be."""
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {os.fspath(fname)}: there is no folder {target.parent}")
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {os.fspath(fname)}: it is a folder")
    if os.path.lexists(target) and not target.is_file():
        raise OSError(f"cannot write {os.fspath(fname)}: it is not an ordinary file")

"""Writing files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(fname: str | os.PathLike[str]) -> Iterator[str]:
    """Give the path of a temporary file beside ``fname``, which becomes ``fname`` if the block succeeds."""
    target = Path(fname)
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

"""The driver's end of a worker: start it, ask it, close it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Library:
    """What a worker runs.

    Attributes
    ----------
    name : release of a peer, or a name for this library with these settings.
    adapter : module that knows its interface.
    python : interpreter that has the library.
    peer : release that it must be, empty for this library.
    worker : module that the process runs.
    """

    name: str
    adapter: str = "version_1"
    python: str = sys.executable
    peer: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    core: int | None = None
    worker: str = "worker"


class WorkerError(RuntimeError):
    """A worker ended or imported the wrong library; the message holds the end of what it printed."""


class WorkerProcess:
    """A running worker, for use in ``with``."""

    def __init__(self, library: Library):
        self.library = library
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in __exit__
        threads = str(library.threads)
        settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"}
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "D3RLPY_BACKEND")}
        if library.peer:
            env.pop("PYTHONPATH", None)  # or this library would be measured as its own peer
        command = [library.python, "-m", f"peers.{library.worker}", library.adapter, "--threads", threads]
        if library.core is not None:
            command += ["--core", str(library.core)]
        self._process = subprocess.Popen(
            command,
            cwd=HERE.parent,
            env=env | settings | library.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: reading says so
        answer = process.stdout.readline()
        if not answer:
            raise WorkerError(f"the worker of {self.library.name} ended at {do} {arguments}:\n{self._printed()}")
        return json.loads(answer)

    def hello(self) -> dict[str, Any]:
        """Versions of what it imported, checked to be the release it should be."""
        found = self.ask("hello")
        folder = Path(found.pop("folder"))
        inside = Path(self.library.python).absolute().parents[1] in folder.parents
        if self.library.peer and not (inside and found["version"] == self.library.peer):
            raise WorkerError(
                f"the worker of {self.library.name} imported {found['version']} from {folder}: "
                "remove its folder under .venv-peers and run again"
            )
        return found

    def _printed(self) -> str:
        self._process.wait()
        self._log.seek(0)
        return "".join(self._log.readlines()[-25:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # it ended already
                    stream.close()  # the end of its input ends a worker
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

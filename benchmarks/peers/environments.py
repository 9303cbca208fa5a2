"""Virtual environments that hold one release of the original library each; the project's own never does.

All releases have the import name ``d3rlpy``, so each lives in ``.venv-peers/<release>`` under the repository root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-peers"
TORCH = ["torch==2.13.0"]

# Arguments of the calls of pip, one after the other. torch is first and alone, so that what follows finds it.
STEPS: dict[str, list[list[str]]] = {
    "1.1.1": [
        TORCH,
        ["numpy<2", "setuptools<70", "wheel", "Cython<3"],
        ["gym==0.26.2", "scikit-learn", "tensorboardX", "h5py", "click"],
        ["typing-extensions", "scipy", "structlog", "colorama", "tqdm"],
        ["d3rlpy==1.1.1", "--no-deps", "--no-build-isolation"],
    ],
    "2.8.1": [TORCH, ["d3rlpy==2.8.1"]],
}


class InstallError(RuntimeError):
    """A peer's environment can't be built; the message says what pip said."""


def environment_of(release: str, python: str = sys.executable) -> Path:
    """The interpreter of a release's environment, which is built unless it is complete.

    Parameters
    ----------
    release : "1.1.1" or "2.8.1".
    python : interpreter that the environment is made from; release 1.1.1, which is compiled here, needs 3.11 or 3.12.

    Raises
    ------
    InstallError : no interpreter, no network or no compiler.
    """
    folder = FOLDER / release
    interpreter, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(" ".join(step) for step in STEPS[release]) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted and interpreter.exists():
        return interpreter
    print(f"building {folder.relative_to(ROOT)}, once", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _call(release, [python, "-m", "venv", str(folder)])
    for step in STEPS[release]:
        _call(release, [str(interpreter), "-m", "pip", "install", "--quiet", *step])
    stamp.write_text(wanted)
    return interpreter


def _call(release: str, command: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    except OSError as error:
        raise InstallError(f"{command[0]} can't be started ({error}): give another with --peer-python") from error
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise InstallError(
            f"the environment of release {release} can't be built.\n{' '.join(command)}\n{said}\n"
            "Release 1.1.1 needs Python 3.11 or 3.12 (--peer-python names the interpreter) and a C++ compiler, both "
            "need a package index. --no-peers compares without them."
        )

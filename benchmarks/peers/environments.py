"""Virtual environments that hold one peer each; the project's own never does.

A peer is a release of the original library, all of which have the import name ``d3rlpy``, or stable-baselines3. Each
lives in a folder of its own in ``.venv-peers`` under the repository root.
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
RELEASES = ("1.1.1", "2.8.1")  # of the original library
SB3, SB3_VERSION = "stable-baselines3", "2.9.2"

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
    SB3: [TORCH, [f"{SB3}=={SB3_VERSION}", "--constraint", str(ROOT / "constraints.txt")]],  # our numpy and gymnasium
}


class InstallError(RuntimeError):
    """A peer's environment can't be built; the message says what pip said."""


def environment_of(peer: str, python: str = sys.executable) -> Path:
    """The interpreter of a peer's environment, which is built unless it is complete.

    Parameters
    ----------
    peer : "1.1.1", "2.8.1" or "stable-baselines3".
    python : interpreter that the environment is made from; release 1.1.1, which is compiled here, needs 3.11 or 3.12.

    Raises
    ------
    InstallError : no interpreter, no network or no compiler.
    """
    folder = FOLDER / peer
    interpreter, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(" ".join(step) for step in STEPS[peer]) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted and interpreter.exists():
        return interpreter
    print(f"building {folder.relative_to(ROOT)}, once", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _call(peer, [python, "-m", "venv", str(folder)])
    for step in STEPS[peer]:
        _call(peer, [str(interpreter), "-m", "pip", "install", "--quiet", *step])
    stamp.write_text(wanted)
    return interpreter


def _call(peer: str, command: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    except OSError as error:
        raise InstallError(f"{command[0]} can't be started ({error}): give another with --peer-python") from error
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise InstallError(
            f"the environment of {peer} can't be built.\n{' '.join(command)}\n{said}\n"
            "Release 1.1.1 needs Python 3.11 or 3.12 (--peer-python names the interpreter) and a C++ compiler, all "
            "need a package index. compare.py --no-peers and online_speed.py --cases RLPD do without them."
        )

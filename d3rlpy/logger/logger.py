"""One folder a run: ``params.json``, a CSV file a metric, ``model_{step}.pt``; TensorBoard on request."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ..files import replacing


class Logger:
    """Where the results of a run go.

    Parameters
    ----------
    experiment_name : name of the run's folder.
    logdir : folder that holds the folders of runs.
    with_timestamp : append the time to the name, and a number if that is taken too.
    save_metrics : False writes nothing to disk.
    tensorboard_dir : folder of TensorBoard's files; None for none.
    verbose : print the metrics of each epoch.

    Raises
    ------
    OSError : the folder can't be made or written; raised before training starts.
    FileExistsError : the folder exists and ``with_timestamp`` is False.
    """

    def __init__(
        self,
        experiment_name: str,
        *,
        logdir: str | os.PathLike[str] = "d3rlpy_logs",
        with_timestamp: bool = True,
        save_metrics: bool = True,
        tensorboard_dir: str | os.PathLike[str] | None = None,
        verbose: bool = True,
    ):
        if Path(experiment_name).name != experiment_name:
            raise ValueError(
                f"experiment_name={experiment_name!r} must be the plain name of a folder; logdir says where"
            )
        self.verbose = verbose
        self.logdir: Path | None = None
        self.last_model: Path | None = None
        self._board: Any = None
        if save_metrics:
            self.logdir = _make_folder(Path(logdir), experiment_name, with_timestamp)
            experiment_name = self.logdir.name
        if tensorboard_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(Path(tensorboard_dir) / experiment_name))

    def save_params(self, params: dict[str, Any]) -> None:
        """Write ``params.json``."""
        if self.logdir is not None:
            with replacing(self.logdir / "params.json") as path:
                Path(path).write_text(json.dumps(params, indent=2) + "\n")

    def commit(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """Append a line ``epoch,step,value`` to the file of each metric, and print them."""
        for name, value in metrics.items():
            if self.logdir is not None:
                with open(self.logdir / f"{name}.csv", "a") as file:
                    file.write(f"{epoch},{step},{value}\n")
            if self._board is not None:
                self._board.add_scalar(f"metrics/{name}", value, step)
        if self.verbose:
            shown = " ".join(f"{k}={v:.6g}" for k, v in metrics.items() if not k.startswith("time_"))
            print(f"epoch={epoch} step={step} {shown}", flush=True)

    def save_model(self, step: int, save: Callable[[Path], None]) -> None:
        """Let ``save`` write ``model_{step}.pt``."""
        if self.logdir is not None:
            save(self.logdir / f"model_{step}.pt")
            self.last_model = self.logdir / f"model_{step}.pt"

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._board is not None:
            self._board.close()


def check_free(folder: Path) -> None:
    """Raise ``FileExistsError`` for a folder that exists."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists: choose another experiment_name or logdir, or pass with_timestamp=True")


def _make_folder(root: Path, name: str, with_timestamp: bool) -> Path:
    """A new folder ``root/name[_time[_number]]``."""
    wanted = f"{name}_{datetime.now():%Y%m%d%H%M%S}" if with_timestamp else name
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"logdir={str(root)!r} can't be made ({error}): choose another, or pass save_metrics=False"
        ) from error
    for attempt in range(10_000 if with_timestamp else 1):
        folder = root / (f"{wanted}_{attempt}" if attempt else wanted)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(
                f"logdir={str(root)!r} can't be written ({error}): choose another, or pass save_metrics=False"
            ) from error
        return folder
    check_free(root / wanted)
    raise FileExistsError(f"{root} holds too many folders of this name")

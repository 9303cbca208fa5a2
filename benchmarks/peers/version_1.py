"""How a case is trained through the public interface of version 1, which this library shares with release 1.1.1."""

from __future__ import annotations

from typing import Any

from d3rlpy import algos
from d3rlpy.dataset import MDPDataset
from d3rlpy.models.q_functions import QRQFunctionFactory

from .cases import N_FRAMES, Arrays, Case


def has(case: Case) -> bool:
    return hasattr(algos, case.algorithm)


def make_dataset(arrays: Arrays, case: Case) -> Any:
    return MDPDataset(*arrays)


def make_algorithm(case: Case) -> Any:
    options: dict[str, Any] = {"batch_size": case.batch_size, "scaler": None}
    if case.kind == "pixels":
        options |= {"scaler": "pixel", "n_frames": N_FRAMES}
    if case.n_quantiles:
        options["q_func_factory"] = QRQFunctionFactory(n_quantiles=case.n_quantiles)
    return getattr(algos, case.algorithm)(**options)


def fit(algo: Any, dataset: Any, n_updates: int, callback: Any, folder: str) -> None:
    algo.fit(
        dataset,
        n_steps=n_updates,
        n_steps_per_epoch=n_updates,
        logdir=folder,
        verbose=False,
        show_progress=False,
        callback=callback,
    )

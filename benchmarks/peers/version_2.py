"""How a case is trained through the public interface of version 2; the same functions as in ``version_1``."""

from __future__ import annotations

from typing import Any

from d3rlpy.logging import FileAdapterFactory

from d3rlpy import algos
from d3rlpy.dataset import FrameStackTransitionPicker, MDPDataset
from d3rlpy.models import QRQFunctionFactory
from d3rlpy.preprocessing import PixelObservationScaler

from .cases import N_FRAMES, Arrays, Case


def has(case: Case) -> bool:
    return hasattr(algos, f"{case.algorithm}Config")


def make_dataset(arrays: Arrays, case: Case) -> Any:
    picker = FrameStackTransitionPicker(N_FRAMES) if case.kind == "pixels" else None
    return MDPDataset(*arrays, transition_picker=picker)


def make_algorithm(case: Case) -> Any:
    options: dict[str, Any] = {"batch_size": case.batch_size}
    if case.kind == "pixels":
        options["observation_scaler"] = PixelObservationScaler()
    if case.n_quantiles:
        options["q_func_factory"] = QRQFunctionFactory(n_quantiles=case.n_quantiles)
    return getattr(algos, f"{case.algorithm}Config")(**options).create()


def fit(algo: Any, dataset: Any, n_updates: int, callback: Any, folder: str) -> None:
    algo.fit(
        dataset,
        n_steps=n_updates,
        n_steps_per_epoch=n_updates,
        logger_adapter=FileAdapterFactory(root_dir=folder),
        show_progress=False,
        callback=callback,
    )

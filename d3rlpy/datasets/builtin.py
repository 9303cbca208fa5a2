"""The built-in data sets: small HDF5 files inside the package, and the environments they were logged in.

Nothing is downloaded. ``scripts/make_builtin_data.py`` made the files and says how.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..dataset import MDPDataset
from ..registry import nearest

TYPES = ("replay", "random")
TASKS = ("cartpole", "pendulum")


def get_cartpole(dataset_type: str = "replay") -> tuple[MDPDataset, Any]:
    """CartPole: keep a pole upright; one point a step, at most 200 steps. Observations (4,), two actions.

    The task is that of CartPole-v0. Episodes end in ``terminals`` when the pole falls and in ``timeouts``
    after 200 steps, where the successor of the last row is stored.

    Parameters
    ----------
    dataset_type : ``"replay"``: everything a small DQN did while it learned, from random to perfect episodes.
        ``"random"``: uniformly random actions.

    Returns
    -------
    The data set and a new gymnasium environment.

    Raises
    ------
    ValueError
        For another ``dataset_type``.
    """
    dataset = _load("cartpole", dataset_type)
    import gymnasium

    return dataset, gymnasium.make("CartPole-v1", max_episode_steps=200)


def get_pendulum(dataset_type: str = "replay") -> tuple[MDPDataset, Any]:
    """Pendulum: swing up and hold. Observations (3,), one action in [-2, 2], rewards of about -16 to 0.

    Every episode is a timeout after 200 steps, and the successor of its last row is stored.

    Parameters
    ----------
    dataset_type : ``"replay"``: everything a small TD3 did while it learned: random at first, then its
        pendulum was knocked over less and less often. ``"random"``: uniformly random actions.

    Returns
    -------
    The data set and a new gymnasium environment.

    Raises
    ------
    ValueError
        For another ``dataset_type``.
    """
    dataset = _load("pendulum", dataset_type)
    import gymnasium

    return dataset, gymnasium.make("Pendulum-v1")


def get_dataset(name: str) -> tuple[MDPDataset, Any]:
    """Data set and environment by name.

    Parameters
    ----------
    name : ``"cartpole-replay"``, ``"cartpole-random"``, ``"pendulum-replay"`` or ``"pendulum-random"``; the
        bare ``"cartpole"`` and ``"pendulum"`` are the replays.

    Raises
    ------
    ValueError
        For an unknown name; the message gives the nearest one.
    """
    known = [f"{task}-{kind}" for task in TASKS for kind in TYPES]
    full_name = f"{name}-replay" if name in TASKS else name
    if full_name not in known:
        raise ValueError(f"no built-in data set is called {name!r}; known are {known}.{nearest(str(name), known)}")
    task, kind = full_name.split("-")
    return get_cartpole(kind) if task == "cartpole" else get_pendulum(kind)


def _load(task: str, dataset_type: str) -> MDPDataset:
    if dataset_type not in TYPES:
        raise ValueError(f"dataset_type must be one of {list(TYPES)}, got {dataset_type!r}")
    return MDPDataset.load(str(Path(__file__).parent / f"{task}_{dataset_type}.h5"))

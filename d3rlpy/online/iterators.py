"""``train`` of the 2020 documentation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..hyperparameters import warn_old_name
from .loop import OLD_EPOCHS, OLD_STEPS_PER_EPOCH, OLD_UPDATES_PER_EPOCH, fit_online

if TYPE_CHECKING:
    from ..base import Algo
    from .buffers import ReplayBuffer


def train(
    env: Any,
    algo: Algo,
    buffer: ReplayBuffer | None = None,
    explorer: Any = None,
    n_epochs: int = OLD_EPOCHS,
    n_steps_per_epoch: int = OLD_STEPS_PER_EPOCH,
    n_updates_per_epoch: int = OLD_UPDATES_PER_EPOCH,
    update_start_step: int = 0,
    eval_env: Any = None,
    eval_epsilon: float = 0.05,
    eval_interval: int = 1,
    save_metrics: bool = True,
    experiment_name: str | None = None,
    with_timestamp: bool = True,
    logdir: str | os.PathLike[str] = "d3rlpy_logs",
    verbose: bool = True,
    show_progress: bool = True,
    tensorboard: bool = False,
    save_interval: int = 1,
) -> None:
    """``algo.fit_online`` with the arguments of 2020: epochs of steps, each of which ends with a round of updates.

    Warns that ``fit_online`` is what to write. TensorBoard files were written by default then, now on request.
    """
    warn_old_name("d3rlpy.online.iterators.train", "write algo.fit_online(env, buffer, explorer, ...)")
    if not algo.learns_from_rewards:
        _ = algo.fit_online  # its error says why there is none
    fit_online(
        algo,
        env,
        buffer,
        explorer,
        n_steps=n_epochs * n_steps_per_epoch,
        n_steps_per_epoch=n_steps_per_epoch,
        update_interval=n_steps_per_epoch,
        n_updates=n_updates_per_epoch,
        update_start_step=update_start_step,
        eval_env=eval_env,
        eval_epsilon=0.0 if eval_env is None else eval_epsilon,
        eval_interval=eval_interval,
        save_metrics=save_metrics,
        experiment_name=experiment_name,
        with_timestamp=with_timestamp,
        logdir=logdir,
        verbose=verbose,
        show_progress=show_progress,
        tensorboard_dir="runs" if tensorboard else None,
        save_interval=save_interval,
    )

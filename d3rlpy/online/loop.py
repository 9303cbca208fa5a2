"""Online training: act, store, learn; and its two relatives, collecting without learning and vectors of environments.

::

    for each step t = 1 ... n_steps:
        a = random          if t <= random_steps
            explorer(s, t)  if there is one, else a ~ pi(s)
        execute a, store the row
        if t > update_start_step and t % update_interval == 0 and the buffer holds a batch:
            n_updates updates
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import rows_of
from ..dataset.validation import warn_caller
from ..envs import EnvAdapter
from ..hyperparameters import warn_old_name
from ..logger import Logger
from ..metrics.checks import check_environment
from ..metrics.rollout import EnvironmentScorer
from ..training.checks import check_settings
from ..training.loop import Data
from ..training.run import Callback, at_least_one, callback_list, whole_number
from .acting import Actor, build_for, warn_about_exploration
from .checks import check_buffer, check_flag
from .mixing import offline_share
from .rollout import Rollout, VectorRollout, is_vector, single_env
from .run import OfflineData, OnlineRun, Schedule

if TYPE_CHECKING:
    from ..base import Algo
    from .buffers import ReplayBuffer

MOST_ROWS = 1_000_000
STEPS, STEPS_PER_EPOCH = 1_000_000, 10_000
OLD_EPOCHS, OLD_STEPS_PER_EPOCH, OLD_UPDATES_PER_EPOCH = 1000, 4000, 100  # of the 2020 documentation


def fit_online(
    algo: Algo,
    env: Any,
    buffer: ReplayBuffer | None = None,
    explorer: Any = None,
    *,
    n_steps: int | None = None,
    n_steps_per_epoch: int | None = None,
    update_interval: int = 1,
    n_updates: int | None = None,
    update_start_step: int = 0,
    random_steps: int = 0,
    eval_env: Any = None,
    eval_epsilon: float = 0.0,
    eval_interval: int = 1,
    save_metrics: bool = True,
    save_interval: int = 1,
    experiment_name: str | None = None,
    with_timestamp: bool = True,
    logdir: str | os.PathLike[str] = "d3rlpy_logs",
    verbose: bool = True,
    show_progress: bool = True,
    tensorboard_dir: str | os.PathLike[str] | None = None,
    timelimit_aware: bool = True,
    callback: Callback | Sequence[Callback] | None = None,
    offline_dataset: Data | None = None,
    offline_ratio: float = 0.5,
    resume: dict[str, Any] | None = None,
    n_epochs: int | None = None,
    n_updates_per_epoch: int | None = None,
    tensorboard: bool | None = None,
) -> None:
    """Train while acting.

    Parameters
    ----------
    env : environment of gymnasium, of gym 0.26 or of the older API with four values.
    buffer : where the steps go; by default a ``ReplayBuffer`` with room for all of them, 1,000,000 rows at most, which
        is gone with the call. What it holds already is used too.
    explorer : how actions are chosen, from ``d3rlpy.online.explorers``; None draws them from the policy, which is no
        exploration if the policy is deterministic.
    n_steps : steps in the environment, 1,000,000 by default (the constructor's ``n_steps`` is the TD horizon).
    n_steps_per_epoch : steps between two evaluations, log lines and checkpoints, 10,000 by default; the last epoch may
        be shorter.
    update_interval : steps between two rounds of updates: step t has one if ``t % update_interval == 0``.
    n_updates : updates in a round; None is what the algorithm itself says, ``n_gradient_steps`` of RLPD and else 1.
    update_start_step : steps before the first round. Until the buffer holds a batch there is none either.
    random_steps : steps at the start in which actions are uniform.
    eval_env : another environment whose episodes end, for the metric ``evaluation``: the mean return of 10 of them.
    eval_epsilon : probability of a random action in evaluations, which are greedy otherwise.
    eval_interval : epochs between two evaluations; the last epoch always has one.
    save_metrics : False writes nothing to disk.
    save_interval : epochs between two checkpoints ``model_{step}.pt``; the last epoch always leaves one.
    experiment_name : name of the log folder; the class name and ``_online`` by default.
    with_timestamp : append the time to that name.
    logdir : folder of the log folders.
    verbose : print metrics after each epoch.
    show_progress : show a progress bar.
    tensorboard_dir : also write TensorBoard files there.
    timelimit_aware : whether values go on where a time limit ends an episode; False treats that as the end.
    callback : called as ``callback(algo, epoch, total_step)`` after each step; one or a list.
    offline_dataset : data that a share of each mini-batch is drawn from, with replacement.
    offline_ratio : that share, within [0, 1].
    resume : ``online_state_`` of an interrupted run, which goes on: see ``docs/online.md``.
    n_epochs : name of the 2020 documentation; write ``n_steps = n_epochs * n_steps_per_epoch``.
    n_updates_per_epoch : likewise; write ``update_interval=n_steps_per_epoch`` and ``n_updates``.
    tensorboard : likewise; write ``tensorboard_dir="runs"``.
    """
    owner = "fit_online"
    check_settings(algo)
    if is_vector(env):
        raise ValueError(f"{type(env).__name__} holds several environments: call fit_batch_online")
    if n_epochs is not None or n_updates_per_epoch is not None:
        if (update_interval, n_updates) != (1, None):
            raise ValueError("n_epochs and n_updates_per_epoch set update_interval and n_updates too: leave these out")
        n_steps, n_steps_per_epoch, n_updates = epochs_of_2020(
            n_epochs, n_updates_per_epoch, n_steps, n_steps_per_epoch
        )
        update_interval = n_steps_per_epoch
    if tensorboard is not None:
        warn_old_name("tensorboard", "write tensorboard_dir='runs', or nothing for no TensorBoard files")
        tensorboard_dir = "runs" if tensorboard and tensorboard_dir is None else tensorboard_dir
    schedule = Schedule(
        at_least_one("n_steps", STEPS if n_steps is None else n_steps, owner),
        at_least_one("n_steps_per_epoch", STEPS_PER_EPOCH if n_steps_per_epoch is None else n_steps_per_epoch, owner),
        at_least_one("update_interval", update_interval, owner),
        at_least_one("n_updates", algo.updates_per_step if n_updates is None else n_updates, owner),
        whole_number("update_start_step", update_start_step, 0, owner),
        whole_number("random_steps", random_steps, 0, owner),
    )
    evaluation = Evaluation(eval_env, eval_epsilon, eval_interval)
    run = new_run(
        algo, env, buffer, explorer, schedule, timelimit_aware, (offline_dataset, offline_ratio), callback,
        evaluation, save_interval, show_progress, resume,
    )  # fmt: skip
    new_logger = partial(
        Logger,
        experiment_name or f"{type(algo).__name__}_online",
        logdir=logdir,
        with_timestamp=with_timestamp,
        save_metrics=save_metrics,
        tensorboard_dir=tensorboard_dir,
        verbose=verbose,
    )
    run_epochs(run, new_logger)


def epochs_of_2020(
    n_epochs: int | None, n_updates: int | None, n_steps: int | None, per_epoch: int | None
) -> tuple[int, int, int]:
    """``n_steps``, ``n_steps_per_epoch`` and ``n_updates`` for epochs that end with a round of updates."""
    per_epoch = OLD_STEPS_PER_EPOCH if per_epoch is None else at_least_one("n_steps_per_epoch", per_epoch, "fit_online")
    n_updates = OLD_UPDATES_PER_EPOCH if n_updates is None else n_updates
    if n_steps is None:
        n_steps = per_epoch * at_least_one("n_epochs", OLD_EPOCHS if n_epochs is None else n_epochs, "fit_online")
    elif n_epochs is not None:
        raise ValueError(f"n_epochs={n_epochs} and n_steps={n_steps} both set the length of training: give one")
    warn_old_name(
        "n_epochs" if n_epochs is not None else "n_updates_per_epoch",
        f"write n_steps={n_steps}, n_steps_per_epoch={per_epoch}, update_interval={per_epoch}, n_updates={n_updates}",
    )
    return n_steps, per_epoch, n_updates


def fit_batch_online(
    algo: Algo,
    env: Any,
    buffer: ReplayBuffer | None = None,
    explorer: Any = None,
    *,
    n_epochs: int = 1000,
    n_steps_per_epoch: int = 1000,
    n_updates_per_epoch: int = 1000,
    update_start_step: int = 0,
    random_steps: int = 0,
    eval_env: Any = None,
    eval_epsilon: float = 0.0,
    eval_interval: int = 10,
    save_metrics: bool = True,
    save_interval: int = 1,
    experiment_name: str | None = None,
    with_timestamp: bool = True,
    logdir: str | os.PathLike[str] = "d3rlpy_logs",
    verbose: bool = True,
    show_progress: bool = True,
    tensorboard_dir: str | os.PathLike[str] | None = None,
    timelimit_aware: bool = True,
    callback: Callback | Sequence[Callback] | None = None,
    offline_dataset: Data | None = None,
    offline_ratio: float = 0.5,
) -> None:
    """Train while acting in several environments at once, in epochs of steps and then updates.

    Parameters
    ----------
    env : ``SyncVectorEnv`` or ``AsyncVectorEnv`` of gymnasium, whatever its autoreset mode. A step of this method moves
        all its environments.
    buffer : where the steps go, episode by episode; by default a ``ReplayBuffer`` with room for those of all
        environments, 1,000,000 rows at most, which is gone with the call.
    explorer : how actions are chosen, from ``d3rlpy.online.explorers``; None draws them from the policy.
    n_epochs : number of epochs.
    n_steps_per_epoch : steps in an epoch.
    n_updates_per_epoch : updates at the end of an epoch.
    update_start_step : steps before the first updates. Until the buffer holds a batch there are none either.
    random_steps : steps at the start in which actions are uniform.
    eval_env : an environment, no vector, for the metric ``evaluation``: the mean return of 10 episodes.
    eval_epsilon : probability of a random action in evaluations, which are greedy otherwise.
    eval_interval : epochs between two evaluations; the last epoch always has one.
    save_metrics, save_interval, experiment_name, with_timestamp, logdir, verbose, show_progress, tensorboard_dir : as
        in ``fit_online``.
    timelimit_aware : whether values go on where a time limit ends an episode; False treats that as the end.
    callback : called as ``callback(algo, epoch, total_step)`` after each step; one or a list.
    offline_dataset : data that a share of each mini-batch is drawn from, with replacement.
    offline_ratio : that share, within [0, 1].
    """
    owner = "fit_batch_online"
    check_settings(algo)
    if not is_vector(env):
        raise ValueError(
            f"{type(env).__name__} is one environment: call fit_online, or pass gymnasium's SyncVectorEnv or "
            "AsyncVectorEnv"
        )
    per_epoch = at_least_one("n_steps_per_epoch", n_steps_per_epoch, owner)
    schedule = Schedule(
        per_epoch * at_least_one("n_epochs", n_epochs, owner),
        per_epoch,
        update_interval=per_epoch,
        n_updates=at_least_one("n_updates_per_epoch", n_updates_per_epoch, owner),
        update_start_step=whole_number("update_start_step", update_start_step, 0, owner),
        random_steps=whole_number("random_steps", random_steps, 0, owner),
    )
    evaluation = Evaluation(eval_env, eval_epsilon, eval_interval)
    run = new_run(
        algo, env, buffer, explorer, schedule, timelimit_aware, (offline_dataset, offline_ratio), callback,
        evaluation, save_interval, show_progress, None,
    )  # fmt: skip
    new_logger = partial(
        Logger,
        experiment_name or f"{type(algo).__name__}_online",
        logdir=logdir,
        with_timestamp=with_timestamp,
        save_metrics=save_metrics,
        tensorboard_dir=tensorboard_dir,
        verbose=verbose,
    )
    run_epochs(run, new_logger)


@dataclass(frozen=True)
class Evaluation:
    """What evaluations need."""

    env: Any
    epsilon: float
    interval: int

    def scorers(self, algo: Algo, env: Any, single: EnvAdapter, seed: int) -> dict[str, Any]:
        """The scorer ``evaluation``, which begins its episodes from the same seeds each time, if it can."""
        if self.env is None:
            if self.epsilon != 0.0:
                raise ValueError(f"eval_epsilon={self.epsilon!r} needs eval_env")
            return {}
        if is_vector(self.env):
            raise ValueError(f"eval_env is a {type(self.env).__name__}: pass a single environment")
        try:
            adapter = EnvAdapter(self.env)
            check_environment(algo, adapter)
        except (TypeError, ValueError) as error:
            raise type(error)(f"eval_env={self.env!r} can't be used: {error}") from error
        if any(bare(part) is bare(adapter.env) for part in (single.env, env, *(getattr(env, "envs", None) or ()))):
            raise ValueError("eval_env is env: evaluations would break its episodes, pass another environment")
        if not single.discrete and ranges(adapter) != ranges(single):
            raise ValueError(f"eval_env takes actions in {ranges(adapter)}, env in {ranges(single)}: make them alike")
        scorer = EnvironmentScorer(adapter, 10, self.epsilon, False, seed if adapter.takes_seed else None)
        return {"evaluation": scorer}


def bare(env: Any) -> Any:
    """What all wrappers wrap."""
    env = env.env if isinstance(env, EnvAdapter) else env
    return getattr(env, "unwrapped", env)


def ranges(env: EnvAdapter) -> tuple[list[float], list[float]]:
    """Bounds of the actions."""
    return env.action_low.tolist(), env.action_high.tolist()


def eval_seed_of(state: Any) -> int:
    """The seed of evaluations of the run that is to be resumed."""
    if not isinstance(state, dict) or not {"steps", "circumstances", "eval_seed"} <= state.keys():
        given = f"a dictionary of {sorted(map(str, state))}" if isinstance(state, dict) else repr(state)
        raise ValueError(f"resume is {given}, it must be the online_state_ of a fit_online that was interrupted")
    return int(state["eval_seed"])


def new_run(
    algo: Algo,
    env: Any,
    buffer: ReplayBuffer | None,
    explorer: Any,
    schedule: Schedule,
    timelimit_aware: bool,
    offline: tuple[Data | None, float],
    callback: Callback | Sequence[Callback] | None,
    evaluation: Evaluation,
    save_interval: int,
    show_progress: bool,
    resume: dict[str, Any] | None,
) -> OnlineRun:
    """A run at its start, or where it was interrupted; whatever can be wrong is said here."""
    callbacks = callback_list(callback)
    vector = is_vector(env)
    single = single_env(env) if vector else EnvAdapter(env)
    build_for(algo, single)
    offline_data = new_offline_data(algo, *offline)
    check_flag("timelimit_aware", timelimit_aware, "fit_batch_online" if vector else "fit_online")
    if buffer is None:
        from .buffers import ReplayBuffer

        rows = schedule.n_steps * (int(env.num_envs) if vector else 1)
        buffer = ReplayBuffer(max(min(MOST_ROWS, rows), algo.batch_size), env=single.env, seed=0)
    else:
        check_buffer(buffer, algo, single)
    rollout = (VectorRollout if vector else Rollout)(env if vector else single, buffer, algo.n_frames, timelimit_aware)
    actor = Actor(algo, explorer, rollout.bounds, schedule.random_steps)
    seeds = [0, 0] if resume is not None else algo.stream_.numpy.integers(2**31, size=2).tolist()
    if resume is not None:
        seeds[1] = eval_seed_of(resume)
    scorers = evaluation.scorers(algo, env, single, seeds[1])
    run = OnlineRun(algo, scorers, None, save_interval, show_progress, evaluation.interval)
    run.use(rollout, buffer, actor, schedule, offline_data, callbacks, seeds[1])
    check_room(run)
    warn_about_exploration(algo, explorer, schedule.random_steps, schedule.n_steps)
    if resume is not None:
        run.resume(resume)
    else:
        run.start(seeds[0])
    return run


def run_epochs(run: OnlineRun, new_logger: Any) -> None:
    """All epochs; buffer and algorithm are left in order however they end."""
    first, lengths = run.schedule.epochs_from(run.steps_done)
    updates_before = run.algo.grad_step_
    try:
        for _ in run.epochs(lengths, new_logger, first):
            pass
    finally:
        run.finish()
    if run.algo.grad_step_ == updates_before:
        warn_caller(
            f"no update was made in {run.schedule.n_steps} steps: they begin after update_start_step="
            f"{run.schedule.update_start_step}, once the buffer holds {run.shares()[1]} transitions (at the end "
            f"{len(run.buffer)}), and come every {run.schedule.update_interval} steps"
        )


def new_offline_data(algo: Algo, dataset: Data | None, ratio: float) -> OfflineData | None:
    """The offline share of mini-batches; scalers that aren't fitted yet are fitted with it."""
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float, np.number)) or not 0.0 <= ratio <= 1.0:
        raise ValueError(f"offline_ratio={ratio!r} must be a number within [0, 1]")
    if dataset is None:
        if ratio != 0.5:
            raise ValueError(f"offline_ratio={ratio!r} needs offline_dataset")
        return None
    size = algo.batch_size
    if 0 < ratio < 1 and offline_share(size, ratio) in (0, size):
        warn_caller(
            f"offline_ratio={ratio} of batch_size={size} is rounded to {offline_share(size, ratio)} transitions"
        )
    rows, indices = rows_of(dataset)
    algo.build_with_rows(rows, indices)
    return OfflineData(rows, indices, float(ratio))


def check_room(run: OnlineRun) -> None:
    """Raise ``ValueError`` for a buffer that can never hold a batch."""
    needed, room = run.shares()[1], run.buffer.maxlen
    if room < needed:
        raise ValueError(
            f"the buffer's maxlen={room} is less than the {needed} transitions that a batch takes from it: make it "
            f"larger, or lower batch_size={run.algo.batch_size}"
        )

"""Collecting: acting without learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..envs import EnvAdapter
from ..hyperparameters import check_hyperparameters
from ..training.run import at_least_one, progress_bar
from .acting import Actor, build_for
from .checks import check_buffer, check_flag
from .rollout import Rollout, VectorRollout, is_vector, single_env

if TYPE_CHECKING:
    from ..base import Algo
    from .buffers import ReplayBuffer


@dataclass(frozen=True)
class Collected:
    """What was collected.

    Attributes
    ----------
    n_steps : steps made.
    returns : undiscounted returns of the episodes that ended, in order.
    """

    n_steps: int
    returns: tuple[float, ...]

    @property
    def n_episodes(self) -> int:
        """Episodes that ended."""
        return len(self.returns)

    @property
    def mean(self) -> float:
        """Mean return, NaN if no episode ended; so are ``std``, ``minimum`` and ``maximum``."""
        return self._of(np.mean)

    @property
    def std(self) -> float:
        return self._of(np.std)

    @property
    def minimum(self) -> float:
        return self._of(np.min)

    @property
    def maximum(self) -> float:
        return self._of(np.max)

    def _of(self, function: Callable[..., Any]) -> float:
        return float(function(self.returns)) if self.returns else float("nan")

    def __str__(self) -> str:
        text = f"{self.n_steps} steps, {self.n_episodes} finished episodes"
        if not self.returns:
            return text
        return f"{text}, return {self.mean:.6g} +- {self.std:.6g}, from {self.minimum:.6g} to {self.maximum:.6g}"


def collect(
    algo: Algo,
    env: Any,
    buffer: ReplayBuffer | None = None,
    explorer: Any = None,
    deterministic: bool = False,
    *,
    n_steps: int = 1_000_000,
    show_progress: bool = True,
    timelimit_aware: bool = True,
    verbose: bool = True,
) -> ReplayBuffer:
    """Act and store, without learning.

    Parameters
    ----------
    env : environment of gymnasium, of gym 0.26 or of the older API with four values, or a vector of gymnasium.
    buffer : where the steps go; a ``ReplayBuffer`` with room for all of them by default.
    explorer : how actions are chosen, from ``d3rlpy.online.explorers``; None draws them from the policy.
    deterministic : act greedily.
    n_steps : steps in the environment.
    show_progress : show a progress bar.
    timelimit_aware : whether values go on where a time limit ends an episode; False treats that as the end.
    verbose : print the statistics of the returns, which ``collected_`` keeps.

    Returns
    -------
    The buffer; ``buffer.to_mdp_dataset()`` is a data set.
    """
    check_flag("deterministic", deterministic, "collect")
    check_flag("timelimit_aware", timelimit_aware, "collect")
    if deterministic and explorer is not None:
        raise ValueError(f"deterministic=True and explorer={explorer!r} both say how to act: give one")
    n_steps = at_least_one("n_steps", n_steps, "collect")
    check_hyperparameters(algo)
    vector = is_vector(env)
    single = single_env(env) if vector else EnvAdapter(env)
    build_for(algo, single)
    if buffer is not None:
        check_buffer(buffer, algo, single)
    else:
        from .buffers import ReplayBuffer

        buffer = ReplayBuffer(n_steps * (env.num_envs if vector else 1), env=single.env, seed=0)
    rollout: Any = (VectorRollout if vector else Rollout)(
        env if vector else single, buffer, algo.n_frames, timelimit_aware
    )
    actor = Actor(algo, explorer, rollout.bounds, deterministic=deterministic)
    buffer.clip_episode()
    actor.begin()
    returns: list[float] = []
    try:
        rollout.reset(int(algo.stream_.numpy.integers(2**31)))
        with algo.stream_, progress_bar(n_steps, f"{type(algo).__name__} collects", show_progress) as bar:
            for step in range(1, n_steps + 1):
                returns += rollout.step(actor.act(rollout.observations, step), actor.begin)
                bar.update()
    finally:
        algo.collected_ = Collected(rollout.steps, tuple(returns))
        rollout.close()
    if verbose:
        print(f"{type(algo).__name__} collected {algo.collected_}", flush=True)
    return buffer

"""``OnlineRun``: the epochs of online training."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ..dataset import RandomSampler, Rows, rows_of
from ..kernels import settle_allocator
from ..logger import Meter
from ..training.engine import Engine, recorder_of
from ..training.feeds import HostFeed
from ..training.loop import epoch_lengths
from ..training.run import Callback, Run
from .acting import Actor, all_fitted, unfitted_scalers_aside
from .mixing import MixedSampler, offline_share

ADVICE = {
    "updates": "load the model that was saved with the state",
    "rows": "pass the buffer that was dumped with the state",
    "shares": "the offline and online transitions of a batch come from batch_size, offline_dataset and offline_ratio",
    "explorer": "pass the same explorer",
    "schedule": "pass the same arguments",
}
"""What to do where a run can't be resumed, by what differs."""


@dataclass(frozen=True)
class Schedule:
    """When what happens, in steps counted from 1; see ``fit_online``."""

    n_steps: int
    n_steps_per_epoch: int
    update_interval: int = 1
    n_updates: int = 1
    update_start_step: int = 0
    random_steps: int = 0

    @cached_property
    def rhythm(self) -> dict[str, int]:
        """All of it but the end."""
        return {name: value for name, value in asdict(self).items() if name != "n_steps"}

    def updates_after(self, step: int) -> bool:
        """Whether a round of updates follows this step."""
        return step > self.update_start_step and step % self.update_interval == 0

    def epochs_from(self, done: int) -> tuple[int, list[int]]:
        """The epoch that goes on after ``done`` steps, and the steps left in it and in each one after it."""
        lengths = epoch_lengths(None, self.n_steps, self.n_steps_per_epoch, 0)
        first, part = divmod(done, self.n_steps_per_epoch)
        left = lengths[first:]
        left[0] -= part
        return first + 1, left


@dataclass(frozen=True)
class OfflineData:
    """What a share of each mini-batch is drawn from."""

    rows: Rows
    indices: np.ndarray
    ratio: float


class OnlineRun(Run):
    """One call of ``fit_online`` or ``fit_batch_online``."""

    method: ClassVar[str] = "fit_online"

    def use(
        self,
        rollout: Any,
        buffer: Any,
        actor: Actor,
        schedule: Schedule,
        offline: OfflineData | None,
        callbacks: list[Callback],
        eval_seed: int,
    ) -> None:
        """What acts where, what is learned from when, and what is called after each step."""
        self.rollout, self.buffer, self.actor, self.schedule = rollout, buffer, actor, schedule
        self.offline, self.callbacks, self.eval_seed = offline, callbacks, eval_seed
        self.modes = Modes(self.algo.impl)
        self.recorder = recorder_of(self.algo)
        self.engine: Engine | None = None
        self.sampled_as: tuple[Any, ...] = ()
        self.sampler: Any = None
        self.sources: dict[str, Any] = {}
        self.saved_sources: dict[str, dict[str, Any]] = {}
        self.steps_done = 0

    @property
    def step(self) -> int:
        return self.steps_done

    def start(self, seed: int | None) -> None:
        """Begin with a fresh episode."""
        self.buffer.clip_episode()
        self.actor.begin()
        self.rollout.reset(seed)

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where ``get_state`` was called; with a fresh episode if that was in the middle of a step."""
        self.check_resumable(state)
        self.steps_done, self.saved_sources = state["steps"], dict(state["samplers"])
        self.rollout.set_state(state["rollout"])
        if hasattr(self.actor.explorer, "set_state"):
            self.actor.explorer.set_state(state["explorer"])
        if self.rollout.midway:
            self.start(None)

    def check_resumable(self, state: dict[str, Any]) -> None:
        """Raise ``ValueError`` if this run isn't the one whose state it is."""
        if not 0 <= state["steps"] < self.schedule.n_steps:
            raise ValueError(
                f"the run to resume has made {state['steps']} steps, "
                f"and n_steps={self.schedule.n_steps} counts them too"
            )
        here = self.circumstances()
        for name, then in state["circumstances"].items():
            if here[name] != then:
                raise ValueError(f"resume: {name} was {then}, here it is {here[name]}: {ADVICE[name]}")

    def circumstances(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was interrupted, in plain values."""
        explorer = self.actor.explorer
        return {
            "updates": self.algo.grad_step_,
            "rows": self.buffer.n_rows,
            "shares": list(self.shares()),
            "explorer": None if explorer is None else type(explorer).__name__,
            "schedule": self.schedule.rhythm,
        }

    def get_state(self) -> dict[str, Any]:
        """Where the run stands, apart from the algorithm, the buffer and the environment."""
        explorer = self.actor.explorer
        return {
            "steps": self.rollout.steps,
            "circumstances": self.circumstances(),
            "eval_seed": self.eval_seed,
            "rollout": self.rollout.get_state(),
            "explorer": explorer.get_state() if hasattr(explorer, "get_state") else {},
            "samplers": self.saved_sources | {name: source.get_state() for name, source in self.sources.items()},
        }

    def finish(self) -> None:
        """However training ended: what is held back goes into the buffer, and the algorithm says where it stands."""
        self.algo.online_state_ = self.get_state()
        self.rollout.close()

    def train(self, epoch: int, n_steps: int, n_epochs: int) -> dict[str, float]:
        """The steps of one epoch and their updates; mean metrics, ``rollout_return`` over the episodes that ended."""
        algo, meter, rollout, schedule = self.algo, Meter(), self.rollout, self.schedule
        settle_allocator()
        with ExitStack() as stack:
            for context in (torch.inference_mode(False), torch.enable_grad(), algo.stream_):
                stack.enter_context(context)
            bar = stack.enter_context(self.progress(epoch, n_steps, n_epochs))
            for _ in range(n_steps):
                start = perf_counter()
                step = self.steps_done + 1
                actions = self.actor.act(rollout.observations, step)
                acted = perf_counter()
                returns = rollout.step(actions, self.actor.begin)
                self.steps_done = step
                moved = perf_counter()
                meter.add_time("time_inference", acted - start)
                meter.add_time("time_environment_step", moved - acted)
                for total in returns:
                    meter.add_time("rollout_return", total)
                if schedule.updates_after(step) and self.is_ready():
                    self.update(meter)
                if self.callbacks:
                    algo.online_state_ = self.get_state()
                    for callback in self.callbacks:
                        callback(algo, epoch, step)
                bar.update()
                meter.add_time("time_step", perf_counter() - start)
        return self.means(meter)

    def is_ready(self) -> bool:
        """Whether the buffer holds its share of a batch."""
        return len(self.buffer) >= max(1, self.shares()[1])

    def shares(self) -> tuple[int, int]:
        """Offline and online transitions in a batch."""
        size = self.algo.batch_size
        n_offline = 0 if self.offline is None else offline_share(size, self.offline.ratio)
        return n_offline, size - n_offline

    def update(self, meter: Meter) -> None:
        """A round of updates."""
        algo, impl = self.algo, self.algo.impl
        if not all_fitted(algo.fitted_scalers_):
            self.fit_scalers()
        sampler, scalers = self.current_sampler(), algo.fitted_scalers_
        self.modes.train()
        try:
            if self.engine is not None:
                self.engine.run(self.schedule.n_updates, meter)
                return
            for _ in range(self.schedule.n_updates):
                start = perf_counter()
                mini_batch = sampler.sample()
                sampled = perf_counter()
                meter.add(impl.step(impl.batch_type.of(mini_batch, scalers, impl.device)))
                meter.add_time("time_sample_batch", sampled - start)
                meter.add_time("time_algorithm_update", perf_counter() - sampled)
        finally:
            self.modes.eval()

    def fit_scalers(self) -> None:
        """Find the statistics that are not known yet, once, in what the buffer holds when updates begin."""
        rows, indices = rows_of(self.buffer.to_mdp_dataset())
        scalers = self.algo.fitted_scalers_
        for scaler in (scalers.observation, scalers.action, scalers.reward):
            if scaler is not None:
                scaler.fit_rows(rows, indices)

    def current_sampler(self) -> Any:
        """The sampler for the present ``batch_size``, ``n_steps`` and ``gamma``, and what launches with its batches."""
        algo = self.algo
        window = (algo.n_frames, getattr(algo, "n_steps", 1), getattr(algo, "gamma", 1.0))
        wanted = (algo.batch_size, *window)
        if wanted == self.sampled_as:
            return self.sampler
        self.sampled_as = ()  # until all is made
        n_offline, n_online = self.shares()
        self.sources = {}
        if n_offline:
            self.sources["offline"] = self.offline_source(n_offline, window)
        if n_online:
            self.sources["online"] = self.buffer.make_sampler(
                n_online, *window, seed=self.new_seed("online"), reward_scaler=algo.fitted_scalers_.reward
            )
        for name, source in self.sources.items():
            if name in self.saved_sources:
                source.set_state(self.saved_sources.pop(name))
        self.sampler = MixedSampler(**self.sources) if len(self.sources) == 2 else next(iter(self.sources.values()))
        if self.recorder is not None:
            self.engine = Engine(algo.impl, HostFeed(algo, self.sampler.sample), self.recorder)
        self.sampled_as = wanted
        return self.sampler

    def offline_source(self, size: int, window: tuple[int, int, float]) -> RandomSampler:
        """The sampler of the offline share."""
        offline, scaler = self.offline, self.algo.fitted_scalers_.reward
        assert offline is not None
        rewards = None if scaler is None else scaler.transform_numpy(offline.rows.rewards)
        return RandomSampler(
            offline.rows, offline.indices, size, *window, seed=self.new_seed("offline"), rewards=rewards
        )

    def new_seed(self, name: str) -> int:
        """The seed of a sampler from the stream of the algorithm, unless its state is known anyway."""
        return 0 if name in self.saved_sources else int(self.algo.stream_.numpy.integers(2**31))

    def scores(self) -> dict[str, float]:
        with unfitted_scalers_aside(self.algo):
            return super().scores()


class Modes:
    """Switches networks between training and evaluation by the flags that ``train`` and ``eval`` themselves set.

    Walking through all modules twice in each step would cost as much as acting. What a module's own ``train`` decides
    is kept, since only the flags that differ between the two modes are touched.
    """

    def __init__(self, impl: nn.Module):
        impl.train()
        training = [module.training for module in impl.modules()]
        impl.eval()
        pairs = zip(impl.modules(), training, strict=True)
        self.switched = [(vars(module), flag) for module, flag in pairs if module.training != flag]

    def train(self) -> None:
        for attributes, flag in self.switched:
            attributes["training"] = flag

    def eval(self) -> None:
        for attributes, flag in self.switched:
            attributes["training"] = not flag

"""Where the mini-batches of an engine come from: columns on the device, or the host, through pinned memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..columns import DeviceColumns, DeviceSampler, fits
from ..dataset.validation import warn_caller
from ..impl import COLUMNS, AlgorithmImpl, Batch
from .engine import FUSED

if TYPE_CHECKING:
    from ..base import Algo
    from ..joint import Joint
    from .loop import OfflineRun


class Feed(Protocol):
    """Gives mini-batches in two steps: what the host does ahead of a launch, and what the launch does itself."""

    def stage(self, n: int) -> None:
        """Make the next ``n`` batches ready."""

    def batch(self, i: int) -> Batch:
        """The ``i``-th of them."""

    def done(self, n: int) -> None:
        """They have been used."""


class DeviceFeed:
    """Batches drawn on the device."""

    def __init__(self, run: OfflineRun, sampler: DeviceSampler):
        self.algo, self.sampler = run.algo, sampler

    def stage(self, n: int) -> None:
        self.sampler.refill(n)

    def batch(self, i: int) -> Batch:
        return Batch.of_columns(self.sampler.draw(), self.algo.fitted_scalers_)

    def done(self, n: int) -> None:
        self.sampler.taken(n)


class JointFeed:
    """Batches that stand for one of each member."""

    def __init__(self, joint: Joint, feeds: list[Feed]):
        self.joint, self.feeds = joint, feeds

    def stage(self, n: int) -> None:
        with self.joint.members.apart():
            for feed in self.feeds:
                feed.stage(n)

    def batch(self, i: int) -> Batch:
        with self.joint.members.apart():
            batches = [feed.batch(i) for feed in self.feeds]
        return self.joint.join(batches)

    def done(self, n: int) -> None:
        for feed in self.feeds:
            feed.done(n)


class HostFeed:
    """Batches gathered by the host while the device works, and copied into places that stay the same."""

    def __init__(self, algo: Algo, sample: Callable[[], Any]):
        self.algo, self.sample = algo, sample
        self.device = algo.impl.device
        self.pinned: list[dict[str, Tensor]] = []
        self.places: list[dict[str, Tensor]] = []
        self.sent = torch.cuda.Event() if self.device.type == "cuda" else None

    def stage(self, n: int) -> None:
        if self.sent is not None:
            self.sent.synchronize()  # what was pinned has been copied
        for i in range(n):
            mini_batch = self.sample()
            arrays = {name: torch.from_numpy(getattr(mini_batch, name)) for name in COLUMNS}
            if i == len(self.places):
                self.pinned.append({name: self.host_copy(array) for name, array in arrays.items()})
                self.places.append({name: array.to(self.device, copy=True) for name, array in arrays.items()})
            for name, array in arrays.items():
                self.places[i][name].copy_(self.pinned[i][name].copy_(array), non_blocking=True)
        if self.sent is not None:
            self.sent.record(torch.cuda.current_stream(self.device))

    def host_copy(self, array: Tensor) -> Tensor:
        return torch.empty_like(array, pin_memory=self.sent is not None)

    def batch(self, i: int) -> Batch:
        return Batch.of_columns(self.places[i], self.algo.fitted_scalers_)

    def done(self, n: int) -> None:
        pass


def from_device(impl: AlgorithmImpl) -> bool:
    """Whether mini-batches may come from columns beside the networks: on a GPU, for what needs nothing but batches."""
    return impl.device.type == "cuda" and impl.batch_type is Batch


def feed_of(run: OfflineRun) -> Feed:
    """Batches of a run: from the device if the columns fit there, else from the host."""
    algo, device = run.algo, run.algo.impl.device
    scaler = algo.fitted_scalers_.reward
    rewards = None if scaler is None else scaler.transform_numpy(run.rows.rewards)
    if fits(run.rows, device):
        try:
            columns = DeviceColumns(run.rows, device, rewards)
            seed = int(algo.stream_.numpy.integers(2**31))
            sampler = DeviceSampler(
                columns, run.rows, run.indices, *run.window(), shuffle=run.shuffle, seed=seed, most_ahead=FUSED
            )
            return DeviceFeed(run, sampler)
        except torch.OutOfMemoryError:
            warn_caller(f"the data doesn't fit on {device}: mini-batches are gathered by the host")
    return HostFeed(algo, run.current_sampler().sample)

"""Which device an estimator computes on."""

from __future__ import annotations

import copy
from typing import Any

import torch

from .context import get_parallel_flag


class Device:
    """A CUDA device by its number; in ``d3rlpy.context.parallel`` each deep copy of it is the next device.

    >>> Device(1)
    Device(1)
    """

    def __init__(self, idx: int = 0):
        self._idx = idx
        self._n_copies = 0

    def get_id(self) -> int:
        """Number of the device."""
        return self._idx

    def __deepcopy__(self, memo: dict[int, Any]) -> Device:
        if get_parallel_flag() and (count := torch.cuda.device_count()) > 1:
            self._n_copies += 1
            return type(self)((self._idx + self._n_copies) % count)
        return type(self)(self._idx)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other._idx == self._idx

    def __hash__(self) -> int:
        return hash(self._idx)

    def __repr__(self) -> str:
        return f"Device({self._idx})"


_first = Device(0)


def for_a_clone(use_gpu: Any) -> Any:
    """What a clone of an estimator with ``use_gpu`` gets: True, like a ``Device``, becomes the next one in turn."""
    rotate = use_gpu is True and get_parallel_flag() and torch.cuda.device_count() > 1
    return copy.deepcopy(_first) if rotate else use_gpu


def resolve_device(use_gpu: bool | int | str | Device | torch.device | None) -> torch.device:
    """The torch device that ``use_gpu`` means; False and None are the CPU, True is the first GPU.

    Raises ``ValueError`` for something that names no device and ``RuntimeError`` for a GPU that torch can't see.
    """
    if use_gpu is None or use_gpu is False:
        return torch.device("cpu")
    if isinstance(use_gpu, torch.device):
        device = use_gpu
    elif isinstance(use_gpu, Device):
        device = torch.device("cuda", use_gpu.get_id())
    elif use_gpu is True:
        device = torch.device("cuda", 0)
    elif isinstance(use_gpu, int) and use_gpu >= 0:
        device = torch.device("cuda", use_gpu)
    elif isinstance(use_gpu, str) and use_gpu.split(":")[0] in ("cpu", "cuda"):
        device = torch.device(use_gpu)
    else:
        raise ValueError(f"use_gpu={use_gpu!r} names no device: give a bool, an index, a Device or 'cuda:1'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RuntimeError(
            f"use_gpu={use_gpu!r} asks for {device}, but torch sees {torch.cuda.device_count()} CUDA device(s): "
            "pass use_gpu=False, or install a CUDA build of torch and its driver"
        )
    return device

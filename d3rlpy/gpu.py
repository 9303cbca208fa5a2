"""Which device an estimator computes on."""

from __future__ import annotations

import torch


class Device:
    """A CUDA device by its number.

    >>> Device(1)
    Device(1)
    """

    def __init__(self, idx: int = 0):
        self._idx = idx

    def get_id(self) -> int:
        """Number of the device."""
        return self._idx

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other._idx == self._idx

    def __hash__(self) -> int:
        return hash(self._idx)

    def __repr__(self) -> str:
        return f"Device({self._idx})"


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

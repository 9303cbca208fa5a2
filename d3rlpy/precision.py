"""In which precision updates compute matrix products and convolutions; whatever else they compute stays in float32.

``tf32`` rounds the factors to 10 bits of mantissa, on NVIDIA GPUs from compute capability 8.0 on; all tensors stay
float32. ``bf16`` is torch's autocast: layers take and give bfloat16, 7 bits, while weights, outputs of networks,
losses, targets and optimizers are float32. Predictions are not affected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISIONS = ("float32", "tf32", "bf16")
AMPERE = (8, 0)
"""The first compute capability with either."""


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ``ValueError`` if updates on ``device`` can't have this precision."""
    if device.type == "cuda" and precision != "float32":
        found = torch.cuda.get_device_capability(device)
        if found < AMPERE:
            name = torch.cuda.get_device_name(device)
            raise ValueError(f"precision={precision!r} needs compute capability 8.0 or more, {name} has {found}")
    elif precision == "tf32":
        raise ValueError(f"precision='tf32' needs a GPU and this is {device}: write 'float32', or 'bf16'")


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """A block whose products and convolutions on ``device`` are computed like that."""
    if precision == "bf16":
        # nothing is cached: weights change inside, and a CUDA graph would keep the cache's memory
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
        return
    switches = _tf32_switches() if precision == "tf32" else []
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def _tf32_switches() -> list[tuple[Any, str, Any]]:
    """Torch's settings of products and of convolutions as ``(owner, name, value)``.

    Both have an older and, from torch 2.9 on, a newer name. The older ones move the newer ones with them, but can't be
    read where somebody has set the newer ones.
    """
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    older = [(cuda, "allow_tf32", True), (cudnn, "allow_tf32", True)]
    try:
        for owner, name, _ in older:
            getattr(owner, name)
    except RuntimeError:
        return [(cuda, "fp32_precision", "tf32"), (cudnn.conv, "fp32_precision", "tf32")]  # type: ignore[attr-defined]
    return older

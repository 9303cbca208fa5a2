"""How fast this machine multiplies fp32 matrices of 256x256 with the kernels that torch brings along."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WIDTH = 256
FLOP = 2 * WIDTH**3


def matmul_rates(clock: Callable[[], float], seconds: float = 0.2) -> dict[str, float]:
    """GFLOP/s by kernel: ``torch.mm``, which is MKL on x86, and oneDNN's where torch has it and it is right."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(WIDTH, WIDTH, generator=generator) for _ in range(2))
    w_transposed = w.t()
    rates = {"torch.mm": _rate(lambda: torch.mm(x, w_transposed), clock, seconds)}
    with torch.no_grad():
        try:
            right = torch.allclose(_onednn(x, w), torch.mm(x, w_transposed), atol=1e-3)
        except (AttributeError, RuntimeError, TypeError):  # a private operator: absent, or called otherwise
            return rates
        if right:
            rates["oneDNN"] = _rate(lambda: _onednn(x, w), clock, seconds)
    return rates


def _onednn(x: Tensor, w: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


def _rate(multiply: Callable[[], Tensor], clock: Callable[[], float], seconds: float) -> float:
    for _ in range(20):
        multiply()
    count, start = 0, clock()
    while (passed := clock() - start) < seconds:
        for _ in range(50):
            multiply()
        count += 50
    return count * FLOP / passed / 1e9

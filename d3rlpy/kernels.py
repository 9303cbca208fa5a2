"""Which matrix product computes a layer: torch's own, or oneDNN's where a probe finds it faster.

Stock torch sends float32 products on the CPU to MKL, which on some processors reaches half the rate of oneDNN, a
library inside the same torch. Both compute in full float32 precision. oneDNN is reached through an operator that torch
does not document, so one probe per process decides: the operator must exist, agree with ``addmm``, and win clearly at a
typical size. On other devices and types, while a graph is traced, and where the probe says no, everything here is an
ordinary torch expression. Small products stay with torch in any case, and those of few rows unless they are
very large: the rules below were measured.

``D3RLPY_BACKEND=plain`` in the environment, or ``use_backend("plain")``, fixes torch's own kernels, for runs that
have to give the same bits on different machines.
"""

from __future__ import annotations

import functools
import os
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

BACKENDS = ("auto", "plain", "onednn")
_PROBE_SIZE = 256
_LEAST_ROWS = 64  # below, packing its operands costs oneDNN more than it gains,
_LARGE = 20_000_000  # unless a product has this many multiplications
_LEAST_GAIN = 1.15  # oneDNN must be this many times as fast
_backend: str | None = None  # "plain" or "onednn" once it is decided


def use_backend(name: str) -> str:
    """Choose ``"plain"`` (torch's kernels), ``"onednn"``, or ``"auto"`` (probe); returns what is used from now on.

    Raises ``RuntimeError`` for ``"onednn"`` where the operator is missing or wrong.
    """
    global _backend
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is unknown, it must be one of {list(BACKENDS)}")
    if name == "onednn" and not _agrees():
        raise RuntimeError("this torch has no oneDNN product that agrees with its own: use 'auto' or 'plain'")
    _backend = _probe() if name == "auto" else name
    return _backend


def backend() -> str:
    """The backend in use, ``"plain"`` or ``"onednn"``; the first call decides."""
    return _backend or use_backend(os.environ.get("D3RLPY_BACKEND", "auto"))


@functools.cache
def settle_allocator() -> None:
    """Let the C library keep freed memory of up to about 60 MB instead of handing it back after each update.

    glibc maps large blocks anew each time, and the kernel clears their pages, which costs a fifth of an update on
    images. Freeing one block of 31 MB, just below glibc's limit for this rule, raises the threshold for the rest of
    the process (mallopt(3), M_MMAP_THRESHOLD). Elsewhere it does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def linear(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """``relu(x W^T + b)`` or without relu, ``(B, out)``; no gradient passes through oneDNN's product."""
    if _large(x, weight, 2_000_000):
        return _pointwise(x, weight, bias, "relu" if relu else "none")
    y = F.linear(x, weight, bias)
    return y.relu_() if relu else y


def input_grad(dz: Tensor, weight: Tensor) -> Tensor:
    """Gradient ``dz W`` of the input, ``(B, in)``."""
    if _large(dz, weight, 150_000 if weight.shape[0] >= 64 else 1_000_000):
        return _pointwise(dz, weight.t(), None, "none")
    return dz.mm(weight)


def weight_grad(dz: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """Gradient ``dz^T x`` of the weight, ``(out, in)`` contiguous, written into ``out`` if that is given."""
    n_out, n_in = dz.shape[1], x.shape[1]
    least = 2_000_000 if dz.shape[0] >= _LEAST_ROWS else _LARGE
    if n_in < 64 <= n_out:
        grad = x.t().mm(dz).t()  # MKL is three times as fast with the narrow side first
    elif n_out >= 64 and dz.shape[0] * n_out * n_in >= least and _onednn(dz):
        grad = _pointwise(dz.t(), x.t(), None, "none")
    else:
        return torch.mm(dz.t(), x, out=out)
    return grad.contiguous() if out is None else out.copy_(grad)


def _large(x: Tensor, weight: Tensor, least: int) -> bool:
    """Whether a product is large enough for oneDNN, and may go there."""
    return x.shape[0] * weight.numel() >= (least if x.shape[0] >= _LEAST_ROWS else _LARGE) and _onednn(x)


def _onednn(x: Tensor) -> bool:
    return (_backend or backend()) == "onednn" and x.dtype is torch.float32 and x.device.type == "cpu"


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, post: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, post, [], "")


def _probe() -> str:
    """Which backend to use: a few milliseconds, once."""
    if not _agrees():
        return "plain"
    x, weight, bias = _example()

    def seconds(post: str) -> float:
        times = []
        for _ in range(7):
            start = perf_counter()
            if post:
                _pointwise(x, weight, bias, post)
            else:
                F.linear(x, weight, bias).relu_()
            times.append(perf_counter() - start)
        return min(times)

    return "onednn" if seconds("") > _LEAST_GAIN * seconds("relu") else "plain"


def _example() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    n = _PROBE_SIZE
    return tuple(torch.randn(*shape, generator=generator) for shape in ((n, n), (n, n), (n,)))  # type: ignore[return-value]


def _agrees() -> bool:
    """Whether oneDNN's product exists and equals torch's in float32 precision, in all forms that are used."""
    x, weight, bias = _example()
    try:
        with torch.no_grad():
            pairs = [
                (_pointwise(x, weight, bias, "relu"), F.linear(x, weight, bias).relu_()),
                (_pointwise(x, weight.t(), None, "none"), x.mm(weight)),
                (_pointwise(x.t(), weight.t(), None, "none"), x.t().mm(weight)),
            ]
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)

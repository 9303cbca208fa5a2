"""TorchScript and ONNX: trace, write, read back, and compare with the policy itself.

The exported graph takes raw observations ``(batch, ...)`` and gives actions in the environment's scale. It is traced
on two observations, because tracing on one would fix the batch size, and checked on another batch size.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..files import replacing
from ..impl import AlgorithmImpl
from ..preprocessing import Scalers

ONNX_OPSET = 17
CHECK_SIZE = 5  # observations; differs from the traced 2


class GreedyPolicy(nn.Module):
    """Observation scaler, greedy action, and the way back from scaled actions."""

    def __init__(self, impl: AlgorithmImpl, scalers: Scalers):
        super().__init__()
        self.impl, self.scalers = impl, scalers

    def forward(self, x: Tensor) -> Tensor:
        if self.scalers.observation is not None:
            x = self.scalers.observation.transform(x)
        action = self.impl.best_action(x)
        if self.scalers.action is not None:
            action = self.scalers.action.reverse_transform(action)
        return action


def export_policy(impl: AlgorithmImpl, scalers: Scalers, fname: str | os.PathLike[str]) -> None:
    """Write the greedy policy as ``.pt`` (TorchScript) or ``.onnx`` (input ``input_0``, output ``output_0``).

    Raises
    ------
    ValueError : another ending.
    RuntimeError : the written file does not act like the policy; no file is left then.
    """
    writers: dict[str, Callable[[nn.Module, Tensor, str], Callable[[Tensor], np.ndarray]]] = {
        ".pt": _write_torchscript,
        ".onnx": _write_onnx,
    }
    suffix = Path(fname).suffix
    if suffix not in writers:
        raise ValueError(f"the ending of {str(fname)!r} must be one of {list(writers)}")
    policy = GreedyPolicy(_on_cpu(impl), scalers).eval()
    with torch.no_grad(), warnings.catch_warnings(), replacing(fname) as path:
        # TorchScript and the exporter that builds on it announce their end on every use.
        warnings.simplefilter("ignore", DeprecationWarning)
        run = writers[suffix](policy, _observations(impl, 2), path)
        x = _observations(impl, CHECK_SIZE)
        expected, got = policy(x).numpy(), run(x)
        if expected.shape != got.shape or not _agree(expected, got):
            raise RuntimeError(
                f"the policy written to {fname} does not act like the one in memory; nothing was written"
            )


def _on_cpu(impl: AlgorithmImpl) -> AlgorithmImpl:
    """The impl itself, or a copy if it is on another device; only modules that act are of interest."""
    return impl if impl.device.type == "cpu" else copy.deepcopy(impl).cpu()


def _observations(impl: AlgorithmImpl, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    if len(impl.observation_shape) == 3:
        return torch.randint(0, 256, (n, *impl.observation_shape), dtype=torch.uint8, generator=generator)
    return torch.randn((n, *impl.observation_shape), generator=generator)


def _agree(expected: np.ndarray, got: np.ndarray) -> bool:
    if np.issubdtype(expected.dtype, np.integer):
        # Another runtime may break a near tie differently: let one action of the batch differ.
        return int((expected != got).sum()) <= 1
    return bool(np.allclose(expected, got, rtol=1e-4, atol=1e-5))


def _write_torchscript(policy: nn.Module, x: Tensor, path: str) -> Callable[[Tensor], np.ndarray]:
    traced = torch.jit.trace(policy, x, check_trace=False)
    torch.jit.freeze(traced).save(path)
    loaded = torch.jit.load(path)
    return lambda x: loaded(x).numpy()


def _write_onnx(policy: nn.Module, x: Tensor, path: str) -> Callable[[Tensor], np.ndarray]:
    torch.onnx.export(
        policy,
        (x,),
        path,
        dynamo=False,
        opset_version=ONNX_OPSET,
        input_names=["input_0"],
        output_names=["output_0"],
        dynamic_axes={"input_0": {0: "batch"}, "output_0": {0: "batch"}},
    )
    from onnx.reference import ReferenceEvaluator

    evaluator: Any = ReferenceEvaluator(path)
    return lambda x: np.asarray(evaluator.run(None, {"input_0": x.numpy()})[0])

"""TorchScript and ONNX: trace, write, read back, and compare with the policy itself.

The exported graph takes raw observations ``(batch, ...)`` and gives actions in the environment's scale. It is traced
on two observations, because tracing on one would fix the batch size, and checked on another batch size.
"""

from __future__ import annotations

import copy
import io
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
CHECK_SIZE = 32  # observations; differs from the traced 2


class GreedyPolicy(nn.Module):
    """Observation scaler, greedy action, and the way back from scaled actions."""

    def __init__(self, impl: AlgorithmImpl, scalers: Scalers):
        super().__init__()
        self.impl, self.scalers = impl, scalers

    def forward(self, x: Tensor) -> Tensor:
        action = self.impl.best_action(self.scaled(x))
        if self.scalers.action is not None:
            action = self.scalers.action.reverse_transform(action)
        return action

    def scaled(self, x: Tensor) -> Tensor:
        """Observations as the networks see them."""
        return x if self.scalers.observation is None else self.scalers.observation.transform(x)


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
    policy = GreedyPolicy(_copy(impl), scalers).eval()
    with torch.no_grad(), warnings.catch_warnings(), replacing(fname) as path:
        # TorchScript and the exporter that builds on it announce their end on every use.
        warnings.simplefilter("ignore", DeprecationWarning)
        run = writers[suffix](policy, _observations(impl, 2), path)
        x = _observations(impl, CHECK_SIZE)
        if not _agree(policy, x, run(x)):
            raise RuntimeError(
                f"the policy written to {fname} does not act like the one in memory; nothing was written"
            )


def _copy(impl: AlgorithmImpl) -> AlgorithmImpl:
    """The networks on the CPU, apart from those of a training that goes on."""
    not_copied = [impl.hp, *impl.optimizers().values()]
    return copy.deepcopy(impl, {id(o): o for o in not_copied}).cpu()


def _observations(impl: AlgorithmImpl, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    if len(impl.observation_shape) == 3:
        return torch.randint(0, 256, (n, *impl.observation_shape), dtype=torch.uint8, generator=generator)
    return torch.randn((n, *impl.observation_shape), generator=generator)


def _agree(policy: GreedyPolicy, x: Tensor, got: np.ndarray) -> bool:
    """Whether ``got`` is what the policy does, up to rounding.

    Another runtime may break a tie differently: a discrete action may differ where the model gives both the same value.
    """
    expected = policy(x).numpy()
    if expected.shape != got.shape:
        return False
    if not np.issubdtype(expected.dtype, np.integer):
        return _close(expected, got)
    value: Callable[[Tensor, Tensor], Tensor] | None = getattr(policy.impl, "value", None)
    if value is None or np.array_equal(expected, got):
        return np.array_equal(expected, got)
    first, second = (value(policy.scaled(x), torch.from_numpy(a)).mean(dim=0).numpy() for a in (expected, got))
    return _close(first, second)


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-5))


def _write_torchscript(policy: nn.Module, x: Tensor, path: str) -> Callable[[Tensor], np.ndarray]:
    content = io.BytesIO()  # on a full disk torch itself would end Python, instead of raising an error
    torch.jit.save(torch.jit.freeze(torch.jit.trace(policy, x, check_trace=False)), content)
    Path(path).write_bytes(content.getbuffer())
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

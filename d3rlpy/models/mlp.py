"""Fully connected networks on the products of ``kernels``, with few autograd nodes.

``Linear`` is one layer with or without ReLU: one node. ``mlp`` is an ensemble of K plain ReLU networks of the same
shape: one node for all of them, whose passes are loops over layers. Members are computed one after the other, which on
a CPU is faster than batching them, and backwards in reverse, while their activations are still in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..kernels import input_grad, linear, weight_grad

_mask = torch.ops.aten.threshold_backward.default  # (dy, y, 0) -> dy where y > 0, else 0


class Linear(nn.Linear):
    """``nn.Linear``, optionally followed by ReLU, with the same parameters under the same names."""

    def __init__(self, in_features: int, out_features: int, relu: bool = False):
        super().__init__(in_features, out_features)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            return traced_linear(x, self.weight, self.bias, self.relu)
        if torch.is_grad_enabled():
            return LinearFunction.apply(x, self.weight, self.bias, self.relu)
        return linear(x, self.weight, self.bias, self.relu)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", relu" if self.relu else "")


def traced_linear(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """A layer as exported files hold it: torch's own operators, whatever the size of the batch."""
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


class LinearFunction(torch.autograd.Function):
    """One layer ``y = relu(x W^T + b)``: ``dz = dy [y > 0]``, ``dx = dz W``, ``dW = dz^T x``, ``db = sum dz``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        y = linear(x, weight, bias, relu)
        ctx.relu = relu
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, y = ctx.saved_tensors
        needs_x, needs_weight, _, _ = ctx.needs_input_grad
        dz = _mask(dy, y, 0) if ctx.relu else dy.contiguous()
        return (
            input_grad(dz, weight) if needs_x else None,
            weight_grad(dz, x) if needs_weight else None,
            dz.sum(0) if needs_weight else None,
            None,
        )


def weights_of(layers: Sequence[nn.Linear]) -> list[Tensor]:
    """Weight and bias of each layer, as ``mlp`` takes them."""
    return [p for layer in layers for p in (layer.weight, layer.bias)]


def mlp(x: Tensor, n_members: int, weights: Sequence[Tensor], frozen: bool = False) -> Tensor:
    """Outputs ``(K, B, out)`` of K networks for inputs ``(B, in)``, ReLU between the layers.

    ``weights`` are those of ``weights_of``, member after member. ``frozen`` gives no gradient to the networks, only to
    ``x``.
    """
    if torch.jit.is_tracing():
        return _forward(x, n_members, weights, traced_linear)[0]
    if torch.is_grad_enabled():
        if frozen:
            weights = [p.detach() for p in weights]
        return MLPFunction.apply(x, n_members, *weights)
    return _forward(x, n_members, weights)[0]


def _forward(
    x: Tensor, n_members: int, weights: Sequence[Tensor], linear: Callable[..., Tensor] = linear
) -> tuple[Tensor, list[Tensor]]:
    """Outputs ``(K, B, out)``, and the hidden activations, member by member and layer by layer."""
    size = len(weights) // n_members
    outputs, hidden = [], []
    for start in range(0, len(weights), size):
        h = x
        for i in range(start, start + size - 2, 2):
            h = linear(h, weights[i], weights[i + 1], True)
            hidden.append(h)
        outputs.append(linear(h, weights[start + size - 2], weights[start + size - 1], False))
    return (outputs[0].unsqueeze(0) if n_members == 1 else torch.stack(outputs)), hidden


class MLPFunction(torch.autograd.Function):
    """``mlp``; in each layer ``dz = dy [y > 0]``, ``dW = dz^T x``, ``db = sum dz``, and ``dz W`` goes down."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_members: int, *weights: Tensor) -> Tensor:
        y, hidden = _forward(x, n_members, weights)
        ctx.n_members = n_members
        ctx.save_for_backward(x, *hidden, *weights)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        needs_x, needs_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        n_layers = (len(ctx.needs_input_grad) - 2) // ctx.n_members // 2
        n_hidden = ctx.n_members * (n_layers - 1)
        x, hidden, weights = saved[0], saved[1 : 1 + n_hidden], saved[1 + n_hidden :]
        grads: list[Tensor | None] = [None] * len(weights)
        dx: Tensor | None = None
        for m in range(ctx.n_members - 1, -1, -1):
            dz = dy[m].contiguous()
            for i in range(n_layers - 1, -1, -1):
                k = 2 * (m * n_layers + i)
                below = hidden[m * (n_layers - 1) + i - 1] if i else x
                if needs_weights:
                    grads[k], grads[k + 1] = weight_grad(dz, below), dz.sum(0)
                if i:
                    dz = _mask(input_grad(dz, weights[k]), below, 0)
                elif needs_x:
                    first = input_grad(dz, weights[k])
                    dx = first if dx is None else dx + first
        return (dx, None, *grads)

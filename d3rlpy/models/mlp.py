"""Fully connected networks on the products of ``kernels``, with few autograd nodes.

``Linear`` is one layer with or without ReLU: one node. ``mlp`` is an ensemble of K ReLU networks of the same shape,
with or without layer norm before each ReLU: one node for all of them, whose passes are loops over layers. Members are
computed one after the other, which on a CPU is faster than batching them, and backwards in reverse, while their
activations are still in the cache. For the same reason many rows, such as thousands of candidate actions, take both
ways in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..kernels import input_grad, linear, weight_grad
from ..members import Members, current
from .mlp_batched import MASK, NORM_EPS, batched_backward, batched_forward, batched_is_faster

BLOCK_ROWS = 1024
"""Most rows that a CPU takes through all layers at once: activations of 256 units then stay in the L2 cache."""


class Linear(nn.Linear):
    """``nn.Linear``, optionally followed by ReLU, with the same parameters under the same names."""

    def __init__(self, in_features: int, out_features: int, relu: bool = False):
        super().__init__(in_features, out_features)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing() or current() is not None or torch.is_autocast_enabled(x.device.type):
            return traced_linear(x, self.weight, self.bias, self.relu).to(self.weight.dtype)
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
        dz = MASK(dy, y, 0) if ctx.relu else dy.contiguous()
        return (
            input_grad(dz, weight) if needs_x else None,
            weight_grad(dz, x) if needs_weight else None,
            dz.sum(0) if needs_weight else None,
            None,
        )


def weights_of(layers: Sequence[nn.Linear | nn.LayerNorm]) -> list[Tensor]:
    """Weight and bias of each layer, as ``mlp`` takes them; a layer norm follows its linear layer."""
    return [p for layer in layers for p in (layer.weight, layer.bias)]


def mlp(x: Tensor, n_members: int, weights: Sequence[Tensor], frozen: bool = False) -> Tensor:
    """Outputs ``(K, B, out)`` of K networks for inputs ``(B, in)``, layer norm if there is one and ReLU between layers.

    ``weights`` are those of ``weights_of``, member after member. ``frozen`` gives no gradient to the networks, only to
    ``x``.
    """
    if torch.jit.is_tracing():
        return _forward(x, n_members, weights, traced_linear)[0]
    lowered = torch.is_autocast_enabled(x.device.type)
    if frozen:
        weights = [p.detach() for p in weights]
    members = current()
    if members is not None:
        return _mlp_of_members(members, x, n_members, weights, lowered)
    if lowered:
        return _lowered(x, n_members, weights)
    if n_members > 1 and batched_is_faster(x, n_members, weights[: len(weights) // n_members]):
        return BatchedMLPFunction.apply(x, n_members, *weights)
    if torch.is_grad_enabled():
        return MLPFunction.apply(x, n_members, *weights)
    return _forward_by_blocks(x, n_members, weights)[0]


def _mlp_of_members(members: Members, x: Tensor, n_members: int, weights: Sequence[Tensor], lowered: bool) -> Tensor:
    """``mlp`` for runs that are computed as one."""
    stacked = [members.stacked(p) for p in weights]
    with members.apart():
        inputs, of_one = members.stacked(x), stacked[: len(stacked) // n_members]
        if lowered:
            y = _lowered(inputs, n_members, stacked)
        else:
            batched = batched_is_faster(inputs[0], members.n * n_members, of_one)
            y = (BatchedMLPFunction if batched else StackedMLPFunction).apply(inputs, n_members, *stacked)
    return members.join(y)


def _blocks(x: Tensor) -> list[Tensor]:
    """The rows of ``x`` in as few nearly equal blocks as ``BLOCK_ROWS`` allows; in one piece on other devices."""
    n_blocks = -(-x.shape[0] // BLOCK_ROWS)
    return list(x.tensor_split(n_blocks)) if n_blocks > 1 and x.device.type == "cpu" else [x]


def _forward_by_blocks(x: Tensor, n_members: int, weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Outputs ``(K, B, out)`` of all blocks, and what is kept of one block after the other."""
    each = [_forward(block, n_members, weights) for block in _blocks(x)]
    if len(each) == 1:
        return each[0]
    return torch.cat([y for y, _ in each], dim=1), [h for _, hidden in each for h in hidden]


def _shape(weights: Sequence[Tensor], n_members: int) -> tuple[int, bool]:
    """The number of tensors of a member, and whether it has layer norm, whose gain, its third tensor, is a vector."""
    size = len(weights) // n_members
    return size, size > 2 and weights[2].dim() < weights[0].dim()


def _forward(
    x: Tensor, n_members: int, weights: Sequence[Tensor], linear: Callable[..., Tensor] = linear
) -> tuple[Tensor, list[Tensor]]:
    """Outputs ``(K, B, out)``, and what the way back needs of each hidden layer, member by member.

    That is its output, and with layer norm its input, mean and inverse deviation as well.
    """
    size, normed = _shape(weights, n_members)
    outputs: list[Tensor] = []
    kept: list[Tensor] = []
    for start in range(0, len(weights), size):
        h = x
        for i in range(start, start + size - 2, 4 if normed else 2):
            h = linear(h, weights[i], weights[i + 1], not normed)
            layer = norm_relu(h, weights[i + 2], weights[i + 3]) if normed else (h,)
            h = layer[0]
            kept.extend(layer)
        outputs.append(linear(h, weights[start + size - 2], weights[start + size - 1], False))
    return (outputs[0].unsqueeze(0) if n_members == 1 else torch.stack(outputs)), kept


def norm_relu(z: Tensor, gain: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """``relu(gain (z - mean) / std + bias)`` over the last axis; then ``z``, the means and the inverse deviations."""
    if torch.jit.is_tracing():
        return (F.relu(F.layer_norm(z, gain.shape, gain, bias, NORM_EPS)),)
    y, mean, inverse_std = torch.native_layer_norm(z, gain.shape, gain, bias, NORM_EPS)
    return y.relu_(), z, mean, inverse_std


class MLPFunction(torch.autograd.Function):
    """``mlp``; in each layer ``dz = dy [y > 0]``, ``dW = dz^T x``, ``db = sum dz``, and ``dz W`` goes down.

    Where there is layer norm, its derivative stands between the first two.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_members: int, *weights: Tensor) -> Tensor:
        y, kept = _forward_by_blocks(x, n_members, weights)
        ctx.n_members, ctx.n_kept = n_members, len(kept)
        ctx.save_for_backward(x, *kept, *weights)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        kept, weights = saved[1 : 1 + ctx.n_kept], saved[1 + ctx.n_kept :]
        needs_x, needs_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        dx, grads = _backward_by_blocks(dy, saved[0], kept, weights, ctx.n_members, needs_x, needs_weights)
        return (dx, None, *(grads or _nothing(len(weights))))


def _nothing(n: int) -> list[Any]:
    """What stands for gradients that nobody needs."""
    return [None] * n


def _lowered(x: Tensor, n_members: int, weights: Sequence[Tensor]) -> Tensor:
    """``mlp`` of one run, or with an axis of runs, under torch's autocast, which knows torch's own operators only."""
    if x.device.type != "cpu":
        inputs, stacks, lead, normed = _in_stacks(x, n_members, weights)
        return batched_forward(inputs, stacks, normed)[0].unflatten(0, lead).to(weights[0].dtype)
    if weights[0].dim() == 3:  # a batched product in bfloat16 takes a CPU five times as long
        runs = zip(x, *weights, strict=True)
        return torch.stack([_lowered(x_of_run, n_members, of_run) for x_of_run, *of_run in runs])
    return _forward(x, n_members, weights, traced_linear)[0].to(weights[0].dtype)


def _in_stacks(
    x: Tensor, n_members: int, weights: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], tuple[int, ...], bool]:
    """Inputs and weights as ``batched_forward`` takes them, what their first axis stands for, whether layer norm is."""
    size, normed = _shape(weights, n_members)
    lead = weights[0].shape[:-2]  # (R,) or ()
    axis = len(lead)
    stacks = [torch.stack(list(weights[i::size]), dim=axis).flatten(0, axis) for i in range(size)]
    inputs = x.unsqueeze(-3).expand(*lead, n_members, *x.shape[-2:]).flatten(0, axis)
    return inputs, stacks, (*lead, n_members), normed


class BatchedMLPFunction(torch.autograd.Function):
    """``mlp`` of small networks, of one run or, with an axis of runs in front of all tensors, of several."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_members: int, *weights: Tensor) -> Tensor:
        inputs, stacks, lead, ctx.normed = _in_stacks(x, n_members, weights)
        y, kept = batched_forward(inputs, stacks, ctx.normed)
        ctx.n_members, ctx.n_kept, ctx.axis = n_members, len(kept), len(lead) - 1
        ctx.save_for_backward(inputs, *kept, *stacks)
        return y.unflatten(0, lead)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *saved = ctx.saved_tensors
        kept, stacks = saved[: ctx.n_kept], saved[ctx.n_kept :]
        needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[2])
        dx, each = batched_backward(dy.flatten(0, ctx.axis), inputs, kept, stacks, ctx.normed, needs)
        lead = dy.shape[: ctx.axis + 1]  # (R, K) or (K,)
        parts = [grad.unflatten(0, lead).unbind(ctx.axis) for grad in each]
        grads = [grads[k] for k in range(ctx.n_members) for grads in parts]
        dx = None if dx is None else dx.unflatten(0, lead).sum(ctx.axis)
        return (dx, None, *(grads or _nothing(len(stacks) * ctx.n_members)))


class StackedMLPFunction(torch.autograd.Function):
    """``mlp`` of R runs with weights of their own: ``(R, K, B, out)`` from ``(R, B, in)`` and weights ``(R, ...)``.

    On a CPU one run follows the other, by the products of a single run, which give the same bits.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_members: int, *weights: Tensor) -> Tensor:
        runs = zip(x, *weights, strict=True)
        each = [_forward_by_blocks(x_of_run, n_members, of_run) for x_of_run, *of_run in runs]
        kept = [h for _, hidden in each for h in hidden]
        ctx.n_members, ctx.n_kept = n_members, len(kept)
        ctx.save_for_backward(x, *kept, *weights)
        return torch.stack([y for y, _ in each])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        kept, weights = saved[: ctx.n_kept], saved[ctx.n_kept :]
        needs_x, needs_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        grads = [torch.empty_like(p) for p in weights] if needs_weights else []
        size = len(kept) // x.shape[0]
        dxs = []
        for r, (dy_of_run, x_of_run, *of_run) in enumerate(zip(dy, x, *weights, *grads, strict=True)):
            dx, _ = _backward_by_blocks(
                dy_of_run, x_of_run, kept[r * size : (r + 1) * size], of_run[: len(weights)], ctx.n_members,
                needs_x, needs_weights, of_run[len(weights) :],
            )  # fmt: skip
            dxs.append(dx)
        dx_of_all = torch.stack(cast(list[Tensor], dxs)) if needs_x else None
        return (dx_of_all, None, *(grads or _nothing(len(weights))))


def _backward_by_blocks(
    dy: Tensor,
    x: Tensor,
    kept: Sequence[Tensor],
    weights: Sequence[Tensor],
    n_members: int,
    needs_x: bool,
    needs_weights: bool,
    outs: Sequence[Tensor | None] | None = None,
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of the input and of the weights, these in ``outs`` if given; None and an empty list if not needed."""
    outs = outs or [None] * len(weights)
    blocks = _blocks(x)
    dys = dy.tensor_split(len(blocks), dim=1) if len(blocks) > 1 else (dy,)
    size = len(kept) // len(blocks)
    dxs: list[Tensor | None] = [None] * len(blocks)
    grads: list[Any] = []
    for b in range(len(blocks) - 1, -1, -1):
        of_block = kept[b * size : (b + 1) * size]
        into = [None] * len(weights) if grads else outs
        dxs[b], more = _backward(dys[b], blocks[b], of_block, weights, n_members, needs_x, needs_weights, into)
        if grads and more:
            torch._foreach_add_(grads, more)
        else:
            grads = more
    return dxs[0] if len(blocks) == 1 or not needs_x else torch.cat(cast(list[Tensor], dxs)), grads


def _backward(
    dy: Tensor,
    x: Tensor,
    kept: Sequence[Tensor],
    weights: Sequence[Tensor],
    n_members: int,
    needs_x: bool,
    needs_weights: bool,
    outs: Sequence[Tensor | None],
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of the input and of the weights of one block of rows; None and an empty list where not needed."""
    size, normed = _shape(weights, n_members)
    step, n_kept = (4, 4) if normed else (2, 1)  # tensors of a hidden layer, and what is kept of it
    n_hidden = (size - 2) // step
    grads: list[Any] = [None] * len(weights) if needs_weights else []
    dx: Tensor | None = None
    for m in range(n_members - 1, -1, -1):
        dz = dy[m].contiguous()
        for i in range(n_hidden, -1, -1):
            k = m * size + step * i
            first_kept = n_kept * (m * n_hidden + i - 1)
            below = kept[first_kept : first_kept + n_kept] if i else (x,)
            if needs_weights:
                grads[k] = weight_grad(dz, below[0], outs[k])
                grads[k + 1] = torch.sum(dz, 0, out=outs[k + 1])
            if i:
                dz = MASK(input_grad(dz, weights[k]), below[0], 0)
                if normed:
                    dz, *more = norm_grad(dz, below[1:], weights[k - 2 : k], needs_weights)
                    more = more if needs_weights else []
                    for j, grad in enumerate(more, start=k - 2):
                        out = outs[j]
                        grads[j] = grad if out is None else out.copy_(grad)
            elif needs_x:
                first = input_grad(dz, weights[k])
                dx = first if dx is None else dx + first
    return dx, grads


def norm_grad(dy: Tensor, kept: Sequence[Tensor], weights: Sequence[Tensor], needs_weights: bool) -> tuple[Tensor, ...]:
    """Gradients of the input, the gain and the bias of a layer norm."""
    z, mean, inverse_std = kept
    wanted = [True, needs_weights, needs_weights]
    return torch.ops.aten.native_layer_norm_backward(dy, z, z.shape[1:], mean, inverse_std, *weights, wanted)

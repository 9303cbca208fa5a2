"""N small networks of one shape in batched products: where a product is small, calling it costs more than computing it.

The networks are those of ``mlp``: linear layers with ReLU between them, perhaps layer norm before it. Their weights are
stacked, ``(N, out, in)`` and ``(N, out)``, in the order of ``weights_of``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NORM_EPS = 1e-5
"""What layer norm adds to the variance."""

MOST_WORK = 1_100_000
"""Rows times the square of the width, up to which a batched product is faster on a CPU; measured."""

FEWEST = 4
"""Fewest networks for which it is."""

MASK = torch.ops.aten.threshold_backward.default  # (dy, y, 0) -> dy where y > 0, else 0


def batched_is_faster(x: Tensor, n_networks: int, weights: Sequence[Tensor]) -> bool:
    """Whether batched products pay for rows ``x`` and networks like the one with these tensors; on a GPU always."""
    if x.device.type != "cpu":
        return True
    width = max(p.shape[-1] for p in weights)
    return n_networks >= FEWEST and x.shape[0] * width * width <= MOST_WORK


def batched_forward(x: Tensor, stacks: Sequence[Tensor], normed: bool) -> tuple[Tensor, list[Tensor]]:
    """Outputs ``(N, B, out)`` for inputs ``(N, B, in)``, and what the way back needs of each hidden layer."""
    h, kept = x, []
    for i in range(0, len(stacks) - 2, 4 if normed else 2):
        h = torch.baddbmm(stacks[i + 1].unsqueeze(1), h, stacks[i].transpose(1, 2))
        if normed:
            unit, _, inverse_std = torch.native_layer_norm(h, h.shape[2:], None, None, NORM_EPS)
            h = torch.addcmul(stacks[i + 3].unsqueeze(1), unit, stacks[i + 2].unsqueeze(1)).relu_()
            kept += [h, unit, inverse_std]
        else:
            kept.append(h.relu_())
    return torch.baddbmm(stacks[-1].unsqueeze(1), h, stacks[-2].transpose(1, 2)), kept


def batched_backward(
    dy: Tensor, x: Tensor, kept: Sequence[Tensor], stacks: Sequence[Tensor], normed: bool, needs: tuple[bool, bool]
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of the input and of the stacks; None and an empty list if ``needs`` says that one is not needed."""
    needs_x, needs_weights = needs
    step, n_kept = (4, 3) if normed else (2, 1)
    grads: list[Tensor] = []
    dz, i = dy, len(stacks) - 2
    for layer in range((len(stacks) - 2) // step, -1, -1):
        below = kept[(layer - 1) * n_kept] if layer else x
        if needs_weights:
            grads += [dz.sum(1), torch.bmm(dz.transpose(1, 2), below)]  # from the last to the first
        if layer == 0:
            break
        dz = MASK(torch.bmm(dz, stacks[i]), below, 0)
        i -= step
        if normed:
            unit, inverse_std = kept[layer * n_kept - 2 : layer * n_kept]
            if needs_weights:
                grads += [dz.sum(1), (dz * unit).sum(1)]
            dz = norm_input_grad(dz * stacks[i + 2].unsqueeze(1), unit, inverse_std)
    return (torch.bmm(dz, stacks[0]) if needs_x else None), grads[::-1]


def norm_input_grad(dunit: Tensor, unit: Tensor, inverse_std: Tensor) -> Tensor:
    """Gradient of what was normalised to ``unit``: ``(du - mean(du) - u mean(du u)) / std``."""
    mean = dunit.mean(-1, keepdim=True)
    along = (dunit * unit).mean(-1, keepdim=True)
    return (dunit - mean - unit * along) * inverse_std

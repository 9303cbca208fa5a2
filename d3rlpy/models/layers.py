"""Layers of the built-in encoders.

A layer is: linear or convolution, layer norm, activation, batch norm, dropout, as far as they are asked for.
Layer norm comes before the activation (Ball et al. 2023, RLPD).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..members import current
from ..registry import nearest
from .mlp import NORM_EPS, Linear

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "swish": nn.SiLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """What a layer consists of besides its weights.

    Parameters
    ----------
    activation : ``relu``, ``tanh``, ``swish``, ``elu`` or ``gelu``.
    use_batch_norm, use_layer_norm : whether each layer has one.
    dropout_rate : share of the features that is dropped while training; None for no dropout.
    """

    activation: str = "relu"
    use_batch_norm: bool = False
    use_layer_norm: bool = False
    dropout_rate: float | None = None

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            known = list(ACTIVATIONS)
            hint = nearest(str(self.activation), known)
            raise ValueError(f"activation={self.activation!r} is unknown, it must be one of {known}.{hint}")
        if self.dropout_rate is not None and not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate={self.dropout_rate!r} must be in [0, 1), or None for no dropout")

    @property
    def is_plain(self) -> bool:
        """Whether a layer is a matrix product, perhaps layer norm, and a ReLU, and nothing else."""
        return self.activation == "relu" and not self.use_batch_norm and self.dropout_rate is None


class Dropout(nn.Dropout):
    """``nn.Dropout``, in runs that are computed as one with the random numbers of each."""

    def forward(self, x: Tensor) -> Tensor:
        members = current()
        return super().forward(x) if members is None or not self.training else members.dropout(x, self.p, x.shape)


class Dropout2d(nn.Dropout2d):
    """``nn.Dropout2d`` in the same way."""

    def forward(self, x: Tensor) -> Tensor:
        members, shape = current(), (*x.shape[:2], 1, 1)
        return super().forward(x) if members is None or not self.training else members.dropout(x, self.p, shape)


def linear_layer(in_size: int, out_size: int, options: LayerOptions) -> nn.Sequential:
    """One fully connected layer."""
    relu = options.activation == "relu" and not options.use_layer_norm
    modules: list[nn.Module] = [Linear(in_size, out_size, relu)]
    if options.use_layer_norm:
        modules.append(nn.LayerNorm(out_size, NORM_EPS))
    if not relu:
        modules.append(ACTIVATIONS[options.activation]())
    if options.use_batch_norm:
        modules.append(nn.BatchNorm1d(out_size))
    if options.dropout_rate is not None:
        modules.append(Dropout(options.dropout_rate))
    return nn.Sequential(*modules)


def conv_layer(
    in_channels: int, out_shape: tuple[int, int, int], kernel: int, stride: int, options: LayerOptions
) -> nn.Sequential:
    """One convolution without padding; layer norm covers channels and pixels, dropout whole channels."""
    modules: list[nn.Module] = [nn.Conv2d(in_channels, out_shape[0], kernel, stride)]
    if options.use_layer_norm:
        modules.append(nn.LayerNorm(out_shape))
    relu_in_place = (
        options.activation == "relu" and not options.use_layer_norm
    )  # a convolution does not miss its output
    modules.append(nn.ReLU(inplace=True) if relu_in_place else ACTIVATIONS[options.activation]())
    if options.use_batch_norm:
        modules.append(nn.BatchNorm2d(out_shape[0]))
    if options.dropout_rate is not None:
        modules.append(Dropout2d(options.dropout_rate))
    return nn.Sequential(*modules)


class Convolutions(nn.Module):
    """Convolutions of images ``(B, C, H, W)``, flattened to ``(B, out_size)``.

    Raises ``ValueError`` when the images are too small for the filters.
    """

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        filters: Sequence[tuple[int, int, int]],
        options: LayerOptions,
    ):
        super().__init__()
        channels, height, width = observation_shape
        layers = []
        for n_filters, kernel, stride in filters:
            if min(height, width) < kernel:
                raise ValueError(
                    f"images of shape {tuple(observation_shape)} are too small for filters={filters}: "
                    f"kernel size {kernel} meets {height} x {width} pixels. "
                    "Give fewer or smaller filters, or larger images (C, H, W): d3rlpy.envs.ChannelFirst moves channels"
                )
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            layers.append(conv_layer(channels, (n_filters, height, width), kernel, stride, options))
            channels = n_filters
        # Channels last in memory: oneDNN's convolutions are half again as fast there.
        self.layers: nn.Module = nn.Sequential(*layers)
        cast(Any, self.layers).to(memory_format=torch.channels_last)
        self.out_size = channels * height * width

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(next(self.parameters()).dtype)
        if current() is None:  # the images of several runs have five axes
            x = x.contiguous(memory_format=torch.channels_last)
        return self.layers(x).flatten(1)

"""Encoder modules: what turns an observation, or an observation and an action, into features.

``Encoder`` and ``EncoderWithAction`` are the interfaces that policies and Q functions build on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Convolutions, LayerOptions, linear_layer
from .mlp import Linear, mlp, weights_of


class Encoder(nn.Module, ABC):
    """Turns observations ``(B, ...)`` into features ``(B, feature_size)``."""

    feature_size: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class EncoderWithAction(nn.Module, ABC):
    """Turns observations and actions, ``(B, A)`` or ids ``(B,)``, into features ``(B, feature_size)``."""

    feature_size: int
    takes_many = False
    """Whether actions may be ``(B, n, A)``, n for each observation, with features ``(B n, feature_size)``."""

    @abstractmethod
    def forward(self, x: Tensor, action: Tensor) -> Tensor: ...


def as_vector(action: Tensor, action_size: int, discrete: bool, dtype: torch.dtype) -> Tensor:
    """The action as network input ``(B, action_size)``; ids ``(B,)`` become one-hot vectors."""
    return F.one_hot(action.long(), action_size).to(dtype) if discrete else action


def repeat_rows(x: Tensor, n: int) -> Tensor:
    """Each row n times, one after the other: ``(B, ...)`` to ``(B n, ...)``."""
    return x[:, None].expand(-1, n, *x.shape[1:]).flatten(0, 1)


def side_by_side(x: Tensor, action: Tensor) -> Tensor:
    """Rows of ``x`` ``(B, F)`` with their actions ``(B, A)``, or with each of n actions ``(B, n, A)`` of theirs."""
    if action.dim() == 3:
        x, action = repeat_rows(x, action.shape[1]), action.flatten(0, 1)
    return torch.cat([x, action], dim=1)


class VectorEncoder(Encoder):
    """Fully connected layers; with ``use_dense`` every layer but the first also reads the input."""

    def __init__(self, in_size: int, hidden_units: Sequence[int], use_dense: bool, options: LayerOptions):
        super().__init__()
        self.use_dense = use_dense
        self.layers = nn.ModuleList()
        self.plain = options.is_plain and not use_dense
        self.feature_size = in_size
        for width in hidden_units:
            extra = in_size if use_dense and len(self.layers) > 0 else 0
            self.layers.append(linear_layer(self.feature_size + extra, width, options))
            self.feature_size = width

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i, layer in enumerate(self.layers):
            h = layer(torch.cat([h, x], dim=1) if self.use_dense and i > 0 else h)
        return h


class VectorEncoderWithAction(EncoderWithAction):
    """``VectorEncoder`` of the observation and the action side by side."""

    takes_many = True

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        discrete_action: bool,
        hidden_units: Sequence[int],
        use_dense: bool,
        options: LayerOptions,
    ):
        super().__init__()
        self.action_size, self.discrete_action = action_size, discrete_action
        self.body = VectorEncoder(observation_size + action_size, hidden_units, use_dense, options)
        self.feature_size = self.body.feature_size

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        action = as_vector(action, self.action_size, self.discrete_action, x.dtype)
        return self.body(side_by_side(x, action))


class PixelEncoder(Encoder):
    """Convolutions and one fully connected layer."""

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        filters: Sequence[tuple[int, int, int]],
        feature_size: int,
        options: LayerOptions,
    ):
        super().__init__()
        self.convolutions = Convolutions(observation_shape, filters, options)
        self.layer = linear_layer(self.convolutions.out_size, feature_size, options)
        self.feature_size = feature_size

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.convolutions(x))


class PixelEncoderWithAction(EncoderWithAction):
    """Convolutions of the image; the fully connected layer reads the action too."""

    takes_many = True

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        action_size: int,
        discrete_action: bool,
        filters: Sequence[tuple[int, int, int]],
        feature_size: int,
        options: LayerOptions,
    ):
        super().__init__()
        self.action_size, self.discrete_action = action_size, discrete_action
        self.convolutions = Convolutions(observation_shape, filters, options)
        self.layer = linear_layer(self.convolutions.out_size + action_size, feature_size, options)
        self.feature_size = feature_size

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        h = self.convolutions(x)
        action = as_vector(action, self.action_size, self.discrete_action, h.dtype)
        return self.layer(side_by_side(h, action))


class Network(nn.Module):
    """An encoder and a linear head; where the encoder is a ReLU network, perhaps with layer norm, both are one.

    Parameters
    ----------
    encoder : features of the observation, or of observation and action.
    n_outputs : width of the head.
    """

    def __init__(self, encoder: Encoder | EncoderWithAction, n_outputs: int):
        super().__init__()
        self.encoder = encoder
        self.head = Linear(encoder.feature_size, n_outputs)
        layers = plain_layers(encoder, self.head)
        self.weights = None if layers is None else weights_of(layers)

    def outputs(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        """Outputs of the head, ``(B, n_outputs)``, or ``(B n, n_outputs)`` for n actions ``(B, n, A)`` of each row."""
        if self.weights is not None:
            return mlp(x if action is None else side_by_side(x, action), 1, self.weights)[0]
        return self.head(self.encoder(x) if action is None else encode_pairs(self.encoder, x, action))


def encode_pairs(encoder: nn.Module, x: Tensor, action: Tensor) -> Tensor:
    """Features of observations with their actions ``(B, A)``, ``(B,)`` or ``(B, n, A)``, of any encoder."""
    if action.dim() == 3 and not getattr(encoder, "takes_many", False):
        x, action = repeat_rows(x, action.shape[1]), action.flatten(0, 1)
    return encoder(x, action)


def plain_layers(encoder: nn.Module, head: Linear) -> list[nn.Linear | nn.LayerNorm] | None:
    """The layers of an encoder and its head if nothing but ReLU, or layer norm and ReLU, stands between, else None."""
    if type(encoder) is VectorEncoderWithAction and not encoder.discrete_action:
        encoder = encoder.body
    if type(encoder) is not VectorEncoder or not encoder.plain:
        return None
    parts = [part for layer in encoder.layers for part in cast(nn.Sequential, layer)]
    return [*(part for part in parts if isinstance(part, (nn.Linear, nn.LayerNorm))), head]

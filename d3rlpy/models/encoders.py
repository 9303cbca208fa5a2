"""Encoder factories: which network turns an observation into features, chosen by a name or an object.

For a network of your own, derive from ``EncoderFactory``, give the class a ``TYPE`` and a ``create``, and
register it; ``create_with_action`` is only needed where a network reads actions, as most critics do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import nn

from ..registry import Configurable, Registry
from .bodies import (
    Encoder,
    EncoderWithAction,
    PixelEncoder,
    PixelEncoderWithAction,
    VectorEncoder,
    VectorEncoderWithAction,
)
from .layers import LayerOptions

Shape = tuple[int, ...]
Module = TypeVar("Module", bound=nn.Module)


class EncoderFactory(Configurable, ABC):
    """Maker of encoders for one shape of observations."""

    @abstractmethod
    def create(self, observation_shape: Shape) -> Encoder:
        """Module from ``(B, *observation_shape)`` to ``(B, feature_size)``, with that attribute."""

    def create_with_action(
        self, observation_shape: Shape, action_size: int, discrete_action: bool = False
    ) -> EncoderWithAction:
        """The same with an action as second input: ``(B, action_size)``, or ids ``(B,)`` if discrete."""
        raise TypeError(
            f"{type(self).__name__} makes no network that reads an action, and this algorithm needs one: "
            "define create_with_action(observation_shape, action_size, discrete_action)"
        )


ENCODERS: Registry[EncoderFactory] = Registry("encoder factory", EncoderFactory)  # type: ignore[type-abstract]


@ENCODERS.register
@dataclass(frozen=True)
class VectorEncoderFactory(LayerOptions, EncoderFactory):
    """Fully connected layers for vector observations.

    Parameters
    ----------
    hidden_units : width of each layer; an empty tuple hands on the input itself.
    use_dense : whether every layer but the first also reads the input (Sinha et al. 2020, D2RL).
    """

    TYPE: ClassVar[str] = "vector"
    hidden_units: tuple[int, ...] = (256, 256)
    use_dense: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden_units", as_sizes("hidden_units", self.hidden_units))

    def create(self, observation_shape: Shape) -> Encoder:
        return VectorEncoder(vector_size(observation_shape), self.hidden_units, self.use_dense, self)

    def create_with_action(
        self, observation_shape: Shape, action_size: int, discrete_action: bool = False
    ) -> EncoderWithAction:
        size = vector_size(observation_shape)
        return VectorEncoderWithAction(size, action_size, discrete_action, self.hidden_units, self.use_dense, self)


@ENCODERS.register
@dataclass(frozen=True)
class PixelEncoderFactory(LayerOptions, EncoderFactory):
    """Convolutions without padding and one fully connected layer, for images (Mnih et al. 2015 by default).

    Parameters
    ----------
    filters : ``(channels, kernel size, stride)`` of each convolution.
    feature_size : width of the fully connected layer, which also reads the action if there is one.
    """

    TYPE: ClassVar[str] = "pixel"
    filters: tuple[tuple[int, int, int], ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    feature_size: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        filters = as_sizes("filters", self.filters)
        if not filters or any(not isinstance(f, tuple) or len(f) != 3 for f in filters):
            raise ValueError(f"filters={filters!r} must hold (channels, kernel size, stride) of each convolution")
        as_sizes("feature_size", (self.feature_size,))
        object.__setattr__(self, "filters", filters)

    def create(self, observation_shape: Shape) -> Encoder:
        check_image(observation_shape)
        return PixelEncoder(observation_shape, self.filters, self.feature_size, self)

    def create_with_action(
        self, observation_shape: Shape, action_size: int, discrete_action: bool = False
    ) -> EncoderWithAction:
        check_image(observation_shape)
        return PixelEncoderWithAction(
            observation_shape, action_size, discrete_action, self.filters, self.feature_size, self
        )


class DelegatingEncoderFactory(LayerOptions, EncoderFactory):
    """Base of factories that leave the work to another one, which depends on the shape."""

    @abstractmethod
    def factory_for(self, observation_shape: Shape) -> EncoderFactory:
        """The factory that does the work."""

    def create(self, observation_shape: Shape) -> Encoder:
        return self.factory_for(observation_shape).create(observation_shape)

    def create_with_action(
        self, observation_shape: Shape, action_size: int, discrete_action: bool = False
    ) -> EncoderWithAction:
        factory = self.factory_for(observation_shape)
        return factory.create_with_action(observation_shape, action_size, discrete_action)


@ENCODERS.register
@dataclass(frozen=True)
class DenseEncoderFactory(DelegatingEncoderFactory):
    """Four layers of 256 that all read the input, for vector observations (Sinha et al. 2020, D2RL)."""

    TYPE: ClassVar[str] = "dense"

    def factory_for(self, observation_shape: Shape) -> EncoderFactory:
        return VectorEncoderFactory((256, 256, 256, 256), use_dense=True, **self.get_params())


@ENCODERS.register
@dataclass(frozen=True)
class DefaultEncoderFactory(DelegatingEncoderFactory):
    """The factory ``pixel`` for observations with three axes, ``vector`` for others."""

    TYPE: ClassVar[str] = "default"

    def factory_for(self, observation_shape: Shape) -> EncoderFactory:
        cls = PixelEncoderFactory if len(observation_shape) == 3 else VectorEncoderFactory
        return cls(**self.get_params())


def as_tuple(value: Any) -> Any:
    """Nested lists as tuples; without lists the same object, as scikit-learn's ``clone`` asks."""
    if not isinstance(value, (list, tuple)):
        return value
    parts = tuple(as_tuple(v) for v in value)
    same = isinstance(value, tuple) and all(a is b for a, b in zip(parts, value, strict=True))
    return value if same else parts


def as_sizes(name: str, value: Any) -> Any:
    """``value`` as a tuple, after checking that it holds only whole positive numbers, possibly nested."""
    value = as_tuple(value)
    flat = [n for v in value for n in (v if isinstance(v, tuple) else (v,))] if isinstance(value, tuple) else [None]
    if not all(isinstance(n, (int, np.integer)) and n > 0 for n in flat):
        raise ValueError(f"{name}={value!r} must be a list of whole positive numbers")
    return value


def vector_size(observation_shape: Shape) -> int:
    """Length of a vector observation."""
    if len(observation_shape) != 1:
        raise ValueError(
            f"a fully connected encoder reads vectors, not observations of shape {tuple(observation_shape)}: "
            "images (C, H, W) take the encoder factory 'pixel' or 'default', other arrays have to be flattened"
        )
    return observation_shape[0]


def check_image(observation_shape: Shape) -> None:
    """Raise unless observations have three axes."""
    if len(observation_shape) != 3:
        raise ValueError(
            f"the encoder factory 'pixel' reads images (channels, height, width), not observations of shape "
            f"{tuple(observation_shape)}: use 'vector', 'dense' or 'default'"
        )


def register_encoder_factory(cls: type[EncoderFactory]) -> type[EncoderFactory]:
    """Make an own encoder factory known by its ``TYPE``; usable as a decorator."""
    return ENCODERS.register(cls)


def create_encoder_factory(name: str, **params: Any) -> EncoderFactory:
    """Encoder factory by name: ``vector``, ``pixel``, ``dense``, ``default`` or a registered one."""
    return ENCODERS.create(name, **params)


def create_encoder(factory: str | dict[str, Any] | EncoderFactory, observation_shape: Shape) -> Encoder:
    """Encoder of a factory, given by name, dictionary or object."""
    factory = ENCODERS.resolve(factory)
    return _checked(factory, factory.create(tuple(observation_shape)))


def create_encoder_with_action(
    factory: str | dict[str, Any] | EncoderFactory,
    observation_shape: Shape,
    action_size: int,
    discrete_action: bool = False,
) -> EncoderWithAction:
    """Encoder of observation and action of a factory, given by name, dictionary or object."""
    factory = ENCODERS.resolve(factory)
    return _checked(factory, factory.create_with_action(tuple(observation_shape), action_size, discrete_action))


def _checked(factory: EncoderFactory, encoder: Module) -> Module:
    if not isinstance(encoder, nn.Module) or not isinstance(getattr(encoder, "feature_size", None), int):
        raise TypeError(
            f"{type(factory).__name__} must make a torch module with the attribute feature_size, "
            f"the number of its outputs, got {type(encoder).__name__}"
        )
    return encoder

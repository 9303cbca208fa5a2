"""What an augmentation is, and how the hyper-parameter ``augmentation`` changes a mini-batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..registry import Configurable, Registry

if TYPE_CHECKING:
    from ..impl import Batch


class Augmentation(Configurable, ABC):
    """A random change of observations that does not change what to do: for training only, never for acting."""

    @abstractmethod
    def check(self, observation_shape: tuple[int, ...]) -> None:
        """Raise ``ValueError`` for observations that it can't change."""

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """Changed observations ``(B, ...)`` of the same shape, type and device, drawn with torch's generator."""


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", Augmentation)  # type: ignore[type-abstract]


def augmentations_of(value: Any) -> list[Augmentation]:
    """The objects behind a name, a dictionary, an object, or a list of these; none for None."""
    given = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return [AUGMENTATIONS.resolve(each) for each in given]


def check_augmentation(value: Any, observation_shape: tuple[int, ...]) -> None:
    """Raise for what is no augmentation, or is none of these observations."""
    for augmentation in augmentations_of(value):
        augmentation.check(observation_shape)


def augmented(batch: Batch, value: Any) -> Batch:
    """The batch with its observations and next observations changed, one augmentation after the other.

    The two are drawn apart from each other; this is DrQ with K = M = 1 (Kostrikov, Yarats, Fergus 2021,
    arXiv:2004.13649, algorithm 1).
    """
    for augmentation in augmentations_of(value):
        observations = augmentation.transform(batch.observations)
        batch = replace(
            batch, observations=observations, next_observations=augmentation.transform(batch.next_observations)
        )
    return batch

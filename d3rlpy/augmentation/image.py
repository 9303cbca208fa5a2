"""Augmentations of images ``(B, C, H, W)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..randomness import whole_numbers
from .base import AUGMENTATIONS, Augmentation


class ImageAugmentation(Augmentation):
    """Base of those that need images."""

    def check(self, observation_shape: tuple[int, ...]) -> None:
        if len(observation_shape) != 3:
            raise ValueError(
                f"augmentation={self.get_type()!r} changes images (channels, height, width), observations have the "
                f"shape {tuple(observation_shape)}: leave it out"
            )


@AUGMENTATIONS.register
@dataclass(frozen=True)
class RandomShift(ImageAugmentation):
    """Pads each side by repeating the border and cuts out the old size at random (DrQ, section 3.1).

    So each image moves by a whole number of pixels from ``-shift_size`` to ``shift_size`` in both directions, drawn for
    each image of the batch; all its channels, and so all frames of a stack, move alike.

    Parameters
    ----------
    shift_size : largest shift in pixels.
    """

    TYPE: ClassVar[str] = "random_shift"
    shift_size: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.shift_size, bool) or not isinstance(self.shift_size, int) or self.shift_size < 1:
            raise ValueError(f"shift_size={self.shift_size!r} of RandomShift must be a whole number of at least 1")

    def transform(self, x: Tensor) -> Tensor:
        self.check(x.shape[1:])
        n_images, n_channels, height, width = x.shape
        down, right = whole_numbers(-self.shift_size, self.shift_size + 1, (2, n_images, 1), x.device)
        rows = (torch.arange(height, device=x.device) + down).clamp(0, height - 1)  # (B, H), where each comes from
        columns = (torch.arange(width, device=x.device) + right).clamp(0, width - 1)  # (B, W)
        source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H W)
        shifted = x.flatten(2).gather(2, source[:, None].expand(-1, n_channels, -1))
        return shifted.unflatten(2, (height, width))

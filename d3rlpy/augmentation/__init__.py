"""Data augmentation: random changes of the observations that an algorithm learns from."""

from .base import AUGMENTATIONS, Augmentation, augmentations_of, augmented, check_augmentation
from .image import RandomShift

__all__ = ["AUGMENTATIONS", "Augmentation", "RandomShift", "augmentations_of", "augmented", "check_augmentation"]

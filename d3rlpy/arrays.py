"""What users hand over as observations or actions, as checked arrays and as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_numbers(name: str, value: Any) -> np.ndarray:
    """``value`` as an array of numbers, none of them masked."""
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, whose mask would be lost: fill it first, {name}.filled(...)")
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold numbers, got {array.dtype}")
    return array


def to_tensor(array: np.ndarray, dtype: Any) -> Tensor:
    """A tensor on the memory of ``array`` where type, layout and permissions allow it, else on a copy."""
    array = np.ascontiguousarray(array, dtype=dtype)
    return torch.from_numpy(array if array.flags.writeable else array.copy())

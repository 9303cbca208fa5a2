"""Single numbers that are learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositiveParameter(nn.Module):
    """One positive number, learned through its logarithm: a temperature or a Lagrange multiplier."""

    def __init__(self, initial: float):
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> Tensor:
        return self.log.exp()

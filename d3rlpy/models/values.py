"""State-value functions V(s)."""

from __future__ import annotations

from torch import Tensor

from .bodies import Encoder, Network


class ValueFunction(Network):
    """``V(s)``: an encoder with one linear output."""

    def __init__(self, encoder: Encoder):
        super().__init__(encoder, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Values ``(B, 1)``."""
        return self.outputs(x)

"""The loop that every offline algorithm is trained with."""

from .checks import check_data, network_shape
from .loop import fit_epochs

__all__ = ["check_data", "fit_epochs", "network_shape"]

"""The loop that every offline algorithm is trained with."""

from .checks import check_data, network_shape
from .loop import fit_epochs
from .profile import Profile, profile

__all__ = ["Profile", "check_data", "fit_epochs", "network_shape", "profile"]

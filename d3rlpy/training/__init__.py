"""The loop that every offline algorithm is trained with."""

from .checks import check_data, network_shape
from .loop import offline_run
from .profile import Profile, profile
from .together import fit_together

__all__ = ["Profile", "check_data", "fit_together", "network_shape", "offline_run", "profile"]

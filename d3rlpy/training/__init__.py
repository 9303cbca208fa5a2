"""The loop that every offline algorithm is trained with."""

from .checks import check_data, network_shape
from .loop import offline_run
from .profile import Profile, profile
from .together import epochs_of, runs_of

__all__ = ["Profile", "check_data", "epochs_of", "network_shape", "offline_run", "profile", "runs_of"]

"""One face for every environment: gymnasium, gym 0.26 and the older 4-tuple API."""

from .adapter import EnvAdapter
from .frames import FrameStack

__all__ = ["EnvAdapter", "FrameStack"]

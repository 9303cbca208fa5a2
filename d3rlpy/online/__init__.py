"""Acting in environments: online training, explorers and the replay buffer."""

from . import buffers, explorers, iterators
from .buffers import ReplayBuffer

__all__ = ["ReplayBuffer", "buffers", "explorers", "iterators"]

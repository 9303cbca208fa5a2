"""One face for every environment, and wrappers: image axes, action repeat, Atari games, recording.

The wrappers are gymnasium's classes, so gymnasium is imported when the first of them is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .adapter import EnvAdapter
from .frames import FrameStack

if TYPE_CHECKING:
    from .atari import Atari
    from .monitor import Monitor
    from .wrappers import ActionRepeat, ChannelFirst

__all__ = ["ActionRepeat", "Atari", "ChannelFirst", "EnvAdapter", "FrameStack", "Monitor"]

_WRAPPERS = {"ActionRepeat": ".wrappers", "Atari": ".atari", "ChannelFirst": ".wrappers", "Monitor": ".monitor"}


def __getattr__(name: str) -> Any:
    if name not in _WRAPPERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WRAPPERS[name], __name__), name)

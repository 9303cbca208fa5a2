"""The greedy policy as a file that runs without this library."""

from .policy import export_policy

__all__ = ["export_policy"]

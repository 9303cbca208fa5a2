"""Tiny decision problems whose answers are known, for tests of algorithms."""

from .mdp import corridor, corridor_values, two_step_dataset, two_step_value

__all__ = ["corridor", "corridor_values", "two_step_dataset", "two_step_value"]

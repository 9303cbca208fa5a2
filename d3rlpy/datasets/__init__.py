"""Data sets that come with the package: CartPole and Pendulum, by a learner and by a random policy."""

from .builtin import get_cartpole, get_dataset, get_pendulum

__all__ = ["get_cartpole", "get_dataset", "get_pendulum"]

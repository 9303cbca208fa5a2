"""Metrics to files, TensorBoard and console."""

from .logger import Logger
from .meter import Meter

__all__ = ["Logger", "Meter"]

"""Metrics to files, TensorBoard and console."""

from .logger import Logger, check_free
from .meter import Meter

__all__ = ["Logger", "Meter", "check_free"]

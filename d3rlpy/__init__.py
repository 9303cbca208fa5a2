"""Offline reinforcement learning: from logged data to an evaluated, exported policy.

>>> import d3rlpy
>>> d3rlpy.algos.DiscreteCQL(alpha=2.0)
DiscreteCQL(alpha=2.0)
"""

from . import (
    algos,
    context,
    dataset,
    datasets,
    envs,
    gpu,
    logger,
    metrics,
    model_selection,
    models,
    online,
    preprocessing,
)
from .randomness import seed

__version__ = "0.1.0.dev0"

__all__ = [
    "__version__",
    "algos",
    "context",
    "dataset",
    "datasets",
    "envs",
    "gpu",
    "logger",
    "metrics",
    "model_selection",
    "models",
    "online",
    "preprocessing",
    "seed",
]

"""Logged experience: data sets of episodes, transitions, mini-batches, samplers, files. Never torch."""

from .batch import TransitionMiniBatch, gather
from .building import Report
from .dataset import MDPDataset
from .episode import Episode
from .merging import Data, rows_of
from .rows import Rows
from .samplers import PermutationSampler, RandomSampler
from .transition import Transition

__all__ = [
    "Data",
    "Episode",
    "MDPDataset",
    "PermutationSampler",
    "RandomSampler",
    "Report",
    "Rows",
    "Transition",
    "TransitionMiniBatch",
    "gather",
    "rows_of",
]

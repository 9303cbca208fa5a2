import numpy as np

from .batch import TransitionMiniBatch
from .rows import Rows

MOST_STEPS: int
LINK_KIND: int
NO_TRANSITION: int
KNOWN_APART: int
NOT_KNOWN: int
FOLLOWS: int
ENDS_EPISODE: int

def link_rows(terminals: np.ndarray, ends: np.ndarray, successor_rows: np.ndarray, links: np.ndarray) -> None: ...
def count_back(links: np.ndarray, row: int, most: int) -> None: ...
def count_all(links: np.ndarray, newest: int, most: int) -> None: ...
def as_bytes(array: np.ndarray) -> np.ndarray: ...

class Gather:
    def __init__(
        self,
        rows: Rows,
        rewards: np.ndarray,
        discount: np.ndarray | None,
        picks: np.ndarray,
        out: TransitionMiniBatch,
        n_frames: int,
        n_steps: int,
        gamma: float,
    ) -> None: ...
    def fill(self) -> None: ...
    def sum_rest(self, beyond: float, out: np.ndarray) -> None: ...

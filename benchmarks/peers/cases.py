"""What is compared, and the synthetic data of it; imported by the driver and by every worker.

numpy and the standard library only, so that each library's own environment can import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # observations, actions, rewards, terminals
Kind = Literal["continuous", "discrete", "pixels"]


@dataclass(frozen=True)
class Case:
    """One algorithm on one kind of data, with the defaults of each library but for what is named here.

    Attributes
    ----------
    algorithm : class name, the same in all libraries.
    kind : data it learns from; pixels are scaled and stacked by four.
    batch_size : transitions an update.
    mflop : million floating-point operations of the least computation of one update, 2 per multiply-add; no
        weight gradients where they are discarded, no network evaluated twice on the same input. None: not counted.
    n_quantiles : of the Q function, 0 for the mean.
    multiple : windows have a multiple of so many updates, because the actor may wait every second one.
    """

    name: str
    algorithm: str
    kind: Kind
    batch_size: int
    mflop: float | None = None
    n_quantiles: int = 0
    multiple: int = 2


CASES = (
    Case("TD3+BC", "TD3PlusBC", "continuous", 256, 404),
    Case("SAC", "SAC", "continuous", 256, 564),
    Case("IQL", "IQL", "continuous", 256, 524),
    Case("AWAC", "AWAC", "continuous", 256, 564),
    Case("CQL", "CQL", "continuous", 256, 6884),
    Case("BCQ", "BCQ", "continuous", 256, 14940),
    Case("DQN", "DQN", "discrete", 32, 17.6),
    Case("DiscreteCQL", "DiscreteCQL", "discrete", 32),
    Case("DQN qr", "DQN", "discrete", 32, n_quantiles=32),
    Case("DQN pixels", "DQN", "pixels", 32, 2183),
)

N_ACTIONS, N_FRAMES = 4, 4
N_ROWS, N_PIXEL_ROWS = 100_000, 6_000


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def make_arrays(kind: Kind) -> Arrays:
    """Rows of 11 Gaussian observations and 3 actions in [-1, 1], or of 1x84x84 frames of noise; 4 discrete actions."""
    rng = np.random.default_rng(0)
    n = N_PIXEL_ROWS if kind == "pixels" else N_ROWS
    if kind == "pixels":
        observations = rng.integers(0, 256, (n, 1, 84, 84), dtype=np.uint8)
    else:
        observations = rng.normal(size=(n, 11)).astype(np.float32)
    if kind == "continuous":
        actions = rng.uniform(-1, 1, (n, 3)).astype(np.float32)
    else:
        actions = rng.integers(0, N_ACTIONS, n).astype(np.int32)
    rewards = rng.normal(size=n).astype(np.float32)
    return observations, actions, rewards, _ends(n, rng)


def _ends(n: int, rng: np.random.Generator) -> np.ndarray:
    """Flags ``(n,)`` that cut episodes of 500 to 1000 rows."""
    ends = np.zeros(n, dtype=bool)
    last = -1
    while n - 1 - last > 1500:
        last += int(rng.integers(500, 1001))
        ends[last] = True
    rest = n - 1 - last  # at most 1500 rows: one episode, or two of at least 500
    if rest > 1000:
        ends[last + rest // 2] = True
    ends[n - 1] = True
    return ends

"""Random logs for hypothesis, and small hand-made ones."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import strategies as st

from d3rlpy.dataset import MDPDataset

from .reference import Log


def flags(rows, *where):
    """``(rows,)`` bool, set at ``where``."""
    result = np.zeros(rows, np.bool_)
    result[list(where)] = True
    return result


def dataset_of(log: Log, **options) -> MDPDataset:
    """The log as a data set; a missing last flag is expected here and does not warn."""
    if log.discount is not None:
        options["columns"] = {"discount": log.discount}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return MDPDataset(
            log.observations,
            log.actions,
            log.rewards,
            log.terminals,
            timeouts=log.timeouts,
            next_observations=log.next_observations,
            **options,
        )


@st.composite
def logs(draw, kinds=("vector", "image"), alike=None):
    """Episodes of 1 to 7 rows that end by a terminal, a timeout or (the last one) without any flag.

    Logs with the same ``alike``, (discrete actions, discount column), have rows of the same kind.
    """
    widths = st.integers(1, 3) if alike is None else st.just(2)
    discrete, with_discount = alike or (draw(st.booleans()), draw(st.booleans()))
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    rows = sum(lengths)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.sampled_from(kinds)) == "image":
        shape = draw(st.sampled_from([(1, 3, 2), (2, 2, 2)]))
        observations = generator.integers(0, 256, (rows, *shape), dtype=np.uint8)
    else:
        observations = generator.normal(size=(rows, draw(widths))).astype(np.float32)
    if discrete:
        actions = generator.integers(0, 4, rows, dtype=draw(st.sampled_from([np.int32, np.int64])))
    else:
        actions = generator.uniform(-1, 1, (rows, draw(widths))).astype(np.float32)

    last = np.cumsum(lengths) - 1
    kinds_of_end = draw(st.lists(st.sampled_from("TO"), min_size=len(last), max_size=len(last)))
    terminals = flags(rows, *(row for row, kind in zip(last, kinds_of_end, strict=True) if kind == "T"))
    timeouts = flags(rows, *(row for row, kind in zip(last, kinds_of_end, strict=True) if kind == "O"))
    if draw(st.booleans()):
        timeouts[-1] = terminals[-1] = False

    following = None
    if draw(st.booleans()):
        following = np.concatenate([observations[1:], observations[:1] // 2])
        wrong = generator.random(rows) < draw(st.sampled_from([0.0, 0.2]))
        following[wrong] = following[wrong] // 3 + 1
    discount = generator.random(rows, dtype=np.float32) if with_discount else None
    log = Log(observations, actions, generator.normal(size=rows).astype(np.float32), terminals, timeouts)
    log.next_observations, log.discount = following, discount
    return log

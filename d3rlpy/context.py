"""``with parallel():`` spreads copies of an estimator over the GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_parallel: ContextVar[bool] = ContextVar("parallel", default=False)


@contextmanager
def parallel() -> Iterator[None]:
    """A block in which each copy of a ``Device``, and so each clone of an estimator that has one, is on the next GPU.

    scikit-learn clones an estimator before it sends it to a worker, so cross-validation with several workers uses
    several GPUs. Where there is one GPU or none, nothing changes.

    >>> from d3rlpy.gpu import Device
    >>> from d3rlpy.algos import DQN
    >>> with parallel():
    ...     dqn = DQN(use_gpu=Device(0))  # then cross_validate(dqn, episodes, n_jobs=2, ...)
    """
    yield from _with_flag(True)


@contextmanager
def disable_parallel() -> Iterator[None]:
    """A block inside ``parallel`` in which copies stay where they are."""
    yield from _with_flag(False)


def get_parallel_flag() -> bool:
    """Whether copies of a ``Device`` rotate."""
    return _parallel.get()


def _with_flag(flag: bool) -> Iterator[None]:
    token = _parallel.set(flag)
    try:
        yield
    finally:
        _parallel.reset(token)

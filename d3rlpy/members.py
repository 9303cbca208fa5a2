"""Several runs of one algorithm computed as one, without a word about it in the algorithm.

Inside ``with Members(n):`` a tensor may stand for n tensors, one of each member, which lie in one *stacked* tensor
behind it: ``x.shape`` is that of one member, and an operation on ``x`` is one operation on all of them. That is what
``torch.func.vmap`` does to a function; here it surrounds whole updates, so weights change in place, and losses,
gradients and random numbers can be reached as stacked tensors. The four functions of torch that this takes are not
documented; ``available`` says whether they are there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

_functorch: Any = getattr(torch._C, "_functorch", None)
_NEEDED = (
    "_add_batch_dim",
    "_set_vmap_fallback_warning_enabled",
    "_vmap_decrement_nesting",
    "_vmap_increment_nesting",
    "get_unwrapped",
    "is_batchedtensor",
    "maybe_get_bdim",
    "pop_dynamic_layer_stack",
    "push_dynamic_layer_stack",
)


class _Current(threading.local):
    members: Members | None = None


_current = _Current()


def available() -> bool:
    """Whether this torch has what running members as one takes."""
    return all(hasattr(_functorch, name) for name in _NEEDED)


def current() -> Members | None:
    """The members whose update is being computed in this thread, None for a single run."""
    return _current.members


class Members:
    """n runs that are computed together.

    Parameters
    ----------
    generators : one of each member, from which its random numbers come.
    """

    def __init__(self, generators: Sequence[torch.Generator]):
        self.generators = list(generators)
        self.n = len(self.generators)
        self._level = 0

    def __enter__(self) -> Members:
        if _current.members is not None:
            raise RuntimeError("members are being updated already, and they don't nest")
        # What torch can't do for all members at once it does for one after the other, which is no news to the user.
        _functorch._set_vmap_fallback_warning_enabled(False)
        self._level = _functorch._vmap_increment_nesting(self.n, "different")
        _current.members = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.members = None
        _functorch._vmap_decrement_nesting()
        _functorch._set_vmap_fallback_warning_enabled(True)

    def join(self, stacked: Tensor) -> Tensor:
        """One tensor ``(...)`` that stands for the n along the first axis of ``stacked`` ``(n, ...)``."""
        return _functorch._add_batch_dim(stacked, 0, self._level)

    def stacked(self, x: Tensor) -> Tensor:
        """The tensors of all members, ``(n, ...)``; of a tensor that they share, n times the same memory."""
        if not _functorch.is_batchedtensor(x):
            return x.expand(self.n, *x.shape)
        return _functorch.get_unwrapped(x).movedim(_functorch.maybe_get_bdim(x), 0)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """A block that works on stacked tensors, as if there were no members."""
        layer = _functorch.pop_dynamic_layer_stack()
        try:
            yield
        finally:
            _functorch.push_dynamic_layer_stack(layer)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block in the middle of an update that knows nothing of members, such as a callback."""
        with self.apart():
            _current.members = None
            try:
                yield
            finally:
                _current.members = self

    def lerp_(self, params: Sequence[Tensor], others: Sequence[Tensor], share: float | Tensor) -> None:
        """``params <- params + share (others - params)`` in place; the share may be each member's own."""
        mine, theirs = [self.stacked(p) for p in params], [self.stacked(p) for p in others]
        if not isinstance(share, Tensor):
            with self.apart():
                torch._foreach_lerp_(mine, theirs, share)
            return
        shares = self.stacked(share)
        with self.apart():
            for p, q in zip(mine, theirs, strict=True):
                p.lerp_(q, shares.view(-1, *[1] * (p.dim() - 1)))

    def dropout(self, x: Tensor, rate: float, shape: Sequence[int]) -> Tensor:
        """``x`` with some of it dropped and the rest scaled up; ``shape`` broadcasts to that of ``x``."""
        return x * self.drawn(shape, x.dtype, x.device, "bernoulli_", 1.0 - rate).div(1.0 - rate)

    def drawn(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, fill: str, *args: float) -> Tensor:
        """Random numbers of each member from its own generator; ``fill`` is a method such as ``normal_``."""
        with self.apart():
            stacked = torch.empty((self.n, *shape), dtype=dtype, device=device)
            for part, generator in zip(stacked, self.generators, strict=True):
                getattr(part, fill)(*args, generator=generator)
        return self.join(stacked)

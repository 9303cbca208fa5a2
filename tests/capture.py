"""A stand-in for CUDA graphs on a CPU: while Python code runs once, its calls of torch's operators are logged and their
effects undone; a replay makes the same calls on the same memory, and runs no Python code of the library.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from d3rlpy.training.engine import PlainRecorder, Work

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}
"""Operators that look at the values of a tensor, which no graph can hold."""


def tensors(values: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, torch.Tensor)]


class Log(TorchDispatchMode):
    """Every call, and what the tensors that were written to held before."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        if name in WAITING:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        for x in self.written(func, name, args, kwargs):
            if id(x) not in self.before:
                self.before[id(x)] = (x, x.detach().clone())
        out = func(*args, **kwargs)
        inputs = {x.untyped_storage().data_ptr() for x in tensors((args, kwargs))}
        outs = [x.detach() if isinstance(x, torch.Tensor) else None for x in tree_leaves(out)]
        fresh = [x is not None and x.untyped_storage().data_ptr() not in inputs for x in outs]
        self.calls.append((func, args, kwargs, outs, fresh))
        return out

    def written(self, func, name, args, kwargs):
        if "batch_norm" in name:  # which changes its statistics without saying so
            return tensors(args)
        given = [*zip(func._schema.arguments, args, strict=False)]
        given += [(a, kwargs[a.name]) for a in func._schema.arguments if a.name in kwargs]
        return [x for a, value in given if a.alias_info is not None and a.alias_info.is_write for x in tensors(value)]


class SimulatedGraph(PlainRecorder):
    """Records operators instead of Python code."""

    def record(self, work: Work) -> Work:
        random = torch.get_rng_state()
        log = Log()
        try:
            with log:
                work()
        finally:
            with torch.no_grad():
                for x, old in reversed(list(log.before.values())):
                    x.detach().copy_(old)
            torch.set_rng_state(random)

        def replay() -> None:
            with torch.no_grad():
                for func, args, kwargs, outs, fresh in log.calls:
                    for out, is_fresh, new in zip(outs, fresh, tree_leaves(func(*args, **kwargs)), strict=True):
                        if is_fresh:
                            out.copy_(new)

        return replay

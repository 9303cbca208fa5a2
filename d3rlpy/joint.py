"""Several built estimators of one algorithm, updated as one: their weights stacked, their code run once.

The members differ in their seed and in numbers that enter the losses (``alpha``, ``tau``, learning rates, ...). While
they are joined, the weights of a member are a slice of the stacked ones, so it can be evaluated at any time; its
optimizers, random numbers and mini-batches stay its own, and it learns what it would have learned alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .hyperparameters import fields_of
from .impl import AlgorithmImpl, Batch, Metrics, training_mode
from .members import Members, available, current
from .models.optimizers import Optimizer

if TYPE_CHECKING:
    from .base import Algo

OF_THE_DATA = {"gamma", "n_steps", "random_state"}
"""Parameters that may differ because mini-batches and random numbers are each member's own."""


def reason_apart(algos: Sequence[Algo]) -> str | None:
    """Why these estimators can't be updated as one; None if they can."""
    first = algos[0]
    if not available():
        return f"torch {torch.__version__} lacks what it takes"
    if any(type(algo) is not type(first) for algo in algos):
        return "they are different algorithms"
    if first.Impl.alone:
        return first.Impl.alone
    for name in fields_of(type(first)):
        values = [getattr(algo, name) for algo in algos]
        if name not in OF_THE_DATA and not _same(values) and not all(map(_is_number, values)):
            return f"{name} takes the values {values}, and only numbers with a point may differ"
    return None


def _same(values: Sequence[Any]) -> bool:
    """Whether all are equal; of objects such as scalers, whether they are written alike."""
    return all(value == values[0] or repr(value) == repr(values[0]) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, float)


class Joint:
    """What updates several built estimators as one.

    Parameters
    ----------
    algos : estimators of the same algorithm, built for the same shapes, for which ``reason_apart`` is None.
    """

    def __init__(self, algos: Sequence[Algo]):
        self.algos = list(algos)
        self.impls: list[AlgorithmImpl] = [algo.impl for algo in algos]

    @contextmanager
    def training(self) -> Iterator[AlgorithmImpl]:
        """The impl that stands for all members, for ``step``."""
        members = Members([algo.stream_.generator() for algo in self.algos])
        stacks = self._stack()
        try:
            with members:
                impl = self._template(members, stacks)
                with training_mode(impl):
                    yield impl
        finally:
            self._unstack()
            self._return_generators(members)

    @contextmanager
    def paused(self, impl: AlgorithmImpl) -> Iterator[None]:
        """A block between two updates in which each member is what it would be alone, and may get other parameters."""
        members = current()
        assert members is not None
        self._return_generators(members)
        with members.paused():
            yield
        members.generators = [algo.stream_.generator() for algo in self.algos]
        impl.hp = JointParameters(self.algos, members, self.impls[0])

    def _return_generators(self, members: Members) -> None:
        for algo, generator in zip(self.algos, members.generators, strict=True):
            algo.stream_.continue_from(generator)

    def _tensors(self) -> Iterator[tuple[Tensor, ...]]:
        """Each parameter and buffer of all members."""
        for get in (torch.nn.Module.parameters, torch.nn.Module.buffers):
            yield from zip(*(get(impl) for impl in self.impls), strict=True)

    def _stack(self) -> dict[int, Tensor]:
        """Make the tensors of the members slices of stacked ones; these by the ``id`` of the first member's tensor."""
        stacks = {}
        for each in self._tensors():
            like = each[0].detach()  # each slice lies in memory as it did, for instance channels last
            stacked = torch.empty_strided((len(each), *like.shape), (like.numel(), *like.stride()), dtype=like.dtype,
                                          device=like.device)  # fmt: skip
            for tensor, part in zip(each, stacked, strict=True):
                tensor.data = part.copy_(tensor.detach())
            stacks[id(each[0])] = stacked.requires_grad_(each[0].requires_grad)
        return stacks

    def _unstack(self) -> None:
        """Give each member tensors of its own again, so that a file of one does not hold all."""
        for each in self._tensors():
            for tensor in each:
                tensor.data = tensor.detach().clone()

    def _template(self, members: Members, stacks: dict[int, Tensor]) -> AlgorithmImpl:
        """A copy of the first impl in which every tensor, optimizer and parameter stands for those of all."""
        first = self.impls[0]
        replacements: dict[int, Any] = {key: members.join(stacked) for key, stacked in stacks.items()}
        replacements[id(first.hp)] = JointParameters(self.algos, members, first)
        for name, optim in first.optimizers().items():
            each = [impl.optimizers()[name] for impl in self.impls]
            replacements[id(optim)] = JointOptimizer(each, [stacks[id(p)] for p in optim.params])
        return copy.deepcopy(first, replacements)

    def join(self, batches: Sequence[Batch]) -> Batch:
        """One batch that stands for one of each member."""
        members, kind = current(), type(batches[0])
        assert members is not None
        with members.apart():
            stacked = [torch.stack([getattr(batch, f.name) for batch in batches]) for f in fields(kind)]
        return kind(*map(members.join, stacked))

    def step(self, impl: AlgorithmImpl, batches: Sequence[Batch]) -> Metrics:
        """One update of all; metrics ``(n,)``."""
        members = current()
        assert members is not None
        metrics = impl.step(self.join(batches))
        for member in self.impls:
            member.grad_step = impl.grad_step
        return {name: members.stacked(value) for name, value in metrics.items()}


class JointOptimizer(Optimizer):
    """The optimizers of all members.

    Parameters
    ----------
    optims : one of each member.
    params : what they optimise, stacked.
    """

    def __init__(self, optims: Sequence[Optimizer], params: list[Tensor]):
        self.optims = list(optims)
        self.params = params

    def minimize(self, loss: Tensor) -> None:
        """One gradient step of each member; the losses of the others do not depend on its weights."""
        members = current()
        assert members is not None
        losses = members.stacked(loss)
        with members.apart():
            grads = torch.autograd.grad(losses.sum(), self.params, allow_unused=True)
            for r, optim in enumerate(self.optims):
                optim.apply([None if grad is None else grad[r] for grad in grads])


class JointParameters:
    """The hyper-parameters of all members: a number where they agree, a tensor that stands for several elsewhere."""

    def __init__(self, algos: Sequence[Algo], members: Members, impl: AlgorithmImpl):
        self._first = algos[0]
        like = next(p for p in impl.parameters())
        for name in fields_of(type(algos[0])):
            values = [getattr(algo, name) for algo in algos]
            if name in OF_THE_DATA - {"gamma"} or _same(values):
                continue
            if not all(map(_is_number, values)):
                raise ValueError(f"{name} takes the values {values} in runs that are updated as one: make it the same")
            if name.endswith("learning_rate"):  # the optimizers know theirs; impls ask whether there is one
                setattr(self, name, _rate(name, values))
            else:
                setattr(self, name, members.join(torch.tensor(values, dtype=like.dtype, device=like.device)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)


def _rate(name: str, values: Sequence[float]) -> float:
    if min(values) == 0 < max(values):
        raise ValueError(f"{name} is 0 for some and {max(values)} for others: what is frozen must be so in all")
    return values[0]

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

from .hyperparameters import fields_of, type_name
from .impl import AlgorithmImpl, Batch, Metrics, training_mode
from .members import Members, available
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
    declared = fields_of(type(first))
    for name in declared:
        values = [getattr(algo, name) for algo in algos]
        if name in OF_THE_DATA or _same(values):
            continue
        if type_name(declared[name]) != "float":
            return f"{name} takes the values {values}, and only numbers with a point may differ"
        if name.endswith("learning_rate") and min(values) == 0 < max(values):
            return f"{name} is 0 for some and {max(values)} for others"
    return None


def _same(values: Sequence[Any]) -> bool:
    """Whether all are equal; of objects such as scalers, whether they are written alike."""
    return all(value is values[0] or repr(value) == repr(values[0]) for value in values)


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
        members = Members([algo.stream_.lend_to(torch.Generator(algo.impl.device)) for algo in self.algos])
        self.members = members
        stacks = self._stack()
        try:
            with members:
                impl = self._template(members, stacks)
                before = plain_attributes(impl)
                try:
                    with training_mode(impl):
                        yield impl
                finally:
                    self.count(impl)
            self._check_attributes(impl, before)
        finally:
            self._unstack()
            self._return_generators(members)

    def _check_attributes(self, impl: AlgorithmImpl, before: dict[str, Any]) -> None:
        """Raise if an update keeps something that can't be given back to the members."""
        after = plain_attributes(impl)
        changed = [name for name in after if name not in before or before[name] != after[name]]
        if changed:
            kind = type(self.impls[0]).__name__
            raise RuntimeError(
                f"an update of {kind} changes {changed}, which runs that are updated as one can't keep apart: "
                f"make it a buffer, or give {kind} an attribute alone = 'why'"
            )

    @contextmanager
    def paused(self, impl: AlgorithmImpl) -> Iterator[None]:
        """A block between two updates in which each member is what it would be alone, and may get other parameters."""
        members = self.members
        self._return_generators(members)
        self.count(impl)
        settings = self.settings()
        with members.paused():
            yield
        steps = {member.grad_step for member in self.impls}
        if len(steps) > 1:
            raise ValueError(f"runs that are updated as one have made {sorted(steps)} updates: load models of one step")
        impl.grad_step = steps.pop()
        for algo, generator in zip(self.algos, members.generators, strict=True):
            algo.stream_.lend_to(generator)
        if self.settings() != settings:
            impl.hp = JointParameters(self.algos, members, self.impls[0])

    def settings(self) -> list[list[Any]]:
        """The hyper-parameters of all members."""
        return [[getattr(algo, name) for name in fields_of(type(algo))] for algo in self.algos]

    def count(self, impl: AlgorithmImpl) -> None:
        """Tell the members how many updates were made."""
        for member in self.impls:
            member.grad_step = impl.grad_step

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
            replacements[id(optim)] = JointOptimizer(members, each, [stacks[id(p)] for p in optim.params])
        return copy.deepcopy(first, replacements)

    def join(self, batches: Sequence[Batch]) -> Batch:
        """One batch that stands for one of each member."""
        members, kind = self.members, type(batches[0])
        with members.apart():
            stacked = [torch.stack([getattr(batch, f.name) for batch in batches]) for f in fields(kind)]
        return kind(*map(members.join, stacked))

    def step(self, impl: AlgorithmImpl, batches: Sequence[Batch]) -> Metrics:
        """One update of all; metrics ``(n,)``."""
        return self.step_joined(impl, self.join(batches))

    def step_joined(self, impl: AlgorithmImpl, batch: Batch) -> Metrics:
        """``step`` with a batch of ``join``."""
        return {name: self.members.stacked(value) for name, value in impl.step(batch).items()}


def plain_attributes(impl: AlgorithmImpl) -> dict[str, Any]:
    """Numbers and words that the modules of an impl hold, by name; modes and the number of the update apart."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, module in impl.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, (bool, int, float, str)) and name not in ("grad_step", "training")
    }


class JointOptimizer(Optimizer):
    """The optimizers of all members.

    Parameters
    ----------
    members : to whom the stacked tensors belong.
    optims : one of each member.
    params : what they optimise, stacked.
    """

    def __init__(self, members: Members, optims: Sequence[Optimizer], params: list[Tensor]):
        self.members = members
        self.optims = list(optims)
        self.params = params

    @property
    def n_steps(self) -> int:
        return self.optims[0].n_steps

    @n_steps.setter
    def n_steps(self, n: int) -> None:
        for optim in self.optims:
            optim.n_steps = n

    def keep_rate_on_device(self) -> None:
        for optim in self.optims:
            optim.keep_rate_on_device()

    @property
    def uncaptured(self) -> str | None:
        return self.optims[0].uncaptured

    @property
    def captured_state(self) -> object:
        states = [optim.captured_state for optim in self.optims]
        return None if None in states else states

    def minimize(self, loss: Tensor) -> None:
        """One gradient step of each member; the losses of the others do not depend on its weights."""
        losses = self.members.stacked(loss)
        with self.members.apart():
            grads = torch.autograd.grad(losses.sum(), self.params, allow_unused=True)
            for r, optim in enumerate(self.optims):
                optim.apply([None if grad is None else grad[r] for grad in grads])


class JointParameters:
    """The hyper-parameters of all members: a number where they agree, a tensor that stands for several elsewhere."""

    def __init__(self, algos: Sequence[Algo], members: Members, impl: AlgorithmImpl):
        self._first = algos[0]
        like = next(p for p in impl.parameters())
        if reason := reason_apart(algos):
            raise ValueError(f"runs that are updated as one can't go on: {reason}")
        for name in fields_of(type(algos[0])):
            values = [getattr(algo, name) for algo in algos]
            if name in OF_THE_DATA - {"gamma"} or _same(values):
                continue
            if name.endswith("learning_rate"):  # the optimizers know theirs; impls ask whether there is one
                setattr(self, name, values[0])
            else:
                setattr(self, name, members.join(torch.tensor(values, dtype=like.dtype, device=like.device)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)

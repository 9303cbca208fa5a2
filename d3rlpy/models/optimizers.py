"""Optimizer factories, and the one step that every loss of the library is minimised with."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from ..registry import Configurable, Registry


class Optimizer:
    """A torch optimizer with gradient clipping and a learning-rate schedule.

    Parameters
    ----------
    torch_optim : optimizer over one group of parameters.
    factory : its maker, which knows clipping and schedule.
    lr : learning rate before the schedule.
    rate_name : the hyper-parameter that holds the learning rate.
    """

    def __init__(
        self,
        torch_optim: torch.optim.Optimizer,
        factory: OptimizerFactory,
        lr: float,
        rate_name: str = "learning_rate",
    ):
        self.torch_optim = torch_optim
        if len(torch_optim.param_groups) != 1:
            raise ValueError(f"{type(factory).__name__}.build must return an optimizer with one group of parameters")
        self.params: list[Tensor] = torch_optim.param_groups[0]["params"]
        self.factory = factory
        self.rate_name = rate_name
        self.n_steps = 0
        self._direct: DirectAdam | None = None
        self._rate: Tensor | None = None
        self.learning_rate = lr

    @property
    def learning_rate(self) -> float:
        """Learning rate before the schedule; setting it acts on the next step."""
        return self._lr

    @learning_rate.setter
    def learning_rate(self, lr: float) -> None:
        self._lr = lr
        self.torch_optim.param_groups[0]["lr"] = lr * self.factory.multiplier(self.n_steps)
        if self._rate is not None:
            self._rate.fill_(lr)

    def keep_rate_on_device(self) -> None:
        """Have the learning rate and its schedule on the device, so that a captured step does not repeat one rate."""
        if self._rate is None:
            self._rate = torch.tensor(self._lr, dtype=torch.float32, device=self.params[0].device)

    @property
    def uncaptured(self) -> str | None:
        """Why its steps can't be captured."""
        if DirectAdam.kernel_of(self.torch_optim) is None or not self.torch_optim.param_groups[0]["fused"]:
            return f"{type(self.torch_optim).__name__} has no step that can be captured, Adam and AdamW have"
        if type(self.factory).multiplier is not OptimizerFactory.multiplier:
            return f"{type(self.factory).__name__} has a schedule of its own, which the host computes"
        return None

    @property
    def captured_state(self) -> object:
        """What a captured step works on; another object after ``reset`` or ``load_state_dict``."""
        return self._direct

    def minimize(self, loss: Tensor) -> None:
        """One gradient step. Gradients are computed for the own parameters and for nothing else."""
        self.apply(self.gradients(loss))

    def gradients(self, loss: Tensor) -> Sequence[Tensor | None]:
        """Gradients of the own parameters, None for those that the loss does not depend on."""
        return torch.autograd.grad(loss, self.params, allow_unused=True)

    def apply(self, grads: Sequence[Tensor | None]) -> None:
        """Clip the gradients, set the learning rate, and step."""
        grads = [g if g is None else as_laid_out(g, p) for g, p in zip(grads, self.params, strict=True)]
        if self.factory.clip_grad_norm is not None:
            clip(grads, self.factory.clip_grad_norm)
        if self.factory.scheduled:
            self.torch_optim.param_groups[0]["lr"] = self._lr * self.factory.multiplier(self.n_steps)
        if self._direct is None or any(grad is None for grad in grads):
            self._torch_step(grads)
        else:
            rate = self._rate if self._rate is None else self.factory.scheduled_rate(self._rate, self._direct.count)
            self._direct.step(cast(Sequence[Tensor], grads), rate)
        self.n_steps += 1

    def _torch_step(self, grads: Sequence[Tensor | None]) -> None:
        self._flush()
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = grad
        self.torch_optim.step()
        for param in self.params:
            param.grad = None
        self._direct = DirectAdam.of(self.torch_optim)

    def _flush(self) -> None:
        if self._direct is not None:
            self._direct.flush()

    def state_dict(self) -> dict[str, Any]:
        """State of the torch optimizer and the number of steps, as ``torch.load(weights_only=True)`` reads it."""
        self._flush()
        return {"optim": self.torch_optim.state_dict(), "n_steps": self.n_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``; the learning rate stays the one of this object."""
        self.torch_optim.load_state_dict(state["optim"])
        self._direct = None
        self.n_steps = state["n_steps"]
        self.learning_rate = self._lr

    def reset(self) -> None:
        """Forget moments and steps."""
        self.torch_optim.state.clear()
        self._direct = None
        self.n_steps = 0
        self.learning_rate = self._lr

    def __getstate__(self) -> dict[str, Any]:
        self._flush()
        return {**self.__dict__, "_direct": None}


def as_laid_out(grad: Tensor, param: Tensor) -> Tensor:
    """The gradient in the memory layout of its parameter: torch's fused kernels walk through both in one order."""
    return grad if grad.stride() == param.stride() else torch.empty_like(param).copy_(grad)


def clip(grads: Sequence[Tensor | None], largest: float) -> None:
    """Scale all gradients by the same factor, so that their common norm is at most ``largest``."""
    present = [g for g in grads if g is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(present)))
    torch._foreach_mul_(present, (largest / (norm + 1e-6)).clamp(max=1.0))


class DirectAdam:
    """The step of a fused Adam without the bookkeeping of ``Optimizer.step``, on that optimizer's own state.

    For small networks the bookkeeping costs more than the step. One counter serves all parameters; ``flush`` writes it
    back into the state.
    """

    def __init__(self, kernel: Callable[..., None], optim: torch.optim.Optimizer):
        self.kernel = kernel
        self.group = optim.param_groups[0]
        self.states = [optim.state[p] for p in self.group["params"]]
        self.means, self.squares = ([s[k] for s in self.states] for k in ("exp_avg", "exp_avg_sq"))
        self.largest = [s["max_exp_avg_sq"] for s in self.states] if self.group["amsgrad"] else []
        self.count = self.states[0]["step"].clone()
        self.counts = [self.count] * len(self.states)

    @classmethod
    def of(cls, optim: torch.optim.Optimizer) -> DirectAdam | None:
        """None for another optimizer, where torch lacks the kernel, or before the first step, which makes the state."""
        kernel = cls.kernel_of(optim)
        group = optim.param_groups[0]
        states = [optim.state.get(p, {}) for p in group["params"]]
        if kernel is None or not group["fused"] or not all(states) or len({float(s["step"]) for s in states}) > 1:
            return None
        return cls(kernel, optim)

    @staticmethod
    def kernel_of(optim: torch.optim.Optimizer) -> Callable[..., None] | None:
        """Torch's fused step for this optimizer."""
        names: dict[type, str] = {torch.optim.Adam: "_fused_adam_", torch.optim.AdamW: "_fused_adamw_"}
        return getattr(torch, names.get(type(optim), ""), None)

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], rate: Tensor | None = None) -> None:
        """One step with the gradients of all parameters, at this learning rate or at the group's."""
        group = self.group
        lr: float | Tensor = group["lr"] if rate is None else rate
        beta1, beta2 = group["betas"]
        self.count.add_(1)
        self.kernel(
            group["params"], grads, self.means, self.squares, self.largest, self.counts, lr=lr,
            beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=group["amsgrad"],
            maximize=False, grad_scale=None, found_inf=None,
        )  # fmt: skip

    def flush(self) -> None:
        """Write the number of steps into the optimizer's state."""
        for state in self.states:
            state["step"].copy_(self.count)


@dataclass(frozen=True, kw_only=True)
class OptimizerFactory(Configurable, ABC):
    """How parameters are optimised; the learning rate is a hyper-parameter of the algorithm.

    The rate is multiplied by ``k / warmup_steps`` during the first ``warmup_steps`` gradient steps and then, if
    ``cosine_steps`` is given, by half a cosine that falls to 0 over ``cosine_steps`` gradient steps. Derive from
    this class, give it a ``TYPE`` and a ``build``, and register it for an optimizer of your own.

    Parameters
    ----------
    clip_grad_norm : the gradient is scaled down to at most this norm; None does not clip.
    warmup_steps : gradient steps of linear warm-up.
    cosine_steps : gradient steps of the cosine decay; None keeps the rate constant.
    """

    clip_grad_norm: float | None = None
    warmup_steps: int = 0
    cosine_steps: int | None = None

    def __post_init__(self) -> None:
        limits = {
            "clip_grad_norm": 1e-12,
            "cosine_steps": 1,
            "warmup_steps": 0,
            "weight_decay": 0,
            "eps": 0,
            "momentum": 0,
        }
        for name, low in limits.items():
            value = getattr(self, name, None)
            if value is not None and not low <= value < math.inf:
                raise ValueError(f"{type(self).__name__}: {name}={value!r} must be a number of at least {low}")

    @abstractmethod
    def build(self, params: list[Tensor], lr: float) -> torch.optim.Optimizer:
        """The torch optimizer itself."""

    def create(self, params: Iterable[Tensor], lr: float, rate_name: str = "learning_rate") -> Optimizer:
        """Optimizer of ``params`` at learning rate ``lr``."""
        return Optimizer(self.build(list(params), lr), self, lr, rate_name)

    @property
    def scheduled(self) -> bool:
        """Whether the learning rate changes from step to step."""
        return self.warmup_steps > 0 or self.cosine_steps is not None

    def multiplier(self, n_steps: int) -> float:
        """Share of the learning rate at the step that follows ``n_steps`` steps."""
        if n_steps < self.warmup_steps:
            return (n_steps + 1) / self.warmup_steps
        if self.cosine_steps is None:
            return 1.0
        progress = min(1.0, (n_steps - self.warmup_steps) / self.cosine_steps)
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    def scheduled_rate(self, rate: Tensor, count: Tensor) -> Tensor:
        """``rate`` times ``multiplier`` after ``count`` steps, without a look at the values of the two."""
        if not self.scheduled:
            return rate
        factor = torch.ones_like(rate)
        if self.cosine_steps is not None:
            progress = ((count - self.warmup_steps) / self.cosine_steps).clamp(0.0, 1.0)
            factor = 0.5 * (1.0 + torch.cos(math.pi * progress))
        if self.warmup_steps > 0:
            factor = torch.where(count < self.warmup_steps, (count + 1) / self.warmup_steps, factor)
        return (rate * factor).to(rate.dtype)


OPTIMIZERS: Registry[OptimizerFactory] = Registry("optimizer factory", OptimizerFactory)  # type: ignore[type-abstract]


@OPTIMIZERS.register
@dataclass(frozen=True, kw_only=True)
class SGDFactory(OptimizerFactory):
    """Stochastic gradient descent."""

    TYPE: ClassVar[str] = "sgd"
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def build(self, params: list[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr, self.momentum, self.dampening, self.weight_decay, self.nesterov, fused=True)


@OPTIMIZERS.register
@dataclass(frozen=True, kw_only=True)
class AdamFactory(OptimizerFactory):
    """Adam (Kingma and Ba, 2015)."""

    TYPE: ClassVar[str] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "betas", tuple(self.betas))

    def build(self, params: list[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr, self.betas, self.eps, self.weight_decay, self.amsgrad, fused=True)


@OPTIMIZERS.register
@dataclass(frozen=True, kw_only=True)
class AdamWFactory(AdamFactory):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    TYPE: ClassVar[str] = "adamw"
    weight_decay: float = 0.01

    def build(self, params: list[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr, self.betas, self.eps, self.weight_decay, self.amsgrad, fused=True)


@OPTIMIZERS.register
@dataclass(frozen=True, kw_only=True)
class RMSpropFactory(OptimizerFactory):
    """RMSprop, centered, with decay and offset of Mnih et al. (2015), extended data table 1.

    They add the offset inside the square root, torch adds it outside, which makes small gradients move further; and
    their momentum of 0.95 is what ``alpha`` does for the mean that is subtracted.
    """

    TYPE: ClassVar[str] = "rmsprop"
    alpha: float = 0.95
    eps: float = 1e-2
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = True

    def build(self, params: list[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(
            params, lr, self.alpha, self.eps, self.weight_decay, self.momentum, self.centered, foreach=True
        )


def register_optimizer_factory(cls: type[OptimizerFactory]) -> type[OptimizerFactory]:
    """Make an own optimizer factory known by its ``TYPE``."""
    return OPTIMIZERS.register(cls)


def create_optimizer_factory(name: str, **params: Any) -> OptimizerFactory:
    """Optimizer factory by name: ``sgd``, ``adam``, ``adamw``, ``rmsprop`` or a registered one."""
    return OPTIMIZERS.create(name, **params)

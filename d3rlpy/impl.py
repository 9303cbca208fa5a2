"""The torch half of an algorithm: networks, optimizers, losses and one ``update``.

An algorithm derives from ``ActorCriticImpl`` (a policy and critics) or ``QLearningImpl`` (discrete actions, the greedy
policy), or, if it has no Q function, from ``AlgorithmImpl``, and adds what its paper adds. Nothing here reads a file, a
numpy array or the value of a tensor, and nothing waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from .kernels import settle_allocator
from .members import current
from .models.optimizers import OPTIMIZERS, Optimizer
from .models.q_functions import QEnsemble, create_q_functions, pick_action
from .models.q_functions.ensemble import frozen
from .precision import computing_in
from .preprocessing import Scalers

if TYPE_CHECKING:
    from .dataset import TransitionMiniBatch

Metrics = dict[str, Tensor]
"""Named 0-d tensors, left on the device."""

CHANGE_IN_TRAINING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
"""Layers that act otherwise while training."""

Module = TypeVar("Module", bound=nn.Module)

COLUMNS = ("observations", "actions", "rewards", "next_observations", "discounts")
"""What a batch is made of, as ``TransitionMiniBatch`` names it."""


@dataclass(slots=True)
class Batch:
    """A mini-batch as tensors on the device, observations and actions scaled.

    ``discounts`` is ``gamma^n (1 - terminal)``, the factor of the value that follows the ``n`` summed rewards.
    """

    observations: Tensor  # (batch, ...)
    actions: Tensor  # (batch, action_size) float, or (batch,) int64
    rewards: Tensor  # (batch, 1)
    next_observations: Tensor  # (batch, ...)
    discounts: Tensor  # (batch, 1)

    @classmethod
    def of(cls, mini_batch: TransitionMiniBatch, scalers: Scalers, device: torch.device) -> Batch:
        """The one conversion of a mini-batch; its rewards are scaled already, before their n-step sum."""
        return cls.of_columns(
            {name: torch.from_numpy(getattr(mini_batch, name)).to(device) for name in COLUMNS}, scalers
        )

    @classmethod
    def of_columns(cls, columns: dict[str, Tensor], scalers: Scalers) -> Batch:
        """A mini-batch that is on the device already, under the names of ``COLUMNS``."""
        observations, next_observations = columns["observations"], columns["next_observations"]
        if scalers.observation is not None:
            observations = scalers.observation.transform(observations)
            next_observations = scalers.observation.transform(next_observations)
        actions = columns["actions"]
        if not actions.is_floating_point():
            actions = actions.long()
        elif scalers.action is not None:
            actions = scalers.action.transform(actions)
        return cls(observations, actions, columns["rewards"], next_observations, columns["discounts"])


MOST_NUMBERS = 2**23
"""Numbers of the observations that a part of ``EpisodeBatch.steps`` holds at most."""


@dataclass(slots=True)
class EpisodeBatch(Batch):
    """A mini-batch that knows how the episodes of its transitions go on.

    ``steps`` are these transitions and all that follow them in their episodes, one step each, in the order of the data.
    They come in parts, so that images fit in memory, and can be gone through once.
    """

    steps: Iterable[Batch]
    continues: Tensor  # (steps, 1) float, 1 where the next one of the steps belongs to the same episode
    places: Tensor  # (batch,) int64, where the transitions of the batch stand among the steps

    @classmethod
    def of(cls, mini_batch: TransitionMiniBatch, scalers: Scalers, device: torch.device) -> EpisodeBatch:
        batch, places, n = Batch.of(mini_batch, scalers, device), torch.empty(len(mini_batch), dtype=torch.int64), 0
        size = max(1, MOST_NUMBERS // batch.observations[0].numel())
        parts: list[Any] = []
        continues: list[Tensor] = []
        for source, positions in getattr(mini_batch, "parts", [(mini_batch, slice(None))]):
            following = source.rows.following(source.indices)
            parts += [(source, following[start : start + size]) for start in range(0, len(following), size)]
            continues.append(torch.from_numpy(source.rows.continues(following)).to(device, torch.float32)[:, None])
            places[positions] = torch.from_numpy(source.rows.places(following, source.indices)) + n
            n += len(following)
        steps = (Batch.of(source.single_steps(part), scalers, device) for source, part in parts)
        fields = (batch.observations, batch.actions, batch.rewards, batch.next_observations, batch.discounts)
        return cls(*fields, steps, torch.cat(continues), places.to(device))


@dataclass(slots=True)
class ReturnBatch(Batch):
    """A mini-batch that knows what its transitions have earned to the end of their episodes."""

    returns: Tensor  # (batch, 1), discounted sums of scaled rewards, see ``TransitionMiniBatch.returns_to_go``

    @classmethod
    def of(cls, mini_batch: TransitionMiniBatch, scalers: Scalers, device: torch.device) -> ReturnBatch:
        batch = Batch.of(mini_batch, scalers, device)
        fields = (batch.observations, batch.actions, batch.rewards, batch.next_observations, batch.discounts)
        return cls(*fields, torch.from_numpy(mini_batch.returns_to_go()).to(device))


def target_copy(module: Module) -> Module:
    """A copy that no gradient and no training mode reaches; assign it to an attribute ``targ_...``."""
    return deepcopy(module).requires_grad_(False).eval()


def gradient_step(optim: Optimizer, loss: Tensor) -> None:
    """Minimise ``loss`` over the optimizer's own parameters; no other parameter receives a gradient."""
    optim.minimize(loss)


@torch.no_grad()
def soft_sync(target: nn.Module, source: nn.Module, tau: float) -> None:
    """``target <- target + tau (source - target)``; buffers such as batch-norm statistics are copied."""
    params, source_params, has_buffers = _lists_of(target, source)
    members = current()
    if members is None:
        torch._foreach_lerp_(params, source_params, tau)
    else:
        members.lerp_(params, source_params, tau)
    if has_buffers:  # moving a module replaces its buffers, so they are looked up each time
        for copy, buffer in zip(target.buffers(), source.buffers(), strict=True):
            copy.copy_(buffer)


Lists = tuple[list[Tensor], list[Tensor], bool]
_lists: WeakKeyDictionary[nn.Module, tuple[ref[nn.Module], Lists]] = WeakKeyDictionary()


def _lists_of(target: nn.Module, source: nn.Module) -> Lists:
    """Parameters of both, and whether there are buffers; walking through modules costs as much as the update itself."""
    if target not in _lists or _lists[target][0]() is not source:
        lists: tuple[Any, Any, bool] = (
            list(target.parameters()),
            list(source.parameters()),
            next(target.buffers(), None) is not None,
        )
        _lists[target] = (ref(source), lists)
    return _lists[target][1]


def hard_sync(target: nn.Module, source: nn.Module) -> None:
    """``target <- source``, parameters and buffers."""
    target.load_state_dict(source.state_dict())


def expected_values(q_funcs: QEnsemble, observations: Tensor, actions: Tensor) -> Tensor:
    """Expected value of each pair by each critic, ``(critics, batch)``, whatever the kind of actions."""
    if not q_funcs.discrete:
        return q_funcs(observations, actions).squeeze(2)
    return pick_action(q_funcs(observations)[..., None], actions).squeeze(2)  # from (critics, batch, actions)


Question = tuple[str, int]
"""``("due", interval)`` or ``("past", n_updates)``."""


def answer(question: Question, grad_step: int) -> bool:
    """What ``is_due`` and ``is_past`` say in the update with this number."""
    kind, number = question
    return grad_step % number == 0 if kind == "due" else grad_step > number


@contextmanager
def training_mode(impl: nn.Module) -> Iterator[None]:
    """Networks in training mode and gradients on, whatever surrounds the block; afterwards as before."""
    before = impl.training
    settle_allocator()
    impl.train()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        impl.train(before)


class AlgorithmImpl(nn.Module, ABC):
    """Networks and optimizers of one algorithm, and how they are updated.

    Parameters
    ----------
    hp : the estimator, whose hyper-parameters are read at use, so that ``set_params`` acts on the next update.
    observation_shape : of one observation, frames stacked.
    action_size : number of action dimensions, or of discrete actions.
    device : where the networks live.
    """

    batch_type: type[Batch] = Batch
    """What ``update`` takes: ``EpisodeBatch`` or ``ReturnBatch`` where it learns from the rest of episodes."""
    policy_modules: tuple[str, ...] = ("policy", "targ_policy")
    """Attributes that ``copy_policy_from`` copies: what acts, its slow copy, and further networks it acts through."""
    alone: str | None = None
    """Why an update can neither be captured nor be one for several runs: it looks at the value of a tensor, say."""
    q_modules: tuple[str, ...] = ("q_funcs", "targ_q_funcs")
    """Attributes that ``copy_q_function_from`` copies."""

    def __init__(self, hp: Any, observation_shape: tuple[int, ...], action_size: int, device: torch.device):
        super().__init__()
        self.hp = hp
        self.observation_shape = tuple(observation_shape)
        self.action_size = action_size
        self.device = device
        self.grad_step = 0
        self.questions: set[Question] | None = None  # while somebody listens, what updates ask about their number
        self.build()
        self.to(device=device, dtype=torch.float32)
        self.changes_in_training = any(isinstance(m, CHANGE_IN_TRAINING) for m in self.modules())
        self.eval()

    @abstractmethod
    def build(self) -> None:
        """Create networks, target networks (``targ_...``) and optimizers."""

    @abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """One round of gradient steps, as in the paper's pseudo-code."""

    @abstractmethod
    def best_action(self, observations: Tensor) -> Tensor:
        """Greedy actions ``(batch, action_size)`` or ``(batch,)``, without randomness."""

    def sample_action(self, observations: Tensor) -> Tensor:
        """Actions drawn from the policy; the greedy ones for a deterministic policy."""
        return self.best_action(observations)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """No gradients, and networks act as in evaluation: for targets and weights, which are constants of a loss."""
        with torch.no_grad(), frozen(self) if self.changes_in_training else nullcontext():
            yield

    def step(self, batch: Batch) -> Metrics:
        """Count the update, k = 1, 2, ..., and make it. What has the interval i happens when k % i == 0."""
        self.grad_step += 1
        if self.hp.precision == "float32":
            return self.update(batch)
        with computing_in(self.hp.precision, self.device):
            return self.update(batch)

    def is_due(self, interval: int) -> bool:
        """Whether something that happens every ``interval`` updates happens in this one."""
        return self._answer(("due", interval))

    def is_past(self, n_updates: int) -> bool:
        """Whether this update comes after the first ``n_updates``."""
        return self._answer(("past", n_updates))

    def _answer(self, question: Question) -> bool:
        if self.questions is not None:
            self.questions.add(question)
        return answer(question, self.grad_step)

    def optimizer(self, role: str, modules: Iterable[nn.Module]) -> Optimizer:
        """Optimizer of the parameters of ``modules`` from ``{role}_optim_factory`` and ``{role}_learning_rate``.

        An empty role means ``optim_factory`` and ``learning_rate``.
        """
        prefix = role and f"{role}_"
        params = [p for module in modules for p in module.parameters()]
        factory = OPTIMIZERS.resolve(getattr(self.hp, f"{prefix}optim_factory"))
        rate_name = f"{prefix}learning_rate"
        return factory.create(params, getattr(self.hp, rate_name), rate_name)

    def optimizers(self) -> dict[str, Optimizer]:
        """Optimizers by attribute name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Optimizer)}

    def refresh_learning_rates(self) -> None:
        """Take over learning rates that ``set_params`` has changed."""
        for optim in self.optimizers().values():
            optim.learning_rate = getattr(self.hp, optim.rate_name)

    def complaints(self) -> list[str]:
        """What networks find wrong with their settings, to be told to the user; it waits for the device."""
        online = [child for name, child in self.named_children() if not name.startswith("targ_")]
        found = [getattr(module, "complaint", lambda: None)() for child in online for module in child.modules()]
        return [text for text in found if text]

    def train(self, mode: bool = True) -> AlgorithmImpl:
        """Training mode for the online networks; target networks stay in evaluation mode."""
        super().train(mode)
        for name, module in self.named_children():
            if name.startswith("targ_"):
                module.eval()
        return self


class ValueImpl(AlgorithmImpl):
    """An ensemble of Q functions and its slow copy, trained by temporal differences."""

    q_funcs: QEnsemble
    targ_q_funcs: QEnsemble

    @abstractmethod
    def target(self, batch: Batch) -> Tensor:
        """Value of what follows, ``(batch, 1)`` or ``(batch, quantiles)``."""

    def td_target(self, batch: Batch) -> Tensor:
        """``r + gamma^n (1 - d) target``."""
        with self.reading():
            return batch.rewards + batch.discounts * self.target(batch)

    def td_loss(self, batch: Batch) -> Tensor:
        """Error of ``Q(s, a)`` against ``r + gamma^n (1 - d) target``, summed over critics."""
        return self.q_funcs.td_loss(self.td_target(batch), batch.observations, batch.actions)

    def value(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Expected value of each critic, ``(critics, batch)``."""
        return expected_values(self.q_funcs, observations, actions)


class ActorCriticImpl(ValueImpl):
    """A policy, an ensemble of critics, and slow copies of both where the algorithm has them."""

    policy: nn.Module
    actor_optim: Optimizer
    critic_optim: Optimizer

    def build_critics(self) -> None:
        """Critics, their slow copies and their optimizer."""
        hp, shape, n_act = self.hp, self.observation_shape, self.action_size
        discrete = hp.action_space == "discrete"
        self.q_funcs = create_q_functions(
            hp.q_func_factory, hp.critic_encoder_factory, shape, n_act, hp.n_critics, discrete
        )
        self.targ_q_funcs = target_copy(self.q_funcs)
        self.critic_optim = self.optimizer("critic", [self.q_funcs])

    @abstractmethod
    def actor_loss(self, batch: Batch) -> Tensor:
        """What the policy minimises."""

    def critic_loss(self, batch: Batch) -> Tensor:
        return self.td_loss(batch)

    def update_critic(self, batch: Batch) -> Metrics:
        loss = self.critic_loss(batch)
        gradient_step(self.critic_optim, loss)
        return {"critic_loss": loss.detach()}

    def update_actor(self, batch: Batch) -> Metrics:
        loss = self.actor_loss(batch)
        gradient_step(self.actor_optim, loss)
        return {"actor_loss": loss.detach()}

    def update_critic_target(self) -> None:
        soft_sync(self.targ_q_funcs, self.q_funcs, self.hp.tau)

    def best_action(self, observations: Tensor) -> Tensor:
        return self.policy(observations)


class QLearningImpl(ValueImpl):
    """An ensemble of Q(s, .) over discrete actions, and its slow copy. The policy is the greedy one."""

    policy_modules: tuple[str, ...] = ("q_funcs", "targ_q_funcs")

    def build(self) -> None:
        hp, shape, n_act = self.hp, self.observation_shape, self.action_size
        self.q_funcs = create_q_functions(
            hp.q_func_factory, hp.encoder_factory, shape, n_act, hp.n_critics, discrete=True
        )
        self.targ_q_funcs = target_copy(self.q_funcs)
        self.optim = self.optimizer("", [self.q_funcs])

    def loss(self, batch: Batch) -> Tensor:
        return self.td_loss(batch)

    def update(self, batch: Batch) -> Metrics:
        loss = self.loss(batch)
        gradient_step(self.optim, loss)
        if self.is_due(self.hp.target_update_interval):
            hard_sync(self.targ_q_funcs, self.q_funcs)
        return {"loss": loss.detach()}

    def best_action(self, observations: Tensor) -> Tensor:
        return self.q_funcs.best_action(observations)

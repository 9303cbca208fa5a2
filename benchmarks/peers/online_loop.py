"""RLPD as a plain program writes it: critics one by one, torch's modules, autograd and Adam as they come.

Written from Ball et al. 2023, "Efficient online reinforcement learning with offline data", arXiv:2302.02948v4,
algorithm 1, with the corrections of ``d3rlpy/algos/rlpd.py``. It wastes nothing that a plain program would not: slow
copies are evaluated only for the drawn critics, and an update is one pass back through the sum of the critics' losses.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .speed_cases import ACTION_SIZE, N_BATCHES, OBSERVATION_SIZE, OnlineCase

Tensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]
GAMMA, TAU, RATE = 0.99, 0.005, 3e-4


def about() -> dict[str, Any]:
    return {"version": torch.__version__, "folder": str(Path(__file__).resolve().parent)}


def batches(size: int) -> list[Tensors]:
    """Observations, actions, rewards, next observations, terminals and gamma; all random."""
    rng = torch.Generator().manual_seed(0)

    def normal(width: int) -> Tensor:
        return torch.randn(size, width, generator=rng)

    def one() -> Tensors:
        actions = torch.rand(size, ACTION_SIZE, generator=rng) * 2 - 1
        terminals = (torch.rand(size, 1, generator=rng) < 0.01).float()
        return normal(OBSERVATION_SIZE), actions, normal(1), normal(OBSERVATION_SIZE), terminals, GAMMA

    return [one() for _ in range(N_BATCHES)]


def layers(sizes: list[int], norm: bool) -> nn.Sequential:
    """Linear layers with ReLU, and layer norm before it, between them."""
    modules: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        modules.append(nn.Linear(sizes[i], sizes[i + 1]))
        if i < len(sizes) - 2:
            modules += [nn.LayerNorm(sizes[i + 1]), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(*modules)


class Actor(nn.Module):
    """A squashed normal distribution."""

    def __init__(self, hidden: list[int]):
        super().__init__()
        self.layers = layers([OBSERVATION_SIZE, *hidden, 2 * ACTION_SIZE], norm=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.layers(x).chunk(2, dim=1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20.0, 2.0).exp())
        u = normal.rsample()
        log_det = 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))
        return torch.tanh(u), (normal.log_prob(u) - log_det).sum(dim=1, keepdim=True)


class LoopRLPD(nn.Module):
    """Actor, E critics, their slow copies and the temperature."""

    def __init__(self, hidden: list[int], n_critics: int, n_target_critics: int, n_gradient_steps: int):
        super().__init__()
        self.n_target_critics, self.n_gradient_steps = n_target_critics, n_gradient_steps
        self.actor = Actor(hidden)
        sizes = [OBSERVATION_SIZE + ACTION_SIZE, *hidden, 1]
        self.critics = nn.ModuleList(layers(sizes, norm=True) for _ in range(n_critics))
        self.targ_critics = copy.deepcopy(self.critics)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.actor_optim = torch.optim.Adam(self.actor.parameters(), RATE)
        self.critic_optim = torch.optim.Adam(self.critics.parameters(), RATE)
        self.alpha_optim = torch.optim.Adam([self.log_alpha], RATE)
        self.n_updates = 0

    def update(self, batch: Tensors) -> dict[str, Tensor]:
        """Lines 15 to 21 of algorithm 1, and in the last of G rounds line 23."""
        self.n_updates += 1
        loss = self.critic_loss(batch)
        self.critic_optim.zero_grad()
        loss.backward()
        self.critic_optim.step()
        with torch.no_grad():
            for slow, fast in zip(self.targ_critics.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, TAU)
        metrics = {"critic_loss": loss.detach()}
        if self.n_updates % self.n_gradient_steps == 0:
            metrics |= self.update_actor(batch[0])
        return metrics

    def critic_loss(self, batch: Tensors) -> Tensor:
        observations, actions, rewards, next_observations, terminals, gamma = batch
        with torch.no_grad():
            action, log_prob = self.actor(next_observations)
            pairs = torch.cat([next_observations, action], dim=1)
            drawn = torch.randperm(len(self.critics))[: self.n_target_critics].tolist()
            values = torch.stack([self.targ_critics[i](pairs) for i in drawn]).amin(dim=0)
            target = rewards + gamma * (1 - terminals) * (values - self.log_alpha.exp() * log_prob)
        pairs = torch.cat([observations, actions], dim=1)
        return torch.stack([F.mse_loss(critic(pairs), target) for critic in self.critics]).sum()

    def update_actor(self, observations: Tensor) -> dict[str, Tensor]:
        action, log_prob = self.actor(observations)
        pairs = torch.cat([observations, action], dim=1)
        value = torch.stack([critic(pairs) for critic in self.critics]).mean(dim=0)
        loss = (self.log_alpha.exp().detach() * log_prob - value).mean()
        self.actor_optim.zero_grad()
        loss.backward()
        self.actor_optim.step()
        entropy = -0.5 * ACTION_SIZE
        alpha_loss = -(self.log_alpha.exp() * (log_prob.detach() + entropy)).mean()
        self.alpha_optim.zero_grad()
        alpha_loss.backward()
        self.alpha_optim.step()
        return {"actor_loss": loss.detach(), "temp_loss": alpha_loss.detach()}


class UpdateLearner:
    """Updates with the same few batches, over and over."""

    clock: Any

    def __init__(self, case: OnlineCase):
        settings = case.settings
        torch.manual_seed(0)
        self.algo = LoopRLPD(
            settings["hidden_units"],
            settings["n_critics"],
            settings["n_target_critics"],
            settings["n_gradient_steps"],
        )
        self.batches = batches(settings["batch_size"])

    @property
    def n_updates(self) -> int:
        return self.algo.n_updates

    def run(self, n_steps: int) -> None:
        sums: dict[str, Tensor] = {}
        for k in range(n_steps):
            self.clock.tick()
            for name, value in self.algo.update(self.batches[k % len(self.batches)]).items():
                sums[name] = sums[name] + value if name in sums else value


LEARNERS = {"RLPD": UpdateLearner}

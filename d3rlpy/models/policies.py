"""Policies: an encoder with a head that says how to act.

``forward`` is the best action. Stochastic policies also draw actions together with their log densities, which
are reparameterised where actions are continuous. Nothing here waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..functional import atanh, normal_log_prob, tanh_log_det
from ..randomness import exponential_like, normal_like
from .bodies import Encoder, Network


class DeterministicPolicy(Network):
    """``a = tanh(head(encoder(x)))``."""

    def forward(self, x: Tensor) -> Tensor:
        """Actions ``(B, A)`` in [-1, 1]."""
        return torch.tanh(self.outputs(x))


class ResidualPolicy(Network):
    """``a + scale tanh(head(encoder(x, a)))``, clamped to [-1, 1] (Fujimoto et al. 2019, BCQ, section 4.2)."""

    def forward(self, x: Tensor, action: Tensor, scale: float) -> Tensor:
        """Perturbed actions ``(B, A)``, or ``(B n, A)`` for actions ``(B, n, A)``."""
        perturbation = scale * torch.tanh(self.outputs(x, action))
        return (action.reshape_as(perturbation) + perturbation).clamp(-1.0, 1.0)


class GaussianPolicy(Network, ABC):
    """Base of the policies with a normal distribution of independent components.

    Parameters
    ----------
    encoder : features of the observation.
    n_outputs : width of the head: the means, and behind them log standard deviations where they are outputs.
    min_log_std, max_log_std : bounds of the logarithm of the standard deviation.
    """

    def __init__(self, encoder: Encoder, n_outputs: int, min_log_std: float, max_log_std: float):
        super().__init__(encoder, n_outputs)
        self.min_log_std, self.max_log_std = min_log_std, max_log_std

    @abstractmethod
    def normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of the normal variable, ``(B, A)`` each."""

    @abstractmethod
    def draw(self, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """Actions ``(..., A)`` and their log densities ``(..., 1)``, differentiable in both arguments."""

    @abstractmethod
    def bounded(self, u: Tensor) -> Tensor:
        """The actions that values ``u`` of the normal variable stand for, elementwise."""

    def candidates(self, x: Tensor, noise: Tensor) -> Tensor:
        """The n actions per observation ``(B, n, A)`` that given standard normal noise ``(n, A)`` makes."""
        mean, log_std = self.normal(x)
        return self.bounded(mean[:, None] + log_std.exp()[:, None] * noise)

    def sample(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One action per observation ``(B, A)`` and its log density ``(B, 1)``."""
        return self.draw(*self.normal(x))

    def sample_action(self, x: Tensor) -> Tensor:
        """The actions of ``sample`` alone: acting needs no densities, which take as long as the network."""
        mean, log_std = self.normal(x)
        return self.bounded(mean + log_std.exp() * normal_like(mean))

    def sample_n(self, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """``n`` actions per observation ``(B, n, A)`` and their log densities ``(B, n, 1)``; encodes once."""
        mean, log_std = self.normal(x)
        return self.draw(mean[:, None].expand(-1, n, -1), log_std[:, None].expand(-1, n, -1))


class SquashedNormalPolicy(GaussianPolicy):
    """``a = tanh(u)`` with normal ``u`` (Haarnoja et al. 2018, SAC, appendix C)."""

    def __init__(self, encoder: Encoder, action_size: int, min_log_std: float = -20.0, max_log_std: float = 2.0):
        super().__init__(encoder, 2 * action_size, min_log_std, max_log_std)

    def normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.outputs(x).chunk(2, dim=1)
        return mean, log_std.clamp(self.min_log_std, self.max_log_std)

    def forward(self, x: Tensor) -> Tensor:
        """The squashed mean ``(B, A)``."""
        return torch.tanh(self.outputs(x).chunk(2, dim=1)[0])

    def bounded(self, u: Tensor) -> Tensor:
        return torch.tanh(u)

    def draw(self, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        u, log_prob = self.draw_raw(mean, log_std)
        return torch.tanh(u), log_prob

    def draw_raw(self, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """``draw`` without the squashing: ``u``, with the log densities of the actions ``tanh(u)``."""
        u = mean + log_std.exp() * normal_like(mean)
        return u, normal_log_prob(u, mean, log_std) - tanh_log_det(u)

    def sample_raw(self, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """``sample_n`` without the squashing: ``u`` ``(B, n, A)`` and the log densities of ``tanh(u)``."""
        mean, log_std = self.normal(x)
        return self.draw_raw(mean[:, None].expand(-1, n, -1), log_std[:, None].expand(-1, n, -1))

    def log_prob(self, x: Tensor, action: Tensor) -> Tensor:
        """Log density ``(B, 1)`` of actions ``(B, A)``, which are cut off at ``1 - 1e-6``."""
        u = atanh(action)
        return normal_log_prob(u, *self.normal(x)) - tanh_log_det(u)


class NormalPolicy(GaussianPolicy):
    """Normal actions around ``tanh(mean)``, not squashed; samples are clamped to [-1, 1].

    Parameters
    ----------
    use_std_parameter : whether the standard deviation is one learned number per component, not a function of
        the observation: ``log std = min + sigmoid(p) (max - min)``.
    """

    def __init__(
        self,
        encoder: Encoder,
        action_size: int,
        min_log_std: float = -20.0,
        max_log_std: float = 2.0,
        use_std_parameter: bool = False,
    ):
        super().__init__(encoder, action_size if use_std_parameter else 2 * action_size, min_log_std, max_log_std)
        self.action_size, self.use_std_parameter = action_size, use_std_parameter
        if use_std_parameter:
            self.std_parameter = nn.Parameter(torch.zeros(1, action_size))

    def normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.outputs(x)
        mean = torch.tanh(outputs[:, : self.action_size])
        if not self.use_std_parameter:
            return mean, outputs[:, self.action_size :].clamp(self.min_log_std, self.max_log_std)
        return mean, self.shared_log_std().expand_as(mean)

    def shared_log_std(self) -> Tensor:
        """Logarithm of the standard deviation ``(1, A)``, where it is no function of the observation."""
        return self.min_log_std + torch.sigmoid(self.std_parameter) * (self.max_log_std - self.min_log_std)

    def forward(self, x: Tensor) -> Tensor:
        """The mean ``(B, A)``."""
        return torch.tanh(self.outputs(x)[:, : self.action_size])

    def bounded(self, u: Tensor) -> Tensor:
        return u.clamp(-1.0, 1.0)

    def draw(self, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """The log densities are those of the actions before clamping."""
        u = mean + log_std.exp() * normal_like(mean)
        return self.bounded(u), normal_log_prob(u, mean, log_std)

    def log_prob(self, x: Tensor, action: Tensor) -> Tensor:
        """Log density ``(B, 1)`` of actions ``(B, A)``."""
        return normal_log_prob(action, *self.normal(x))


def candidate_noise(n: int, action_size: int) -> Tensor:
    """Normal noise ``(n, A)`` for the same n candidates of every observation, the first of which is the mean."""
    noise = torch.randn(n, action_size)
    noise[0] = 0.0
    return noise


def pick_candidate(candidates: Tensor, index: Tensor) -> Tensor:
    """One of n candidates of each row, ``(B, A)`` from ``(B, n, A)`` by their indices ``(B,)``."""
    # By row numbers and not by gather: exported, onnx.reference can't gather from more than 64.
    first = candidates.shape[1] * torch.arange(candidates.shape[0], device=index.device)
    return candidates.flatten(0, 1).index_select(0, first + index)


class CategoricalPolicy(Network):
    """Probabilities of discrete actions by a softmax."""

    def logits(self, x: Tensor) -> Tensor:
        """What the softmax makes probabilities of, ``(B, A)``."""
        return self.outputs(x)

    def log_probs(self, x: Tensor) -> Tensor:
        """Log probabilities of all actions, ``(B, A)``."""
        return torch.log_softmax(self.logits(x), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """The most probable action ``(B,)`` int64."""
        return self.logits(x).argmax(dim=1)

    def sample(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One action per observation ``(B,)`` int64 and its log probability ``(B, 1)``."""
        action, log_prob = self.sample_n(x, 1)
        return action[:, 0], log_prob[:, 0]

    def sample_action(self, x: Tensor) -> Tensor:
        """The action of ``sample`` alone."""
        return self.sample(x)[0]

    def sample_n(self, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """``n`` actions per observation ``(B, n)`` int64 and their log probabilities ``(B, n, 1)``."""
        log_probs = self.log_probs(x)[:, None].expand(-1, n, -1)
        # The Gumbel-max trick: torch.multinomial would wait for the device.
        gumbel = -exponential_like(log_probs).log()
        action = (log_probs.detach() + gumbel).argmax(dim=2)
        return action, log_probs.gather(2, action[..., None])

    def log_prob(self, x: Tensor, action: Tensor) -> Tensor:
        """Log probability ``(B, 1)`` of actions ``(B,)`` int64."""
        return self.log_probs(x).gather(1, action[:, None])

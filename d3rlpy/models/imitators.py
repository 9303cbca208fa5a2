"""Generative models of the actions in the data."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..randomness import normal, normal_like
from .bodies import Network
from .encoders import EncoderFactory, create_encoder_with_action


class ConditionalVAE(nn.Module):
    """A variational auto-encoder of actions given observations (Fujimoto et al. 2019, BCQ, arXiv:1812.02900).

    The encoder turns (s, a) into a normal variable z of ``2 action_size`` components, whose log standard deviations are
    clamped to [-4, 15]; the decoder turns (s, z) into ``tanh`` of an action.

    Parameters
    ----------
    encoder_factory : bodies of both halves.
    observation_shape, action_size : what is imitated.
    """

    def __init__(
        self,
        encoder_factory: str | dict[str, Any] | EncoderFactory,
        observation_shape: tuple[int, ...],
        action_size: int,
    ):
        super().__init__()
        self.latent_size = 2 * action_size
        encoder = create_encoder_with_action(encoder_factory, observation_shape, action_size)
        self.encoder = Network(encoder, 2 * self.latent_size)
        decoder = create_encoder_with_action(encoder_factory, observation_shape, self.latent_size)
        self.decoder = Network(decoder, action_size)

    def encode(self, x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of z, ``(B, 2 A)`` each."""
        mean, log_std = self.encoder.outputs(x, action).chunk(2, dim=1)
        return mean, log_std.clamp(-4.0, 15.0)

    def decode_raw(self, x: Tensor, latent: Tensor) -> Tensor:
        """What ``tanh`` makes an action of; ``(B, A)``, or ``(B n, A)`` for latents ``(B, n, 2 A)``."""
        return self.decoder.outputs(x, latent)

    def decode(self, x: Tensor, latent: Tensor) -> Tensor:
        """Actions ``(B, A)`` in [-1, 1], or ``(B n, A)`` for latents ``(B, n, 2 A)``."""
        return torch.tanh(self.decode_raw(x, latent))

    def loss(self, x: Tensor, action: Tensor, kl_weight: float) -> Tensor:
        """``E[(decode(s, z) - a)^2] + kl_weight E[KL(z || N(0, 1))]``, both means over rows and components."""
        mean, log_std = self.encode(x, action)
        latent = mean + log_std.exp() * normal_like(mean)
        kl = 0.5 * (mean.square() + (2.0 * log_std).exp() - 1.0) - log_std
        return F.mse_loss(self.decode(x, latent), action) + kl_weight * kl.mean()

    def draw_latent(self, x: Tensor, n: int) -> Tensor:
        """Normal latents ``(B, n, 2 A)`` for rows ``(B, ...)``, clamped to [-0.5, 0.5] as the authors of BCQ do."""
        weight = self.decoder.head.weight  # x may be bytes of images
        return normal((len(x), n, self.latent_size), weight).clamp(-0.5, 0.5)

"""Pure tensor functions, one equation each: losses of values and densities of policies.

Papers: Dabney et al. 2018 (QR-DQN), arXiv:1710.10044; Kostrikov et al. 2021 (IQL), arXiv:2110.06169;
Haarnoja et al. 2018 (SAC), arXiv:1801.01290. No function averages over the batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SQUASHED = 1.0 - 1e-6
"""Where ``atanh`` is cut off: an action of exactly 1 would be infinite before squashing."""


def huber(u: Tensor) -> Tensor:
    """``u^2 / 2`` where ``|u| <= 1``, else ``|u| - 1/2``; elementwise (Dabney et al. 2018, eq. 9, kappa = 1).

    >>> huber(torch.tensor([0.5, -3.0]))
    tensor([0.1250, 2.5000])
    """
    return F.huber_loss(u, torch.zeros_like(u), reduction="none")


def quantile_huber_loss(quantiles: Tensor, target: Tensor, taus: Tensor, probs: Tensor | None = None) -> Tensor:
    """Quantile regression with Huber's loss (Dabney et al. 2018, eq. 10 and algorithm 1), ``(..., B)``.

    The sum over own quantiles j of the mean over target quantiles i of ``|tau_j - 1[u < 0]| huber(u)``, where
    ``u = target_i - quantile_j``.

    Parameters
    ----------
    quantiles : own quantiles, ``(..., B, N)``.
    target : samples or quantiles of the target, ``(B, M)``.
    taus : levels of the own quantiles, ``(N,)`` or ``(B, N)``.
    probs : probabilities of the target's values, ``(B, M)``; None where they are equal.
    """
    u = target[:, :, None] - quantiles[..., None, :]  # (..., B, M, N)
    weight = (taus.unsqueeze(-2) - (u < 0).to(u.dtype)).abs()
    errors = (weight * huber(u)).sum(dim=-1)  # (..., B, M)
    return errors.mean(dim=-1) if probs is None else (errors * probs).sum(dim=-1)


def expectile_loss(u: Tensor, expectile: float) -> Tensor:
    """``|expectile - 1[u < 0]| u^2``, elementwise (Kostrikov et al. 2021, section 4.1).

    >>> expectile_loss(torch.tensor([2.0, -2.0]), 0.75)
    tensor([3., 1.])
    """
    return (expectile - (u < 0).to(u.dtype)).abs() * u.square()


def backward_recursion(values: Tensor, factors: Tensor) -> Tensor:
    """``x_t = values_t + factors_t x_{t+1}`` along the first axis, with 0 behind its end.

    Spans are doubled: ``x`` of the first 1, 2, 4, ... terms, so the number of passes is the logarithm of the length.

    >>> backward_recursion(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, 0.5, 0.5]))
    tensor([1.7500, 1.5000, 1.0000])
    """
    x, span = values.clone(), 1
    while span < len(x):
        x[:-span] += factors[: len(x) - span] * x[span:]
        factors = factors[:-span] * factors[span:]
        span *= 2
    return x


def normal_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of independent normal variables, summed over the last axis, which is kept with length 1."""
    z = (x - mean) * (-log_std).exp()
    return -(0.5 * z.square() + log_std + 0.5 * math.log(2.0 * math.pi)).sum(dim=-1, keepdim=True)


def tanh_log_det(u: Tensor) -> Tensor:
    """``log |det da/du|`` of ``a = tanh(u)``: ``log(1 - a^2)`` summed over the last axis, kept with length 1.

    The log density of a squashed action is that of ``u`` minus this (Haarnoja et al. 2018, appendix C).
    Written as ``2 (log 2 - u - softplus(-2u))``, which stays exact where ``tanh`` rounds to 1.
    """
    return (2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))).sum(dim=-1, keepdim=True)


def atanh(action: Tensor) -> Tensor:
    """What ``tanh`` made ``action`` of, elementwise; actions are cut off at ``1 - 1e-6``."""
    return torch.atanh(action.clamp(-LARGEST_SQUASHED, LARGEST_SQUASHED))


def mean_kernel(x: Tensor, y: Tensor, kernel: str, sigma: float) -> Tensor:
    """Mean over all pairs of ``exp(-d(x_i, y_j) / (2 sigma))``, ``(B, 1)``, of samples ``(B, n, A)`` and ``(B, m, A)``.

    ``d`` is the sum over components of ``|x - y|`` (``laplacian``) or of ``(x - y)^2`` (``gaussian``).
    """
    difference = x[:, :, None] - y[:, None]  # (B, n, m, A)
    distance = (difference.abs() if kernel == "laplacian" else difference.square()).sum(dim=3)
    return (-distance / (2.0 * sigma)).exp().mean(dim=(1, 2))[:, None]


def mmd(x: Tensor, y: Tensor, kernel: str, sigma: float) -> Tensor:
    """``sqrt(mean k(x, x') + mean k(y, y') - 2 mean k(x, y))`` of each row, ``(B, 1)``, diagonals included.

    The biased estimate of Kumar et al. 2019 (BEAR, arXiv:1906.00949), for samples ``(B, n, A)`` and ``(B, m, A)``.
    """
    within = mean_kernel(x, x, kernel, sigma) + mean_kernel(y, y, kernel, sigma)
    # The root's slope is infinite at 0, and rounding may go below it.
    return (within - 2.0 * mean_kernel(x, y, kernel, sigma) + 1e-6).sqrt()

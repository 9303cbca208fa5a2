"""The networks and equations of the papers once more, in numpy and from the papers, to compare the losses with."""

from dataclasses import fields

import numpy as np
import torch


def numpy_of(batch):
    """The fields of a batch as float64 arrays (discrete actions stay integers)."""
    return {
        name: getattr(batch, name).double().numpy() if name != "actions" else batch.actions.numpy()
        for name in (field.name for field in fields(batch))
    }


def mlp(module, x):
    """Forward pass through the linear layers of a module, ReLU between them."""
    layers = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]
    h = x
    for i, layer in enumerate(layers):
        h = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if i < len(layers) - 1:
            h = np.maximum(h, 0)
    return h


def critics(ensemble, x, a=None):
    """Heads of every critic, a list of ``(batch, outputs)``."""
    return [mlp(c, x if a is None else np.concatenate([x, a], axis=1)) for c in ensemble.critics]


def huber(u):
    return np.where(np.abs(u) <= 1, 0.5 * u**2, np.abs(u) - 0.5)


def quantile_loss(q, target):
    """QR-DQN, eq. 10, by its two loops: own quantiles j are summed, target quantiles i averaged."""
    n = q.shape[1]
    total = np.zeros(len(q))
    for j in range(n):
        tau = (2 * j + 1) / (2 * n)
        for i in range(target.shape[1]):
            u = target[:, i] - q[:, j]
            total += np.abs(tau - (u < 0)) * huber(u) / target.shape[1]
    return total.mean()


def pick(values, actions):
    return values[np.arange(len(actions)), actions]

"""Small data sets and batches that several tests use."""

import numpy as np
import torch

from d3rlpy.dataset import MDPDataset
from d3rlpy.impl import Batch


def make_dataset(discrete, pixel=False, n_episodes=6, length=10, action_size=2, seed=0):
    """Random episodes, the first half ended by terminals, the others by timeouts."""
    rng = np.random.default_rng(seed)
    n = n_episodes * length
    if pixel:
        observations = rng.integers(0, 256, (n, 1, 84, 84), dtype=np.uint8)
    else:
        observations = rng.normal(size=(n, 3)).astype(np.float32)
    if discrete:
        actions = rng.integers(0, action_size, n)
        actions[:action_size] = np.arange(action_size)
    else:
        actions = rng.uniform(-1, 1, (n, action_size)).astype(np.float32)
    ends = np.arange(n) % length == length - 1
    first_half = np.arange(n) < n // 2
    return MDPDataset(
        observations,
        actions,
        rng.normal(size=n).astype(np.float32),
        ends & first_half,
        timeouts=ends & ~first_half,
    )


def random_batch(n=8, observation_shape=(3,), action_size=2, discrete=False, seed=0, dtype=torch.float32):
    """A batch of random numbers with some terminals."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    if discrete:
        actions = torch.randint(0, action_size, (n,), generator=g)
    else:
        actions = randn(n, action_size).tanh()
    discounts = 0.9 * (torch.rand(n, 1, generator=g) < 0.7).to(dtype)
    return Batch(randn(n, *observation_shape), actions, randn(n, 1), randn(n, *observation_shape), discounts)

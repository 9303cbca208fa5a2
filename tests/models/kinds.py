"""What the tests of the distributional Q functions share: numpy networks and problems with known answers."""

import numpy as np
import torch

from d3rlpy.algos import DQN, SAC, TD3
from d3rlpy.models import VectorEncoderFactory, create_encoder, create_encoder_with_action
from d3rlpy.testing import corridor, corridor_values, two_step_dataset, two_step_value
from d3rlpy.testing.mdp import BEST_ACTIONS

B, A = 6, 3
LINEAR = VectorEncoderFactory(())  # features are the inputs
QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}


def critic(factory, discrete=True, n_critics=1):
    """Critics in float64 whose features are the observation ``(2,)``, and the action ``(3,)`` if it is continuous."""
    torch.manual_seed(0)
    encoder = create_encoder(LINEAR, (2,)) if discrete else create_encoder_with_action(LINEAR, (2,), A)
    q = factory.create(encoder, A if discrete else None, n_critics).double()
    if hasattr(q, "frequencies"):
        q.frequencies = np.pi * (q.frequencies / np.pi).round()  # as exact as the numpy twin
    return q


def batch(seed=0):
    """Observations, continuous actions, action ids, and targets ``(B, 4)``."""
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(B, 2)), rng.normal(size=(B, A)), rng.integers(0, A, B), 3 * rng.normal(size=(B, 4))
    return [torch.from_numpy(a) for a in arrays]


def evaluate(q, x, action):
    return q.evaluate(x, None if q.discrete else action)


def features(q, x, action):
    return x.numpy() if q.discrete else np.hstack([x.numpy(), action.numpy()])


def array(tensor):
    return tensor.detach().numpy()


def huber(u):
    return 0.5 * u**2 if abs(u) <= 1 else abs(u) - 0.5


def quantile_loss(own, taus, target, probs=None):
    """Loops over own quantiles, which are summed, and the target's values, which are averaged; one row."""
    probs = np.full(len(target), 1 / len(target)) if probs is None else probs
    return sum(
        p * abs(tau - (y - z < 0)) * huber(y - z)
        for z, tau in zip(own, taus, strict=True)
        for y, p in zip(target, probs, strict=True)
    )


def implicit_quantile(q, feature, action, tau, k=0):
    """``Z_tau(x, a)`` of critic k, from eq. 4 of the IQN paper, by its sums."""
    n_feat = len(feature)
    embed_weight, embed_bias = array(q.embed.weight), array(q.embed.bias)
    head_weight, head_bias = array(q.head.weight), array(q.head.bias)
    value = head_bias[k * q.n_actions + action]
    for j in range(n_feat):
        z = embed_bias[k * n_feat + j]
        for i in range(embed_weight.shape[1]):
            z += np.cos(np.pi * i * tau) * embed_weight[k * n_feat + j, i]
        value += head_weight[k * q.n_actions + action, j] * feature[j] * max(z, 0.0)
    return value


def check_dqn_on_a_corridor(factory):
    algo = DQN(
        gamma=0.9, learning_rate=1e-2, target_update_interval=20, q_func_factory=factory, random_state=0,
        encoder_factory=VectorEncoderFactory((32,)),
    )  # fmt: skip
    algo.fit(corridor(), n_steps=3000, **QUIET)
    states = np.eye(4, dtype=np.float32)
    values = np.stack([algo.predict_value(states, np.full(4, a)) for a in (0, 1)], axis=1)
    np.testing.assert_allclose(values, corridor_values(), atol=0.06)
    assert algo.predict(states).tolist() == [1, 1, 1, 1]


def check_actor_critic_on_two_steps(cls, factory):
    encoder, states = VectorEncoderFactory((32, 32)), np.eye(2, dtype=np.float32)
    own = {
        TD3: {"target_smoothing_sigma": 0.05},
        SAC: {"temp_learning_rate": 0.0, "initial_temperature": 0.01},
    }[cls]
    algo = cls(
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, tau=0.05, gamma=0.9, batch_size=64, random_state=0,
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, q_func_factory=factory, **own,
    )  # fmt: skip
    algo.fit(two_step_dataset(), n_steps=1500, **QUIET)
    np.testing.assert_allclose(algo.predict(states)[:, 0], BEST_ACTIONS, atol=0.12)
    if cls is TD3:
        for action in (-0.5, 0.0, 0.5):
            value = algo.predict_value(states, np.full((2, 1), action))
            np.testing.assert_allclose(value, [two_step_value(s, action, 0.9) for s in (0, 1)], atol=0.15)

"""``c51``: the projection by hand and against algorithm 1 written with loops, the loss, and the warning."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3rlpy.algos import DQN, SAC, TD3
from d3rlpy.dataset import MDPDataset
from d3rlpy.models import C51QFunctionFactory, Distribution, VectorEncoderFactory
from d3rlpy.models.q_functions.c51 import project
from tests.models import kinds
from tests.models.kinds import QUIET, A, B, array, batch, critic, evaluate, features

FACTORY = C51QFunctionFactory(n_atoms=5, v_min=-2.0, v_max=2.0)
ATOMS = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
each_space = pytest.mark.parametrize("discrete", [False, True])


def projected(values, probs):
    z = Distribution(torch.tensor([values], dtype=torch.float64), torch.tensor([probs], dtype=torch.float64))
    return project(z, ATOMS)[0].tolist()


def test_projection_by_hand():
    assert projected([0.25], [1.0]) == [0, 0, 0.75, 0.25, 0]
    assert projected([1.0], [1.0]) == [0, 0, 0, 1, 0]  # on an atom nothing is lost
    assert projected([-2.0, 2.0], [0.25, 0.75]) == [0.25, 0, 0, 0, 0.75]  # at the ends neither
    assert projected([7.0, -2.5], [0.5, 0.5]) == [0.5, 0, 0, 0, 0.5]  # outside the support: clipped
    assert projected([0.5, 0.5, -1.0], [0.2, 0.2, 0.6]) == pytest.approx([0, 0.6, 0.2, 0.2, 0])


def test_projection_of_a_terminal_target_is_the_reward():
    z = Distribution(ATOMS.expand(1, 5), torch.full((1, 5), 0.2, dtype=torch.float64))
    target = torch.tensor([[-1.5]]) + torch.tensor([[0.0]]) * z
    assert project(target, ATOMS)[0].tolist() == pytest.approx([0.5, 0.5, 0, 0, 0])


def test_projection_of_samples_gives_them_equal_probability():
    samples = torch.tensor([[0.0, 1.5]], dtype=torch.float64)
    assert project(samples, ATOMS)[0].tolist() == [0, 0, 0.5, 0.25, 0.25]


def slow_projection(values, probs, low, high, n):
    """Algorithm 1, with the whole probability kept where lower and upper atom are the same."""
    m, dz = np.zeros(n), (high - low) / (n - 1)
    for y, p in zip(values, probs, strict=True):
        b = min((min(max(y, low), high) - low) / dz, n - 1)  # rounding
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            m[lower] += p
        else:
            m[lower] += p * (upper - b)
            m[upper] += p * (b - lower)
    return m


@given(st.integers(2, 9), st.integers(1, 6), st.floats(-3, 0), st.floats(0.5, 4), st.integers(0, 999))
@settings(deadline=None, max_examples=80)
def test_projection_equals_algorithm_1(n, m, low, width, seed):
    rng = np.random.default_rng(seed)
    support = np.linspace(low, low + width, n)
    values = np.where(rng.random(m) < 0.3, rng.choice(support, m), rng.uniform(low - 1, low + width + 1, m))
    probs = rng.dirichlet(np.ones(m))
    target = Distribution(torch.from_numpy(values)[None], torch.from_numpy(probs)[None])
    got = array(project(target, torch.from_numpy(support)))
    np.testing.assert_allclose(got[0], slow_projection(values, probs, low, low + width, n), atol=1e-9)
    assert got.sum() == pytest.approx(1)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


@each_space
@pytest.mark.parametrize("explicit", [False, True])
def test_values_and_loss(discrete, explicit):
    q, (x, action, ids, target) = critic(FACTORY, discrete, 2), batch()
    logits = features(q, x, action) @ array(q.head.weight).T + array(q.head.bias)
    logits = logits.reshape(B, 2, A if discrete else 1, 5)
    values = evaluate(q, x, action)
    probs = np.exp(log_softmax(logits)).swapaxes(0, 1)
    np.testing.assert_allclose(array(values.expected()), probs @ array(ATOMS), rtol=1e-6)
    z = values.all_distributions()
    np.testing.assert_allclose(array(z.probs), probs, rtol=1e-6)
    assert array(z.values)[1, 2, 0].tolist() == ATOMS.tolist()
    weights = np.random.default_rng(1).dirichlet(np.ones(4), B) if explicit else np.full((B, 4), 0.25)
    given = Distribution(target, torch.from_numpy(weights)) if explicit else target
    loss = values.td_loss(given, ids if discrete else action)
    total = 0.0
    for b in range(B):
        m = slow_projection(array(target)[b], weights[b], -2, 2, 5)
        for k in range(2):
            total -= m @ log_softmax(logits[b, k, ids[b] if discrete else 0]) / B
    assert loss.item() == pytest.approx(total, rel=1e-6)


def test_a_known_distribution_is_learned():
    """Targets are -1 with probability 1/4 and 1.5 otherwise."""
    q = critic(FACTORY).float()
    x, ids = torch.ones(64, 2), torch.zeros(64, dtype=torch.int64)
    target = torch.tensor([[-1.0], [1.5], [1.5], [1.5]]).repeat(16, 1)
    optim = torch.optim.Adam(q.parameters(), lr=0.1)
    for _ in range(400):
        optim.zero_grad()
        q.evaluate(x).td_loss(target, ids).backward()
        optim.step()
    values = q.evaluate(x[:1])
    np.testing.assert_allclose(array(values.all_distributions().probs)[0, 0, 0], [0, 0.25, 0, 0.375, 0.375], atol=0.01)
    assert values.expected()[0, 0, 0].item() == pytest.approx(0.75 * 1.5 - 0.25, abs=0.02)


def fitted(reward, n_epochs, **params):
    rows = np.arange(40)
    rewards = np.full(40, reward, np.float32)
    data = MDPDataset(np.eye(4, dtype=np.float32)[rows % 4], rows % 2, rewards, rows % 4 == 3)
    encoder = VectorEncoderFactory((8,))
    algo = DQN(q_func_factory="c51", encoder_factory=encoder, batch_size=10, random_state=0, **params)
    return algo.fit(data, n_steps=50 * n_epochs, n_steps_per_epoch=50, **QUIET)


@pytest.mark.parametrize("n_critics", [1, 2])
def test_targets_outside_the_support_are_told_once(n_critics):
    with pytest.warns(UserWarning, match=r"\d\d% of the targets lie outside \[v_min, v_max\] = \[-10, 10\]") as found:
        fitted(20.0, 3, n_critics=n_critics)
    assert len(found) == 1
    assert found[0].filename == __file__


def test_targets_inside_the_support_are_not_worth_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(1.0, 2)


@pytest.mark.slow
def test_dqn_finds_the_values_of_a_corridor():
    kinds.check_dqn_on_a_corridor(C51QFunctionFactory(n_atoms=21, v_min=-0.5, v_max=1.5))


@pytest.mark.slow
@pytest.mark.parametrize("cls", [SAC, TD3])
def test_actor_critics_find_the_actions_of_two_steps(cls):
    kinds.check_actor_critic_on_two_steps(cls, C51QFunctionFactory(n_atoms=51, v_min=-4.0, v_max=3.0))

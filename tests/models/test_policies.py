"""Policies: densities by hand, statistics of samples, gradients of reparameterised ones."""

import math

import numpy as np
import pytest
import torch

from d3rlpy.models import (
    CategoricalPolicy,
    DeterministicPolicy,
    NormalPolicy,
    SquashedNormalPolicy,
    VectorEncoderFactory,
)


def encoder(size=3):
    """Features are the observation itself, so that heads can be set by hand."""
    return VectorEncoderFactory([]).create((size,))


def set_head(linear, weight, bias):
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weight))
        linear.bias.copy_(torch.tensor(bias))


def fixed_gaussian(cls, mean, log_std, **kwargs):
    """A policy whose normal variable does not depend on the observation."""
    policy = cls(encoder(), len(mean), **kwargs)
    set_head(policy.head, [[0.0] * 3] * 2 * len(mean), mean + log_std)
    return policy


def test_deterministic_policy_is_tanh_of_its_head():
    policy = DeterministicPolicy(encoder(2), 1)
    set_head(policy.head, [[1.0, -2.0]], [0.5])
    assert policy(torch.tensor([[1.0, 0.5]])).item() == pytest.approx(math.tanh(0.5))


def test_best_action_of_a_squashed_policy_is_the_squashed_mean():
    policy = fixed_gaussian(SquashedNormalPolicy, [0.3, -1.0], [0.0, 0.0])
    np.testing.assert_allclose(policy(torch.zeros(1, 3)).detach()[0], np.tanh([0.3, -1.0]), rtol=1e-6)


def test_log_density_of_a_squashed_action_by_hand():
    policy = fixed_gaussian(SquashedNormalPolicy, [0.5, 0.0], [0.0, math.log(2.0)])
    u = np.array([0.2, -0.4])
    normal = -0.5 * ((u - [0.5, 0]) / [1, 2]) ** 2 - np.log([1, 2]) - 0.5 * math.log(2 * math.pi)
    expected = (normal - np.log(1 - np.tanh(u) ** 2)).sum()
    action = torch.tensor(np.tanh(u)[None], dtype=torch.float32)
    assert policy.log_prob(torch.zeros(1, 3), action).item() == pytest.approx(expected, rel=1e-5)


def test_log_density_of_an_action_at_its_bound_is_finite():
    policy = fixed_gaussian(SquashedNormalPolicy, [0.0], [0.0])
    assert torch.isfinite(policy.log_prob(torch.zeros(1, 3), torch.tensor([[1.0]]))).all()


def test_log_density_of_an_unsquashed_action_by_hand():
    policy = fixed_gaussian(NormalPolicy, [0.5], [math.log(0.5)])
    z = (0.7 - math.tanh(0.5)) / 0.5
    expected = -0.5 * z**2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)
    result = policy.log_prob(torch.zeros(1, 3), torch.tensor([[0.7]]))
    assert result.item() == pytest.approx(expected, rel=1e-5)
    assert policy(torch.zeros(1, 3)).item() == pytest.approx(math.tanh(0.5))


@pytest.mark.parametrize("cls", [SquashedNormalPolicy, NormalPolicy])
def test_samples_follow_the_distribution(cls):
    torch.manual_seed(0)
    policy = fixed_gaussian(cls, [0.4], [math.log(0.2)])
    actions, _ = policy.sample_n(torch.zeros(1, 3), 20000)
    u = torch.atanh(actions) if cls is SquashedNormalPolicy else actions
    center = 0.4 if cls is SquashedNormalPolicy else math.tanh(0.4)
    assert u.mean().item() == pytest.approx(center, abs=0.01)
    assert u.std().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("cls", [SquashedNormalPolicy, NormalPolicy])
def test_log_density_that_comes_with_a_sample_is_that_of_the_sample(cls):
    torch.manual_seed(0)
    policy, x = cls(encoder(), 2, min_log_std=-3.0, max_log_std=-2.0), 0.3 * torch.randn(5, 3)
    action, log_prob = policy.sample(x)
    torch.testing.assert_close(log_prob, policy.log_prob(x, action), rtol=1e-3, atol=1e-3)
    actions, log_probs = policy.sample_n(x, 4)
    assert actions.shape == (5, 4, 2)
    for k in range(4):
        each = policy.log_prob(x, actions[:, k])
        torch.testing.assert_close(log_probs[:, k], each, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cls", [SquashedNormalPolicy, NormalPolicy, CategoricalPolicy])
def test_acting_draws_the_actions_of_a_sample(cls):
    torch.manual_seed(0)
    policy, x = cls(encoder(), 3), torch.randn(5, 3)
    torch.manual_seed(1)
    action, _ = policy.sample(x)
    torch.manual_seed(1)
    assert torch.equal(policy.sample_action(x), action)


def test_samples_of_one_observation_differ_and_belong_to_their_observation():
    torch.manual_seed(0)
    policy = NormalPolicy(encoder(1), 1, min_log_std=-5.0, max_log_std=-5.0)
    set_head(policy.head, [[1.0], [0.0]], [0.0, 0.0])
    actions, _ = policy.sample_n(torch.tensor([[-0.5], [0.5]]), 8)
    assert len(actions.unique()) == 16
    assert (actions[0] < 0).all()
    assert (actions[1] > 0).all()


def test_unsquashed_samples_are_clamped_but_their_density_is_that_before_clamping():
    torch.manual_seed(0)
    policy = fixed_gaussian(NormalPolicy, [0.0], [2.0])
    actions, log_probs = policy.sample_n(torch.zeros(1, 3), 200)
    assert actions.abs().max().item() == 1.0
    at_bound = actions.abs()[..., 0] == 1.0
    assert len(log_probs[at_bound].unique()) == at_bound.sum()


@pytest.mark.parametrize("cls", [SquashedNormalPolicy, NormalPolicy])
def test_log_std_is_clamped(cls):
    policy = fixed_gaussian(cls, [0.0, 0.0], [-50.0, 50.0], min_log_std=-4.0, max_log_std=1.0)
    assert policy.normal(torch.zeros(1, 3))[1].tolist() == [[-4.0, 1.0]]


def test_std_parameter_is_a_share_of_the_range_for_all_observations():
    policy = NormalPolicy(encoder(), 2, min_log_std=-4.0, max_log_std=0.0, use_std_parameter=True)
    with torch.no_grad():
        policy.std_parameter.copy_(torch.tensor([[0.0, math.log(3.0)]]))
    _, log_std = policy.normal(torch.randn(3, 3))
    np.testing.assert_allclose(log_std.detach(), [[-2.0, -1.0]] * 3, rtol=1e-6)
    assert policy.sample_n(torch.randn(3, 3), 4)[0].shape == (3, 4, 2)


@pytest.mark.parametrize("cls", [SquashedNormalPolicy, NormalPolicy])
def test_gradient_of_a_sample_reaches_mean_and_deviation(cls):
    torch.manual_seed(0)
    policy = fixed_gaussian(cls, [0.1], [-1.0])
    action, log_prob = policy.sample(torch.zeros(1, 3))
    (action + log_prob).sum().backward()
    assert (policy.head.bias.grad.abs() > 0).all()


def test_pathwise_gradient_of_a_squashed_sample_by_hand():
    torch.manual_seed(3)
    policy = fixed_gaussian(SquashedNormalPolicy, [0.1], [-1.0])
    action, _ = policy.sample(torch.zeros(1, 3))
    action.sum().backward()
    slope = 1 - action.item() ** 2
    noise = (math.atanh(action.item()) - 0.1) / math.exp(-1.0)
    expected = [slope, slope * noise * math.exp(-1.0)]
    assert policy.head.bias.grad.tolist() == pytest.approx(expected, rel=1e-4)


def fixed_categorical(probabilities):
    policy = CategoricalPolicy(encoder(), len(probabilities))
    set_head(policy.head, [[0.0] * 3] * len(probabilities), np.log(probabilities).tolist())
    return policy


def test_categorical_policy_knows_its_log_probabilities():
    policy, x = fixed_categorical([0.2, 0.5, 0.3]), torch.zeros(2, 3)
    np.testing.assert_allclose(policy.log_probs(x).detach(), np.log([[0.2, 0.5, 0.3]] * 2), rtol=1e-5)
    result = policy.log_prob(x, torch.tensor([2, 0]))
    np.testing.assert_allclose(result.detach(), np.log([[0.3], [0.2]]), rtol=1e-5)
    assert policy(x).tolist() == [1, 1]


def test_categorical_samples_follow_the_probabilities():
    torch.manual_seed(0)
    policy = fixed_categorical([0.2, 0.5, 0.3])
    actions, log_probs = policy.sample_n(torch.zeros(2, 3), 20000)
    for row in actions:
        np.testing.assert_allclose(torch.bincount(row) / 20000, [0.2, 0.5, 0.3], atol=0.012)
    np.testing.assert_allclose(log_probs.detach()[..., 0].exp(), np.array([0.2, 0.5, 0.3])[actions], rtol=1e-5)
    action, log_prob = policy.sample(torch.zeros(5, 3))
    assert action.dtype == torch.int64
    torch.testing.assert_close(log_prob, policy.log_prob(torch.zeros(5, 3), action))


def test_impossible_action_is_never_drawn():
    torch.manual_seed(0)
    policy = CategoricalPolicy(encoder(), 2)
    set_head(policy.head, [[0.0] * 3] * 2, [0.0, -1e4])
    assert policy.sample_n(torch.zeros(1, 3), 1000)[0].sum().item() == 0

"""Losses and densities: known answers, and numpy re-statements written for the eye."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3rlpy.functional import (
    atanh,
    expectile_loss,
    huber,
    normal_log_prob,
    quantile_huber_loss,
    tanh_log_det,
)

numbers = st.floats(-5, 5, allow_nan=False)


def slow_huber(u):
    return 0.5 * u**2 if abs(u) <= 1 else abs(u) - 0.5


def slow_quantile_huber(quantiles, target, taus):
    """One sample: own quantiles ``(N,)``, target ``(M,)``, levels ``(N,)``."""
    total = 0.0
    for q, tau in zip(quantiles, taus, strict=True):
        errors = [t - q for t in target]
        total += np.mean([abs(tau - (1.0 if u < 0 else 0.0)) * slow_huber(u) for u in errors])
    return total


@given(st.lists(numbers, min_size=1, max_size=8))
@settings(deadline=None, max_examples=50)
def test_huber_is_quadratic_up_to_one_and_linear_beyond(values):
    result = huber(torch.tensor(values, dtype=torch.float64))
    np.testing.assert_allclose(result, [slow_huber(u) for u in values], rtol=1e-12, atol=1e-300)


def test_huber_has_slope_one_beyond_the_threshold():
    u = torch.tensor([0.25, 4.0, -4.0], requires_grad=True)
    huber(u).sum().backward()
    assert u.grad.tolist() == [0.25, 1.0, -1.0]


def test_quantile_loss_sums_over_own_and_averages_over_target_quantiles():
    quantiles = torch.tensor([[0.0, 1.0]])
    target = torch.tensor([[0.5, 0.5, 3.0, -1.0]])
    taus = torch.tensor([0.25, 0.75])
    # own quantile 0 at level 0.25: u = .5, .5, 3, -1 -> .25*.125 + .25*.125 + .25*2.5 + .75*.5 = 1.0625
    # own quantile 1 at level 0.75: u = -.5, -.5, 2, -2 -> .25*.125 + .25*.125 + .75*1.5 + .25*1.5 = 1.5625
    assert quantile_huber_loss(quantiles, target, taus).tolist() == [(1.0625 + 1.5625) / 4]


@pytest.mark.parametrize("levels_per_sample", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (5, 2), (4, 1)])
def test_quantile_loss_equals_its_restatement_with_loops(n, m, levels_per_sample):
    rng = np.random.default_rng(n * 10 + m)
    quantiles, target = 2 * rng.normal(size=(6, n)), 2 * rng.normal(size=(6, m))
    taus = rng.uniform(size=(6, n)) if levels_per_sample else rng.uniform(size=n)
    result = quantile_huber_loss(*map(torch.from_numpy, (quantiles, target, taus)))
    each = np.broadcast_to(taus, (6, n))
    expected = [slow_quantile_huber(q, t, tau) for q, t, tau in zip(quantiles, target, each, strict=True)]
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_minimiser_of_the_quantile_loss_spreads_over_the_target():
    taus = torch.tensor([0.25, 0.75])
    target = torch.linspace(-100.0, 100.0, 401)[None]  # wide, so that the Huber corner hardly matters
    quantiles = torch.zeros(1, 2, requires_grad=True)
    optim = torch.optim.Adam([quantiles], lr=1.0)
    for _ in range(400):
        optim.zero_grad()
        quantile_huber_loss(quantiles, target, taus).sum().backward()
        optim.step()
    np.testing.assert_allclose(quantiles.detach()[0], [-50.0, 50.0], atol=2.0)


@given(st.lists(numbers, min_size=1, max_size=8), st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_expectile_loss_weighs_positive_and_negative_errors(values, expectile):
    result = expectile_loss(torch.tensor(values, dtype=torch.float64), expectile)
    expected = [(1 - expectile if u < 0 else expectile) * u**2 for u in values]
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-300)


def test_standard_normal_density_at_its_centre():
    zero = torch.zeros(1, 2)
    assert normal_log_prob(zero, zero, zero).item() == pytest.approx(-math.log(2 * math.pi))


def test_normal_density_equals_its_restatement():
    rng = np.random.default_rng(0)
    x, mean, log_std = rng.normal(size=(3, 5, 4))
    density = np.exp(-0.5 * ((x - mean) / np.exp(log_std)) ** 2) / (np.exp(log_std) * np.sqrt(2 * np.pi))
    result = normal_log_prob(*map(torch.from_numpy, (x, mean, log_std)))
    np.testing.assert_allclose(result, np.log(density).sum(axis=1, keepdims=True))


def test_squashed_density_integrates_to_one():
    actions = torch.linspace(-1, 1, 20001, dtype=torch.float64)[1:-1, None]
    u = atanh(actions)
    mean, log_std = torch.full_like(u, 0.3), torch.full_like(u, -0.7)
    density = (normal_log_prob(u, mean, log_std) - tanh_log_det(u)).exp()
    assert density.sum().item() * 1e-4 == pytest.approx(1.0, abs=1e-4)


def test_tanh_log_det_equals_the_derivative_and_stays_finite_where_tanh_is_one():
    u = torch.tensor([[-2.0, 0.5]], dtype=torch.float64)
    expected = np.log(1 - np.tanh(u.numpy()) ** 2).sum()
    assert tanh_log_det(u).item() == pytest.approx(expected)
    far = torch.tensor([[50.0], [-50.0]])  # log(1 - tanh^2) ~ log 4 - 2|u|
    np.testing.assert_allclose(tanh_log_det(far)[:, 0], 2 * math.log(2) - 100, rtol=1e-6)


def test_atanh_inverts_tanh_and_is_finite_at_the_bounds():
    u = torch.tensor([-3.0, -0.1, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(atanh(torch.tanh(u)), u)
    at_bounds = atanh(torch.tensor([1.0, -1.0], dtype=torch.float64))
    np.testing.assert_allclose(at_bounds, [math.atanh(1 - 1e-6), -math.atanh(1 - 1e-6)])
    assert torch.isfinite(atanh(torch.tensor([1.0, -1.0]))).all()

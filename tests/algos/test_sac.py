import numpy as np
import pytest
import torch

from d3rlpy.algos import SAC
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import two_step_dataset
from d3rlpy.testing.mdp import BEST_ACTIONS
from tests.algos.restate import critics, mlp, numpy_of, quantile_loss
from tests.algos.test_td3 import QUIET, STATES
from tests.helpers import random_batch


def impl_of(**params):
    """An impl in float64 whose slow critics and temperature differ from their start."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    given = {"initial_temperature": 0.3, "random_state": 0, **params}
    algo = SAC(actor_encoder_factory=encoder, critic_encoder_factory=encoder, **given)
    impl = algo.create_impl((3,), 2).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in impl.targ_q_funcs.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return impl


def a_batch():
    return random_batch(32, dtype=torch.float64)


@pytest.fixture
def noise(monkeypatch):
    """The normal variables that torch is going to draw."""
    drawn = torch.from_numpy(np.random.default_rng(0).normal(size=(32, 2)))
    monkeypatch.setattr(torch, "randn_like", lambda like: drawn)
    return drawn.numpy()


def squashed_sample(impl, x, noise):
    """Action and log density of a tanh-squashed normal variable, by the change of variables."""
    mean, log_std = np.split(mlp(impl.policy, x), 2, axis=1)
    std = np.exp(np.clip(log_std, -20, 2))
    action = np.tanh(mean + std * noise)
    density = np.exp(-0.5 * noise**2) / (std * np.sqrt(2 * np.pi)) / (1 - action**2)
    return action, np.log(density).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_critic_loss_subtracts_the_weighted_log_density_from_the_smaller_slow_critic(n_critics, noise):
    impl, batch = impl_of(n_critics=n_critics), a_batch()
    b = numpy_of(batch)
    action, log_prob = squashed_sample(impl, b["next_observations"], noise)
    following = np.min(critics(impl.targ_q_funcs, b["next_observations"], action), axis=0) - 0.3 * log_prob
    target = b["rewards"] + b["discounts"] * following
    expected = sum(((target - q) ** 2).mean() for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-7)


def test_the_quantile_critic_loss_shifts_all_quantiles_by_the_entropy(noise):
    impl, batch = impl_of(q_func_factory=QRQFunctionFactory(n_quantiles=4)), a_batch()
    b = numpy_of(batch)
    action, log_prob = squashed_sample(impl, b["next_observations"], noise)
    slow = np.stack(critics(impl.targ_q_funcs, b["next_observations"], action))
    following = slow[slow.mean(axis=2).argmin(axis=0), np.arange(32)] - 0.3 * log_prob
    target = b["rewards"] + b["discounts"] * following
    expected = sum(quantile_loss(q, target) for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-7)


def test_the_actor_loss_is_the_weighted_log_density_minus_the_smaller_critic(noise):
    impl, batch = impl_of(), a_batch()
    b = numpy_of(batch)
    action, log_prob = squashed_sample(impl, b["observations"], noise)
    q = np.min(critics(impl.q_funcs, b["observations"], action), axis=0)
    assert impl.actor_loss(batch).item() == pytest.approx((0.3 * log_prob - q).mean(), rel=1e-7)


def test_the_gradient_of_the_actor_loss_is_that_of_the_reparameterised_expression(noise):
    """Finite differences over the bias of the head, with the noise held fixed."""
    impl, batch = impl_of(), a_batch()
    b, bias = numpy_of(batch), impl.policy.head.bias

    def loss():
        action, log_prob = squashed_sample(impl, b["observations"], noise)
        return (0.3 * log_prob - np.min(critics(impl.q_funcs, b["observations"], action), axis=0)).mean()

    gradient = torch.autograd.grad(impl.actor_loss(batch), bias)[0]
    for i in range(4):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                bias[i] += step
                values.append(loss())
                bias[i] -= step
        assert gradient[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_the_temperature_loss_and_its_gradient_by_hand():
    impl = impl_of()
    log_prob = torch.tensor([[1.0], [4.0]], dtype=torch.float64)  # mean 2.5, the target entropy is -2
    loss = impl.temp_loss(log_prob)
    assert loss.item() == pytest.approx(-0.3 * (2.5 - 2))
    assert torch.autograd.grad(loss, impl.temp.log)[0].item() == pytest.approx(-0.3 * (2.5 - 2))


def test_too_little_entropy_raises_the_temperature_and_too_much_lowers_it():
    for log_prob, sign in ((5.0, 1), (-5.0, -1)):
        impl = impl_of(temp_learning_rate=0.1)
        impl.update_temp(torch.full((8, 1), log_prob, dtype=torch.float64))
        assert sign * (impl.temp().item() - 0.3) > 0


def test_a_temperature_without_learning_rate_stays():
    impl = impl_of(temp_learning_rate=0.0)
    metrics = impl.step(a_batch())
    assert set(metrics) == {"critic_loss", "actor_loss"}
    assert impl.temp().item() == pytest.approx(0.3)


def test_critics_and_temperature_receive_no_gradient_from_the_actor_loss():
    impl = impl_of()
    impl.actor_loss(a_batch()).backward()
    others = [*impl.q_funcs.parameters(), *impl.temp.parameters(), *impl.targ_q_funcs.parameters()]
    assert all(p.grad is None for p in others)


@pytest.mark.slow
@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_sac_finds_the_actions_of_two_steps_at_a_low_temperature(q_func):
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    algo = SAC(
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, temp_learning_rate=0.0, initial_temperature=0.01, tau=0.05,
        gamma=0.9, batch_size=128, actor_encoder_factory=encoder, critic_encoder_factory=encoder,
        q_func_factory=q_func, random_state=0,
    )  # fmt: skip
    algo.fit(two_step_dataset(), n_steps=1500, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx(BEST_ACTIONS, abs=0.1)


@pytest.mark.slow
def test_the_temperature_finds_the_entropy_that_it_is_told():
    """One step, no reward: the entropy of the policy goes to -1 for one action dimension."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    algo = SAC(
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, temp_learning_rate=1e-2, batch_size=128,
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0,
    ).fit(two_step_dataset(), n_steps=2500, **QUIET)  # fmt: skip
    with algo.stream_, torch.no_grad():
        _, log_prob = algo.impl.policy.sample(torch.from_numpy(np.repeat(STATES, 2000, axis=0)))
    assert -log_prob.mean().item() == pytest.approx(-1.0, abs=0.25)

import math

import numpy as np
import pytest
import torch

from d3rlpy.algos import DiscreteSAC
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import corridor
from tests.algos.restate import critics, huber, mlp, numpy_of, pick, quantile_loss
from tests.algos.test_dqn import QUIET
from tests.helpers import random_batch

N_ACTIONS = 4


def impl_of(**params):
    """An impl in float64 whose slow critics and temperature differ from their start."""
    encoder = VectorEncoderFactory(hidden_units=(16,))
    given = {"initial_temperature": 0.3, "random_state": 0, **params}
    algo = DiscreteSAC(actor_encoder_factory=encoder, critic_encoder_factory=encoder, **given)
    impl = algo.create_impl((3,), N_ACTIONS).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in [*impl.targ_q_funcs.parameters(), *impl.policy.parameters()]:
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return impl


def a_batch():
    return random_batch(32, action_size=N_ACTIONS, discrete=True, dtype=torch.float64)


def probabilities(impl, x):
    logits = mlp(impl.policy, x)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_critic_loss_is_that_of_the_paper(n_critics):
    impl, batch = impl_of(n_critics=n_critics), a_batch()
    b = numpy_of(batch)
    p = probabilities(impl, b["next_observations"])
    q = np.min(critics(impl.targ_q_funcs, b["next_observations"]), axis=0)
    value = sum(p[:, a] * (q[:, a] - 0.3 * np.log(p[:, a])) for a in range(N_ACTIONS))  # eq. 10
    target = b["rewards"][:, 0] + b["discounts"][:, 0] * value
    expected = sum(huber(target - pick(q, b["actions"])).mean() for q in critics(impl.q_funcs, b["observations"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-7)


def test_the_quantile_target_is_the_expectation_of_the_quantiles_of_the_smaller_critic_of_each_action():
    impl, batch = impl_of(q_func_factory=QRQFunctionFactory(n_quantiles=5)), a_batch()
    b = numpy_of(batch)
    p = probabilities(impl, b["next_observations"])
    slow = np.stack([q.reshape(32, N_ACTIONS, 5) for q in critics(impl.targ_q_funcs, b["next_observations"])])
    following = np.zeros((32, 5))
    for row in range(32):
        for a in range(N_ACTIONS):
            smaller = slow[slow[:, row, a].mean(axis=1).argmin(), row, a]
            following[row] += p[row, a] * (smaller - 0.3 * np.log(p[row, a]))
    target = b["rewards"] + b["discounts"] * following
    own = [q.reshape(32, N_ACTIONS, 5) for q in critics(impl.q_funcs, b["observations"])]
    expected = sum(quantile_loss(pick(q, b["actions"]), target) for q in own)
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-7)


def test_the_actor_loss_is_that_of_the_paper_and_its_gradient_sees_fixed_critics():
    impl, batch = impl_of(), a_batch()
    b, bias = numpy_of(batch), impl.policy.head.bias
    q = np.min(critics(impl.q_funcs, b["observations"]), axis=0)

    def loss():
        p = probabilities(impl, b["observations"])
        return (p * (0.3 * np.log(p) - q)).sum(axis=1).mean()  # eq. 12

    assert impl.actor_loss(batch).item() == pytest.approx(loss(), rel=1e-7)
    gradient = torch.autograd.grad(impl.actor_loss(batch), bias)[0]
    for i in range(N_ACTIONS):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                bias[i] += step
                values.append(loss())
                bias[i] -= step
        assert gradient[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_only_the_policy_receives_a_gradient_from_the_actor_loss_and_only_critics_from_theirs():
    impl = impl_of()
    impl.actor_loss(a_batch()).backward()
    others = [*impl.q_funcs.parameters(), *impl.temp.parameters(), *impl.targ_q_funcs.parameters()]
    assert all(p.grad is None for p in others)
    impl.zero_grad(set_to_none=True)
    impl.critic_loss(a_batch()).backward()
    others = [*impl.policy.parameters(), *impl.temp.parameters(), *impl.targ_q_funcs.parameters()]
    assert all(p.grad is None for p in others)


def uniform(impl):
    """Make the policy uniform, whose entropy is log 4."""
    with torch.no_grad():
        for p in impl.policy.parameters():
            p.zero_()
    return impl


def test_entropy_raises_the_target():
    impl, batch = uniform(impl_of()), a_batch()
    q = impl.targ_q_funcs.target_all(batch.next_observations).mean(dim=1)
    assert torch.allclose(impl.target(batch), q + 0.3 * math.log(N_ACTIONS))


def test_without_values_the_actor_goes_to_the_uniform_policy():
    impl, batch = impl_of(actor_learning_rate=1e-2, temp_learning_rate=0.0), a_batch()
    with torch.no_grad():
        for p in impl.q_funcs.parameters():
            p.zero_()

    def entropy():
        log_probs = impl.policy.log_probs(batch.observations)
        return -(log_probs.exp() * log_probs).sum(dim=1).mean().item()

    before = entropy()
    for _ in range(200):
        impl.update_actor(batch)
    assert entropy() > max(before, 0.99 * math.log(N_ACTIONS))


def test_too_little_entropy_raises_the_temperature_and_too_much_lowers_it():
    for target, sign in ((0.0, -1), (math.log(N_ACTIONS), 1)):
        impl = impl_of(temp_learning_rate=0.1, target_entropy=target)
        impl.update_actor(a_batch())
        assert sign * (impl.temp().item() - 0.3) > 0


def test_the_temperature_loss_and_its_gradient_by_hand():
    impl = impl_of(target_entropy=0.5)
    loss = impl.temp_loss(torch.tensor([[1.0], [0.6]], dtype=torch.float64))  # mean 0.8
    assert loss.item() == pytest.approx(0.3 * (0.8 - 0.5))
    assert torch.autograd.grad(loss, impl.temp.log)[0].item() == pytest.approx(0.3 * (0.8 - 0.5))


def test_the_temperature_loss_in_an_update_is_that_of_the_paper():
    impl, batch = impl_of(), a_batch()
    p = probabilities(impl, numpy_of(batch)["observations"])
    steered_to = 0.98 * -np.log(1 / N_ACTIONS)
    expected = (p * (-0.3 * (np.log(p) + steered_to))).sum(axis=1).mean()  # eq. 11
    assert impl.update_actor(batch)["temp_loss"].item() == pytest.approx(expected, rel=1e-7)


def test_a_temperature_without_learning_rate_stays():
    impl = impl_of(temp_learning_rate=0.0)
    assert set(impl.step(a_batch())) == {"critic_loss", "actor_loss"}
    assert impl.temp().item() == pytest.approx(0.3)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan"), "much"])
def test_a_target_entropy_that_no_policy_has_is_an_error(wrong):
    with pytest.raises(ValueError, match="target_entropy"):
        DiscreteSAC(target_entropy=wrong).create_impl((3,), N_ACTIONS)
    DiscreteSAC(target_entropy=math.log(N_ACTIONS)).create_impl((3,), N_ACTIONS)


def test_the_target_entropy_can_be_changed_between_updates():
    impl = impl_of()
    assert impl.target_entropy() == pytest.approx(0.98 * math.log(N_ACTIONS))
    impl.hp.set_params(target_entropy=0.2)
    assert impl.target_entropy() == 0.2
    with pytest.raises(ValueError, match="target_entropy=-1 is out of bounds"):
        impl.hp.set_params(target_entropy=-1)


def test_the_slow_copies_are_renewed_at_updates_that_the_interval_divides():
    impl = impl_of(target_update_interval=2)
    equal = []
    for _ in range(4):
        impl.step(a_batch())
        pairs = zip(impl.q_funcs.parameters(), impl.targ_q_funcs.parameters(), strict=True)
        equal.append(all(torch.equal(p, q) for p, q in pairs))
    assert equal == [False, True, False, True]


def soft_values(n_states, gamma, alpha):
    """Soft optimal values of the corridor by value iteration, and the policy, the softmax of Q / alpha."""
    q = np.zeros((n_states, 2))
    for _ in range(300):
        v = alpha * np.log(np.exp(q / alpha).sum(axis=1))
        q = gamma * np.stack([v[np.maximum(np.arange(n_states) - 1, 0)], np.append(v[1:], 0.0)], axis=1)
        q[-1, 1] = 1.0
    p = np.exp((q - q.max(axis=1, keepdims=True)) / alpha)
    return q, p / p.sum(axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_the_soft_values_and_policy_of_a_corridor_are_found(q_func):
    encoder = VectorEncoderFactory(hidden_units=(32,))
    algo = DiscreteSAC(
        gamma=0.9, actor_learning_rate=1e-2, critic_learning_rate=1e-2, temp_learning_rate=0.0, n_critics=1,
        initial_temperature=0.1, target_update_interval=20, q_func_factory=q_func,
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0,
    )  # fmt: skip
    algo.fit(corridor(), n_steps=2000, **QUIET)
    states = np.eye(4, dtype=np.float32)
    values, policy = soft_values(4, 0.9, 0.1)
    got = np.stack([algo.predict_value(states, np.full(4, a)) for a in (0, 1)], axis=1)
    assert got == pytest.approx(values, abs=0.05)
    with torch.no_grad():
        assert algo.impl.policy.log_probs(torch.from_numpy(states)).exp().numpy() == pytest.approx(policy, abs=0.05)
    assert algo.predict(states).tolist() == [1, 1, 1, 1]

import numpy as np
import pytest
import torch

from d3rlpy.algos import DDPG
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import two_step_dataset, two_step_value
from d3rlpy.testing.mdp import BEST_ACTIONS
from tests.algos.restate import critics, mlp, numpy_of, quantile_loss
from tests.algos.test_td3 import QUIET, STATES, AdamTwin, a_batch, impl_of, net
from tests.helpers import random_batch


@pytest.mark.parametrize("q_func", ["mean", "qr"])
@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_critic_loss_takes_the_slow_policy_without_noise(n_critics, q_func):
    factory = QRQFunctionFactory(n_quantiles=4) if q_func == "qr" else "mean"
    impl, batch = impl_of(DDPG, n_critics=n_critics, q_func_factory=factory), a_batch()
    b = numpy_of(batch)
    action = np.tanh(mlp(impl.targ_policy, b["next_observations"]))
    slow = np.stack(critics(impl.targ_q_funcs, b["next_observations"], action))
    target = b["rewards"] + b["discounts"] * slow[slow.mean(axis=2).argmin(axis=0), np.arange(32)]
    error = quantile_loss if q_func == "qr" else lambda q, y: ((y - q) ** 2).mean()
    expected = sum(error(q, target) for q in critics(impl.q_funcs, b["observations"], b["actions"]))
    assert impl.critic_loss(batch).item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(impl.target(batch), impl.target(batch))


def test_the_actor_loss_is_the_negative_value_and_reaches_the_policy_only():
    impl, batch = impl_of(DDPG), a_batch()
    b = numpy_of(batch)
    expected = -critics(impl.q_funcs, b["observations"], np.tanh(mlp(impl.policy, b["observations"])))[0].mean()
    loss = impl.actor_loss(batch)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    loss.backward()
    assert all(p.grad is not None for p in impl.policy.parameters())
    others = [impl.q_funcs, impl.targ_q_funcs, impl.targ_policy]
    assert all(p.grad is None for module in others for p in module.parameters())


def test_five_updates_equal_algorithm_1_written_out():
    """All four networks, each moved by every update, from the paper's pseudo-code."""
    impl = impl_of(DDPG, tau=0.1)
    names = {"pi": impl.policy, "pi-": impl.targ_policy, "q": impl.q_funcs, "q-": impl.targ_q_funcs}
    twin = {k: [p.detach().clone().requires_grad_("-" not in k) for p in m.parameters()] for k, m in names.items()}
    critic_adam, actor_adam = AdamTwin(twin["q"], 3e-4), AdamTwin(twin["pi"], 3e-4)
    for k in range(1, 6):
        batch = random_batch(32, seed=k, dtype=torch.float64)
        impl.step(batch)
        s, a, s2 = batch.observations, batch.actions, batch.next_observations
        with torch.no_grad():
            following = net(twin["q-"], torch.cat([s2, torch.tanh(net(twin["pi-"], s2))], 1))
            y = batch.rewards + batch.discounts * following
        critic_adam.step(((net(twin["q"], torch.cat([s, a], 1)) - y) ** 2).mean())
        actor_adam.step(-net(twin["q"], torch.cat([s, torch.tanh(net(twin["pi"], s))], 1)).mean())
        for slow, fast in (("pi-", "pi"), ("q-", "q")):
            for p, online in zip(twin[slow], twin[fast], strict=True):
                p.data += 0.1 * (online.data - p.data)
    for key, module in names.items():
        for ours, theirs in zip(module.parameters(), twin[key], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12), key


@pytest.mark.slow
def test_ddpg_finds_actions_and_values_of_two_steps():
    encoder = VectorEncoderFactory(hidden_units=(32, 32))
    algo = DDPG(
        actor_learning_rate=3e-3, critic_learning_rate=3e-3, tau=0.05, gamma=0.9, batch_size=128,
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0,
    )  # fmt: skip
    algo.fit(two_step_dataset(), n_steps=1200, **QUIET)
    assert algo.predict(STATES)[:, 0] == pytest.approx(BEST_ACTIONS, abs=0.1)
    expected = [two_step_value(i, BEST_ACTIONS[i], 0.9) for i in (0, 1)]
    assert algo.predict_value(STATES, BEST_ACTIONS[:, None].astype(np.float32)) == pytest.approx(expected, abs=0.1)

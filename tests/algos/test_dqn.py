import numpy as np
import pytest
import torch

from d3rlpy.algos import DQN, DoubleDQN
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.testing import corridor, corridor_values
from tests.algos.restate import critics, huber, numpy_of, pick, quantile_loss
from tests.helpers import random_batch

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}


def impl_of(cls, **params):
    """An impl in float64 whose slow copy differs from the online network."""
    algo = cls(encoder_factory=VectorEncoderFactory(hidden_units=(16,)), random_state=0, **params)
    impl = algo.create_impl((3,), 4).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in impl.targ_q_funcs.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return impl


def a_batch():
    return random_batch(32, action_size=4, discrete=True, dtype=torch.float64)


def chosen_next_action(impl, b, double):
    ensemble = impl.q_funcs if double else impl.targ_q_funcs
    return np.mean(critics(ensemble, b["next_observations"]), axis=0).argmax(axis=1)


@pytest.mark.parametrize(("cls", "double"), [(DQN, False), (DoubleDQN, True)])
@pytest.mark.parametrize("n_critics", [1, 3])
def test_the_loss_is_that_of_the_paper(cls, double, n_critics):
    impl, batch = impl_of(cls, n_critics=n_critics), a_batch()
    b = numpy_of(batch)
    best = chosen_next_action(impl, b, double)
    following = np.min([pick(q, best) for q in critics(impl.targ_q_funcs, b["next_observations"])], axis=0)
    target = b["rewards"][:, 0] + b["discounts"][:, 0] * following
    expected = sum(huber(target - pick(q, b["actions"])).mean() for q in critics(impl.q_funcs, b["observations"]))
    assert impl.loss(batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("cls", "double"), [(DQN, False), (DoubleDQN, True)])
def test_the_quantile_loss_takes_the_whole_distribution_of_the_critic_with_the_smaller_mean(cls, double):
    impl, batch = impl_of(cls, n_critics=2, q_func_factory=QRQFunctionFactory(n_quantiles=4)), a_batch()
    b = numpy_of(batch)
    n = len(b["actions"])

    def quantiles(ensemble, x):
        return [q.reshape(n, 4, 4) for q in critics(ensemble, x)]

    chooser = impl.q_funcs if double else impl.targ_q_funcs
    best = np.mean([q.mean(axis=2) for q in quantiles(chooser, b["next_observations"])], axis=0).argmax(axis=1)
    slow = [pick(q, best) for q in quantiles(impl.targ_q_funcs, b["next_observations"])]  # (batch, 4) each
    smaller = np.where(slow[0].mean(axis=1) <= slow[1].mean(axis=1), 0, 1)
    target = b["rewards"] + b["discounts"] * np.stack(slow)[smaller, np.arange(n)]
    expected = sum(quantile_loss(pick(q, b["actions"]), target) for q in quantiles(impl.q_funcs, b["observations"]))
    assert impl.loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_target_ignores_the_next_value_after_a_terminal():
    impl, batch = impl_of(DQN), a_batch()
    batch.discounts.zero_()
    first = impl.loss(batch).item()
    batch.next_observations.mul_(100)
    assert impl.loss(batch).item() == first


def test_the_slow_copy_receives_no_gradient():
    impl = impl_of(DoubleDQN)
    impl.loss(a_batch()).backward()
    assert all(p.grad is None for p in impl.targ_q_funcs.parameters())


def test_the_slow_copy_is_renewed_at_updates_that_the_interval_divides():
    impl = impl_of(DQN, target_update_interval=3)
    equal = []
    for _ in range(6):
        impl.step(a_batch())
        pairs = zip(impl.q_funcs.parameters(), impl.targ_q_funcs.parameters(), strict=True)
        equal.append(all(torch.equal(p, q) for p, q in pairs))
    assert equal == [False, False, True, False, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("cls", [DQN, DoubleDQN])
@pytest.mark.parametrize(("q_func", "n_critics"), [("mean", 1), ("mean", 2), ("qr", 1)])
def test_the_values_of_a_corridor_are_found(cls, q_func, n_critics):
    algo = cls(
        gamma=0.9,
        learning_rate=1e-2,
        target_update_interval=20,
        q_func_factory=q_func,
        n_critics=n_critics,
        encoder_factory=VectorEncoderFactory(hidden_units=(32,)),
        random_state=0,
    )
    algo.fit(corridor(), n_steps=1500, **QUIET)
    states = np.eye(4, dtype=np.float32)
    values = np.stack([algo.predict_value(states, np.full(4, a)) for a in (0, 1)], axis=1)
    assert values == pytest.approx(corridor_values(), abs=0.05)
    assert algo.predict(states).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("cls", [DQN, DoubleDQN])
def test_choosing_the_next_action_leaves_batch_statistics_alone(cls):
    encoder = VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True)
    impl = cls(encoder_factory=encoder, random_state=0).create_impl((3,), 4).impl.train()
    impl.step(random_batch(32, action_size=4, discrete=True))
    counts = [b.item() for n, b in impl.q_funcs.named_buffers() if n.endswith("num_batches_tracked")]
    assert counts == [1]

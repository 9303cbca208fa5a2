import numpy as np
import pytest
import torch

from d3rlpy.algos import NFQ
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.testing import corridor, corridor_values
from tests.algos.restate import critics, huber, numpy_of, pick
from tests.algos.test_dqn import QUIET
from tests.helpers import random_batch


def impl_of(**params):
    encoder = VectorEncoderFactory(hidden_units=(16,))
    return NFQ(encoder_factory=encoder, random_state=0, **params).create_impl((3,), 4).impl.double()


def a_batch(seed=0):
    return random_batch(32, action_size=4, discrete=True, seed=seed, dtype=torch.float64)


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_newest_network_values_the_next_action_in_every_update(n_critics):
    impl = impl_of(n_critics=n_critics, learning_rate=1e-2)
    for k in range(4):
        batch = a_batch(k)
        b = numpy_of(batch)
        following = critics(impl.q_funcs, b["next_observations"])
        best = np.mean(following, axis=0).argmax(axis=1)
        target = b["rewards"][:, 0] + b["discounts"][:, 0] * np.min([pick(q, best) for q in following], axis=0)
        expected = sum(huber(target - pick(q, b["actions"])).mean() for q in critics(impl.q_funcs, b["observations"]))
        assert impl.step(batch)["loss"].item() == pytest.approx(expected, rel=1e-7)


def test_the_target_has_no_gradient():
    impl, batch = impl_of(), a_batch()
    assert not impl.td_target(batch).requires_grad
    impl.loss(batch).backward()
    assert all(p.grad is None for p in impl.targ_q_funcs.parameters())


def test_there_is_no_interval_to_choose():
    assert "target_update_interval" not in NFQ().get_params()
    with pytest.raises(TypeError, match="NFQ has no parameter 'target_update_interval'"):
        NFQ(target_update_interval=10)
    with pytest.raises(ValueError, match="NFQ has no parameter 'target_update_interval'"):
        NFQ().set_params(target_update_interval=10)


@pytest.mark.slow
@pytest.mark.parametrize("q_func", ["mean", "qr"])
def test_the_values_of_a_corridor_are_found(q_func):
    encoder = VectorEncoderFactory(hidden_units=(32,))
    algo = NFQ(gamma=0.9, learning_rate=1e-2, q_func_factory=q_func, encoder_factory=encoder, random_state=0)
    algo.fit(corridor(), n_steps=1500, **QUIET)
    states = np.eye(4, dtype=np.float32)
    values = np.stack([algo.predict_value(states, np.full(4, a)) for a in (0, 1)], axis=1)
    assert values == pytest.approx(corridor_values(), abs=0.05)
    assert algo.predict(states).tolist() == [1, 1, 1, 1]

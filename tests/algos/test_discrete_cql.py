import numpy as np
import pytest
import torch

from d3rlpy.algos import DiscreteCQL, DoubleDQN
from d3rlpy.dataset import MDPDataset
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.testing import corridor
from tests.algos.restate import critics, numpy_of, pick
from tests.algos.test_dqn import QUIET, a_batch, impl_of


def penalty(impl, batch):
    return impl.conservative_loss(impl.q_funcs(batch.observations), batch.actions)


@pytest.mark.parametrize("n_critics", [1, 2])
def test_each_critic_pays_log_sum_exp_minus_its_value_of_the_action_of_the_data(n_critics):
    impl, batch = impl_of(DiscreteCQL, n_critics=n_critics), a_batch()
    b = numpy_of(batch)
    each = critics(impl.q_funcs, b["observations"])
    expected = sum((np.log(np.exp(q).sum(axis=1)) - pick(q, b["actions"])).mean() for q in each)
    assert penalty(impl, batch).item() == pytest.approx(expected, rel=1e-9)
    greedy = sum((np.log(np.exp(q).sum(axis=1)) - q.max(axis=1)).mean() for q in each)
    assert expected > greedy + 0.01  # so the wrong action would be noticed


def test_the_penalty_of_equal_values_is_the_log_of_the_number_of_actions():
    impl = impl_of(DiscreteCQL)
    with torch.no_grad():
        for p in impl.q_funcs.parameters():
            p.zero_()
    assert penalty(impl, a_batch()).item() == pytest.approx(np.log(4))


def test_the_loss_is_that_of_double_dqn_plus_alpha_times_the_penalty():
    batch = a_batch()
    plain = impl_of(DoubleDQN).loss(batch).item()
    impl = impl_of(DiscreteCQL, alpha=2.5)
    assert impl.loss(batch).item() == pytest.approx(plain + 2.5 * penalty(impl, batch).item(), rel=1e-9)


def test_alpha_can_be_changed_between_updates():
    batch = a_batch()
    impl = impl_of(DiscreteCQL, alpha=2.5)
    impl.hp.set_params(alpha=0.0)
    assert impl.loss(batch).item() == pytest.approx(impl_of(DoubleDQN).loss(batch).item(), rel=1e-9)


@pytest.mark.slow
def test_the_optimum_of_a_corridor_is_found():
    algo = DiscreteCQL(
        gamma=0.9,
        alpha=0.1,
        learning_rate=1e-2,
        target_update_interval=20,
        encoder_factory=VectorEncoderFactory(hidden_units=(32,)),
        random_state=0,
    )
    algo.fit(corridor(), n_steps=1500, **QUIET)
    assert algo.predict(np.eye(4, dtype=np.float32)).tolist() == [1, 1, 1, 1]


@pytest.mark.slow
def test_an_action_outside_the_data_is_valued_below_those_inside():
    """Three actions with rewards 1, 2 and, never taken, 3: the answer is the best action of the data."""
    n = 300
    actions = np.arange(n) % 2
    dataset = MDPDataset(np.ones((n, 1), np.float32), actions, actions + 1.0, np.ones(n), action_size=3)
    algo = DiscreteCQL(learning_rate=1e-2, encoder_factory=VectorEncoderFactory(hidden_units=(16,)), random_state=0)
    algo.fit(dataset, n_steps=500, **QUIET)
    x = np.ones((1, 1))
    assert algo.predict(x).tolist() == [1]
    # Minimum of Huber(r - q_a) + log sum exp q - q_a: dL/dq_2 = p_2 > 0 forever, so q_2 falls without end.
    assert algo.predict_value(x, [2])[0] < algo.predict_value(x, [0])[0] - 1.0

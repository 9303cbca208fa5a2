import numpy as np
import pytest
import torch

from d3rlpy.algos import DiscreteBCQ, DoubleDQN
from d3rlpy.dataset import MDPDataset
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.testing import corridor
from tests.algos.restate import critics, huber, mlp, numpy_of, pick
from tests.algos.test_dqn import QUIET, a_batch, impl_of
from tests.helpers import random_batch


def spread(impl):
    """Let the imitator have preferences, so that some actions are forbidden."""
    with torch.no_grad():
        impl.imitator.head.weight.mul_(8.0)
    return impl


def probabilities(impl, x):
    logits = mlp(impl.imitator, x)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def constrained_argmax(impl, x, flexibility):
    """Row by row: the greatest mean value among the actions that are probable enough."""
    p, q = probabilities(impl, x), np.mean(critics(impl.q_funcs, x), axis=0)
    chosen = []
    for row in range(len(x)):
        allowed = [a for a in range(q.shape[1]) if p[row, a] / p[row].max() >= flexibility]
        chosen.append(max(allowed, key=lambda a: q[row, a]))
    return np.array(chosen)


@pytest.mark.parametrize("n_critics", [1, 2])
def test_the_loss_is_double_dqn_with_a_constrained_choice_plus_likelihood_and_penalty(n_critics):
    impl, batch = spread(impl_of(DiscreteBCQ, n_critics=n_critics, beta=0.2)), a_batch()
    b = numpy_of(batch)
    x, rows = b["next_observations"], np.arange(32)
    best = constrained_argmax(impl, x, 0.3)
    assert (best != np.mean(critics(impl.q_funcs, x), axis=0).argmax(axis=1)).any()  # the constraint binds
    following = np.min([pick(q, best) for q in critics(impl.targ_q_funcs, x)], axis=0)
    target = b["rewards"][:, 0] + b["discounts"][:, 0] * following
    td = sum(huber(target - pick(q, b["actions"])).mean() for q in critics(impl.q_funcs, b["observations"]))
    likelihood = np.log(probabilities(impl, b["observations"])[rows, b["actions"]]).mean()
    penalty = (mlp(impl.imitator, b["observations"]) ** 2).mean()
    assert impl.imitator_loss(batch).item() == pytest.approx(-likelihood + 0.2 * penalty, rel=1e-9)
    assert impl.loss(batch).item() == pytest.approx(td - likelihood + 0.2 * penalty, rel=1e-9)


@pytest.mark.parametrize("flexibility", [0.0, 0.1, 0.3, 0.9, 1.0])
def test_the_greedy_action_is_the_best_of_the_allowed_ones(flexibility):
    impl, batch = spread(impl_of(DiscreteBCQ, action_flexibility=flexibility)), a_batch()
    x = batch.observations.numpy()
    with torch.no_grad():
        got = impl.best_action(batch.observations).numpy()
    assert got.tolist() == constrained_argmax(impl, x, flexibility).tolist()
    if flexibility == 0.0:
        assert got.tolist() == np.mean(critics(impl.q_funcs, x), axis=0).argmax(axis=1).tolist()
    if flexibility == 1.0:
        assert got.tolist() == mlp(impl.imitator, x).argmax(axis=1).tolist()


def fixed_impl(q, logits, **params):
    """Values and logits that don't depend on the observation."""
    impl = impl_of(DiscreteBCQ, **params)
    with torch.no_grad():
        for network, outputs in ((impl.q_funcs.critics[0], q), (impl.imitator, logits)):
            network.head.weight.zero_()
            network.head.bias.copy_(torch.tensor(outputs, dtype=torch.float64))
    return impl


@pytest.mark.parametrize("worst", range(4))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_action_is_taken_if_it_alone_is_allowed_though_its_value_is_the_smallest(worst, sign):
    """A product of values and mask, shifted or not, would take action 0 or a forbidden one."""
    q = [sign * (10.0 + a) for a in range(4)]
    q[worst] = min(q) - 1.0
    impl = fixed_impl(q, [5.0 if a == worst else -5.0 for a in range(4)])
    assert impl.best_action(a_batch().observations).tolist() == [worst] * 32


def test_the_only_allowed_action_is_also_the_one_of_the_target():
    impl, batch = fixed_impl([3.0, 2.0, 1.0, 0.0], [-5.0, -5.0, -5.0, 5.0]), a_batch()
    expected = critics(impl.targ_q_funcs, batch.next_observations.numpy())[0][:, 3]
    assert impl.target(batch)[:, 0].detach().numpy() == pytest.approx(expected, rel=1e-9)


def test_the_threshold_is_relative_to_the_most_probable_action_and_includes_equality():
    """Probabilities 0.4, 0.3, 0.2 and 0.1: relative to the first they are 1, 3/4, 1/2 and 1/4."""
    x = a_batch().observations
    for flexibility, expected in ((0.76, 1), (0.74, 2), (0.51, 2), (0.49, 3), (0.26, 3), (0.24, 4), (1.0, 1), (0.0, 4)):
        impl = fixed_impl([0.0] * 4, np.log([0.4, 0.3, 0.2, 0.1]).tolist(), action_flexibility=flexibility)
        assert impl.allowed(x).sum(dim=1).tolist() == [expected] * 32


def test_without_constraint_and_imitator_the_loss_is_that_of_double_dqn():
    batch = a_batch()
    impl = impl_of(DiscreteBCQ, action_flexibility=0.0)
    plain = impl_of(DoubleDQN)
    plain.q_funcs.load_state_dict(impl.q_funcs.state_dict())
    plain.targ_q_funcs.load_state_dict(impl.targ_q_funcs.state_dict())
    assert impl.td_loss(batch).item() == pytest.approx(plain.loss(batch).item(), rel=1e-12)


def test_the_td_error_trains_no_imitator_and_the_likelihood_no_critic():
    for loss, module in (("td_loss", "q_funcs"), ("imitator_loss", "imitator")):
        impl = impl_of(DiscreteBCQ)
        getattr(impl, loss)(a_batch()).backward()
        assert {name.split(".")[0] for name, p in impl.named_parameters() if p.grad is not None} == {module}


def test_choosing_the_next_action_leaves_batch_statistics_alone():
    encoder = VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True)
    impl = DiscreteBCQ(encoder_factory=encoder, random_state=0).create_impl((3,), 4).impl.train()
    impl.step(random_batch(32, action_size=4, discrete=True))
    for module in (impl.q_funcs, impl.imitator):
        assert [b.item() for n, b in module.named_buffers() if n.endswith("num_batches_tracked")] == [1]
        assert all(m.training for m in module.modules())


def test_a_threshold_outside_0_to_1_is_an_error():
    with pytest.raises(ValueError, match="action_flexibility"):
        DiscreteBCQ(action_flexibility=1.5).create_impl((3,), 4)


@pytest.mark.slow
def test_the_optimum_of_a_corridor_is_found():
    algo = DiscreteBCQ(
        gamma=0.9,
        learning_rate=1e-2,
        target_update_interval=20,
        encoder_factory=VectorEncoderFactory(hidden_units=(32,)),
        random_state=0,
    )
    algo.fit(corridor(), n_steps=1500, **QUIET)
    assert algo.predict(np.eye(4, dtype=np.float32)).tolist() == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_better_action_that_the_data_hardly_takes_is_not_taken():
    """Rewards 1, 2 and 3, taken in 45, 50 and 5 of 100 steps: at 0.3 the answer is 1, without constraint it is 2."""
    actions = np.repeat([0, 1, 2], [45, 50, 5])
    dataset = MDPDataset(np.ones((100, 1), np.float32), actions, actions + 1.0, np.ones(100), action_size=3)
    for flexibility, expected in ((0.3, 1), (0.0, 2)):
        algo = DiscreteBCQ(
            action_flexibility=flexibility, beta=0.001, learning_rate=1e-2, random_state=0,
            encoder_factory=VectorEncoderFactory(hidden_units=(16,)),
        )  # fmt: skip
        algo.fit(dataset, n_steps=500, **QUIET)
        assert algo.predict(np.ones((1, 1))).tolist() == [expected]

"""Single critics: what they return, and their losses against numpy re-statements."""

import json

import numpy as np
import pytest
import torch
from sklearn.base import clone

from d3rlpy.models import (
    MeanQFunctionFactory,
    QRQFunctionFactory,
    VectorEncoderFactory,
    create_encoder,
    create_encoder_with_action,
    create_q_func_factory,
)
from d3rlpy.models.q_functions import Q_FUNCTIONS, register_q_func_factory
from d3rlpy.models.q_functions.qr import midpoints

B, A, N = 6, 3, 5
LINEAR = VectorEncoderFactory([])  # features are the inputs


def discrete(factory):
    return factory.create_discrete(create_encoder(LINEAR, (2,)), A).double()


def continuous(factory):
    return factory.create_continuous(create_encoder_with_action(LINEAR, (2,), A)).double()


def batch(seed=0):
    rng = np.random.default_rng(seed)
    x, action = rng.normal(size=(B, 2)), rng.normal(size=(B, A))
    return x, action, rng.integers(0, A, B), 3 * rng.normal(size=(B, 1)), 3 * rng.normal(size=(B, 4))


def tensors(*arrays):
    return [torch.from_numpy(a) for a in arrays]


def head_of(q):
    return q.head.weight.detach().numpy(), q.head.bias.detach().numpy()


def slow_huber(u):
    return np.where(np.abs(u) <= 1, 0.5 * u**2, np.abs(u) - 0.5)


def slow_quantile_loss(quantiles, target):
    """Loops over samples, own quantiles j and target quantiles i."""
    losses = []
    for own, others in zip(quantiles, target, strict=True):
        loss = 0.0
        for j, q in enumerate(own):
            tau = (2 * j + 1) / (2 * len(own))
            loss += np.mean([abs(tau - (y - q < 0)) * slow_huber(y - q) for y in others])
        losses.append(loss)
    return np.mean(losses)


@pytest.mark.parametrize("width", [1, 4])
def test_discrete_mean_critic_minimises_huber_at_the_chosen_action(width):
    q, (x, _, ids, *targets) = discrete(MeanQFunctionFactory()), batch()
    target = targets[0] if width == 1 else targets[1]
    weight, bias = head_of(q)
    values = x @ weight.T + bias
    np.testing.assert_allclose(q(*tensors(x)).detach(), values)
    expected = slow_huber(target - values[np.arange(B), ids][:, None]).mean()
    result = q.td_loss(*tensors(target, x, ids))
    assert result.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("width", [1, 4])
def test_continuous_mean_critic_minimises_the_squared_error_without_one_half(width):
    q, (x, action, _, *targets) = continuous(MeanQFunctionFactory()), batch()
    target = targets[0] if width == 1 else targets[1]
    weight, bias = head_of(q)
    values = np.hstack([x, action]) @ weight.T + bias
    np.testing.assert_allclose(q(*tensors(x, action)).detach(), values)
    result = q.td_loss(*tensors(target, x, action))
    assert result.item() == pytest.approx(((target - values) ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("width", [1, 4])
def test_discrete_quantile_critic_minimises_the_quantile_loss_at_the_chosen_action(width):
    q, (x, _, ids, *targets) = discrete(QRQFunctionFactory(N)), batch()
    target = targets[0] if width == 1 else targets[1]
    weight, bias = head_of(q)
    quantiles = (x @ weight.T + bias).reshape(B, A, N)
    np.testing.assert_allclose(q.distributions(*tensors(x)).detach(), quantiles)
    np.testing.assert_allclose(q(*tensors(x)).detach(), quantiles.mean(axis=2))
    chosen = quantiles[np.arange(B), ids]
    np.testing.assert_allclose(q.distribution(*tensors(x, ids)).detach(), chosen)
    result = q.td_loss(*tensors(target, x, ids))
    assert result.item() == pytest.approx(slow_quantile_loss(chosen, target), rel=1e-6)


@pytest.mark.parametrize("width", [1, 4])
def test_continuous_quantile_critic_minimises_the_quantile_loss(width):
    q, (x, action, _, *targets) = continuous(QRQFunctionFactory(N)), batch()
    target = targets[0] if width == 1 else targets[1]
    weight, bias = head_of(q)
    quantiles = np.hstack([x, action]) @ weight.T + bias
    np.testing.assert_allclose(q.distribution(*tensors(x, action)).detach(), quantiles)
    np.testing.assert_allclose(q(*tensors(x, action)).detach(), quantiles.mean(axis=1, keepdims=True))
    result = q.td_loss(*tensors(target, x, action))
    assert result.item() == pytest.approx(slow_quantile_loss(quantiles, target), rel=1e-6)


def test_distribution_of_a_mean_critic_is_its_single_value():
    q, (x, action, ids, *_) = discrete(MeanQFunctionFactory()), batch()
    values = q(*tensors(x))
    assert torch.equal(q.distributions(*tensors(x)), values[..., None])
    assert torch.equal(q.distribution(*tensors(x, ids))[:, 0], values[torch.arange(B), torch.from_numpy(ids)])
    q = continuous(MeanQFunctionFactory())
    assert torch.equal(q.distribution(*tensors(x, action)), q(*tensors(x, action)))


def test_loss_leaves_other_actions_alone():
    q, (x, _, _, target, _) = discrete(QRQFunctionFactory(N)), batch()
    q.td_loss(*tensors(target, x, np.full(B, 1))).backward()
    grad = q.head.bias.grad.reshape(A, N)
    assert grad[1].abs().sum() > 0
    assert grad[[0, 2]].abs().sum() == 0


def test_target_of_one_axis_is_refused_instead_of_broadcast():
    q, (x, action, _, target, _) = continuous(MeanQFunctionFactory()), batch()
    with pytest.raises(ValueError, match=r"target must have the shape \(batch, values\), got \(6,\)"):
        q.td_loss(*tensors(target[:, 0], x, action))


def test_quantile_levels_are_midpoints():
    np.testing.assert_allclose(midpoints(4), [0.125, 0.375, 0.625, 0.875])


def test_quantile_levels_are_no_part_of_a_saved_model():
    assert set(discrete(QRQFunctionFactory(N)).state_dict()) == {"head.weight", "head.bias"}


def test_quantiles_learn_a_known_distribution():
    """Targets are 0 or 10 with equal probability: the lower quantiles go to 0 and the upper ones to 10."""
    torch.manual_seed(0)
    q = QRQFunctionFactory(4).create_discrete(create_encoder(LINEAR, (1,)), 1)
    x, ids = torch.ones(256, 1), torch.zeros(256, dtype=torch.int64)
    target = torch.tensor([[0.0], [10.0]]).repeat(128, 1)
    optim = torch.optim.Adam(q.parameters(), lr=0.1)
    for _ in range(600):
        optim.zero_grad()
        q.td_loss(target, x, ids).backward()
        optim.step()
    quantiles = q.distributions(x[:1]).detach()[0, 0]
    np.testing.assert_allclose(quantiles, [0, 0, 10, 10], atol=0.7)
    assert q(x[:1]).item() == pytest.approx(5.0, abs=0.5)


@pytest.mark.parametrize("factory", [MeanQFunctionFactory(), QRQFunctionFactory(n_quantiles=7)])
def test_factory_survives_json_and_clone(factory):
    assert Q_FUNCTIONS.resolve(json.loads(json.dumps(factory.to_dict()))) == factory
    assert clone(factory) == factory
    assert create_q_func_factory(factory.get_type(), **factory.get_params()) == factory


def test_wrong_parameters_are_refused_with_their_name():
    with pytest.raises(ValueError, match="n_quantiles=0 must be at least 1"):
        QRQFunctionFactory(0)
    with pytest.raises(ValueError, match=r"no Q function factory is called 'men'.*'mean'"):
        create_q_func_factory("men")
    with pytest.raises(TypeError, match="unexpected keyword argument 'share_encoder'"):
        create_q_func_factory("mean", share_encoder=True)


def test_own_kind_can_be_registered_once():
    class Own(MeanQFunctionFactory):
        TYPE = "own_kind"

    register_q_func_factory(Own)
    try:
        assert isinstance(create_q_func_factory("own_kind"), Own)
        with pytest.raises(ValueError, match="the Q function factory name 'own_kind' already belongs to Own"):
            register_q_func_factory(type("Other", (MeanQFunctionFactory,), {"TYPE": "own_kind"}))
    finally:
        del Q_FUNCTIONS.classes["own_kind"]

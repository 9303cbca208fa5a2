"""Single critics: what they return, and their losses against numpy re-statements."""

import json

import numpy as np
import pytest
import torch
from sklearn.base import clone

from d3rlpy.models import (
    C51QFunctionFactory,
    FQFQFunctionFactory,
    IQNQFunctionFactory,
    MeanQFunctionFactory,
    QRQFunctionFactory,
    VectorEncoderFactory,
    create_encoder,
    create_encoder_with_action,
    create_q_func_factory,
    create_q_functions,
)
from d3rlpy.models.q_functions import (
    Q_FUNCTIONS,
    LinearQFunction,
    LinearValues,
    QFunction,
    QFunctionFactory,
    register_q_func_factory,
)
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


def loss_of(q, target, x, action):
    target, x, action = tensors(target, x, action)
    return q.evaluate(x, None if q.discrete else action).td_loss(target, action)


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
    np.testing.assert_allclose(q(*tensors(x))[0].detach(), values)
    expected = slow_huber(target - values[np.arange(B), ids][:, None]).mean()
    result = loss_of(q, target, x, ids)
    assert result.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("width", [1, 4])
def test_continuous_mean_critic_minimises_the_squared_error_without_one_half(width):
    q, (x, action, _, *targets) = continuous(MeanQFunctionFactory()), batch()
    target = targets[0] if width == 1 else targets[1]
    weight, bias = head_of(q)
    values = np.hstack([x, action]) @ weight.T + bias
    np.testing.assert_allclose(q(*tensors(x, action))[0].detach(), values)
    result = loss_of(q, target, x, action)
    assert result.item() == pytest.approx(((target - values) ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("width", [1, 4])
def test_discrete_quantile_critic_minimises_the_quantile_loss_at_the_chosen_action(width):
    q, (x, _, ids, *targets) = discrete(QRQFunctionFactory(N)), batch()
    target = targets[0] if width == 1 else targets[1]
    weight, bias = head_of(q)
    quantiles = (x @ weight.T + bias).reshape(B, A, N)
    values = q.evaluate(*tensors(x))
    np.testing.assert_allclose(values.all_distributions()[0].detach(), quantiles)
    np.testing.assert_allclose(q(*tensors(x))[0].detach(), quantiles.mean(axis=2))
    chosen = quantiles[np.arange(B), ids]
    np.testing.assert_allclose(values.distributions(*tensors(ids))[0].detach(), chosen)
    result = loss_of(q, target, x, ids)
    assert result.item() == pytest.approx(slow_quantile_loss(chosen, target), rel=1e-6)


@pytest.mark.parametrize("width", [1, 4])
def test_continuous_quantile_critic_minimises_the_quantile_loss(width):
    q, (x, action, _, *targets) = continuous(QRQFunctionFactory(N)), batch()
    target = targets[0] if width == 1 else targets[1]
    weight, bias = head_of(q)
    quantiles = np.hstack([x, action]) @ weight.T + bias
    values = q.evaluate(*tensors(x, action))
    np.testing.assert_allclose(values.distributions(*tensors(action))[0].detach(), quantiles)
    np.testing.assert_allclose(q(*tensors(x, action))[0].detach(), quantiles.mean(axis=1, keepdims=True))
    result = loss_of(q, target, x, action)
    assert result.item() == pytest.approx(slow_quantile_loss(quantiles, target), rel=1e-6)


def test_distribution_of_a_mean_critic_is_its_single_value():
    q, (x, action, ids, *_) = discrete(MeanQFunctionFactory()), batch()
    values = q.evaluate(*tensors(x))
    assert torch.equal(values.all_distributions(), values.expected()[..., None])
    chosen = values.expected()[0, torch.arange(B), torch.from_numpy(ids)]
    assert torch.equal(values.distributions(*tensors(ids))[0, :, 0], chosen)
    values = continuous(MeanQFunctionFactory()).evaluate(*tensors(x, action))
    assert torch.equal(values.distributions(*tensors(action)), values.expected())


def test_loss_leaves_other_actions_alone():
    q, (x, _, _, target, _) = discrete(QRQFunctionFactory(N)), batch()
    loss_of(q, target, x, np.full(B, 1)).backward()
    grad = q.head.bias.grad.reshape(A, N)
    assert grad[1].abs().sum() > 0
    assert grad[[0, 2]].abs().sum() == 0


def test_target_of_one_axis_is_refused_instead_of_broadcast():
    q, (x, action, _, target, _) = continuous(MeanQFunctionFactory()), batch()
    with pytest.raises(ValueError, match=r"target must have the shape \(batch, values\), got \(6,\)"):
        loss_of(q, target[:, 0], x, action)


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
        q.evaluate(x).td_loss(target, ids).backward()
        optim.step()
    quantiles = q.evaluate(x[:1]).all_distributions().detach()[0, 0, 0]
    np.testing.assert_allclose(quantiles, [0, 0, 10, 10], atol=0.7)
    assert q(x[:1]).item() == pytest.approx(5.0, abs=0.5)


@pytest.mark.parametrize(
    "factory",
    [
        MeanQFunctionFactory(),
        QRQFunctionFactory(n_quantiles=7, share_encoder=True),
        IQNQFunctionFactory(8, 4, 16, bootstrap=True),
        FQFQFunctionFactory(entropy_coeff=0.1, fraction_rate=1.0),
        C51QFunctionFactory(v_min=0.0),
    ],
)
def test_factory_survives_json_and_clone(factory):
    assert Q_FUNCTIONS.resolve(json.loads(json.dumps(factory.to_dict()))) == factory
    assert clone(factory) == factory
    assert create_q_func_factory(factory.get_type(), **factory.get_params()) == factory


def test_wrong_parameters_are_refused_with_their_name():
    with pytest.raises(ValueError, match="n_quantiles=0 must be at least 1"):
        QRQFunctionFactory(0)
    with pytest.raises(ValueError, match=r"no Q function factory is called 'men'.*'mean'"):
        create_q_func_factory("men")
    with pytest.raises(TypeError, match="unexpected keyword argument 'share_encoders'"):
        create_q_func_factory("mean", share_encoders=True)
    for params, message in [
        ({"n_greedy_quantiles": 0}, "n_greedy_quantiles=0 must be at least 1"),
        ({"embed_size": 1.5}, r"embed_size=1.5 must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            create_q_func_factory("iqn", **params)
    for params, message in [
        ({"entropy_coeff": -1.0}, "entropy_coeff=-1.0 must be at least 0"),
        ({"fraction_rate": 0.0}, "fraction_rate=0.0 must be greater than 0 and at most 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            create_q_func_factory("fqf", **params)
    for params, message in [
        ({"n_atoms": 1}, "n_atoms=1 must be at least 2"),
        ({"v_min": 1.0, "v_max": 1.0}, "v_min=1.0 must be less than v_max=1.0"),
        ({"v_max": float("inf")}, "both finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            create_q_func_factory("c51", **params)


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


class Ramp(LinearQFunction):
    """A kind of one's own: values of a line between two outputs."""

    class Values(LinearValues):
        def expected(self):
            return self.heads().mean(dim=-1)

        def all_distributions(self):
            return self.heads()

        def errors(self, target, action):
            return (self.distributions(action) - target).abs().mean(dim=-1)

    values_type = Values


class RampFactory(QFunctionFactory):
    TYPE = "ramp"

    def create(self, encoder, action_size=None, n_critics=1):
        return Ramp(encoder, action_size, n_critics, 2)


class Alone(QFunction):
    """A kind without a linear head, which knows nothing of n actions at once."""

    def __init__(self, encoder, action_size):
        super().__init__()
        self.action_size, self.body = action_size, MeanQFunctionFactory().create(encoder, action_size)

    def evaluate(self, x, action=None):
        assert action is None or action.dim() == 2
        return self.body.evaluate(x, action)


class AloneFactory(QFunctionFactory):
    TYPE = "alone"

    def create(self, encoder, action_size=None, n_critics=1):
        return Alone(encoder, action_size)


@pytest.mark.parametrize("factory", [RampFactory(), RampFactory(share_encoder=True, bootstrap=True), AloneFactory()])
@pytest.mark.parametrize("is_discrete", [False, True])
def test_own_kinds_work_in_ensembles(factory, is_discrete):
    q = create_q_functions(factory, VectorEncoderFactory((8,)), (2,), A, 3, discrete=is_discrete).double()
    x, action, ids, target, _ = tensors(*batch())
    chosen = ids if is_discrete else action
    assert q.td_loss(target, x, chosen).isfinite()
    assert q.target(x, chosen, "mix").shape == (B, 1 if isinstance(factory, AloneFactory) else 2)
    if not is_discrete:
        actions = torch.stack([action, -action], dim=1)
        best, index = q.best_of(x, actions, "min")
        torch.testing.assert_close(best, q.target(x, actions[torch.arange(B), index]))
        torch.testing.assert_close(q.detached(x, actions), q(x, actions)[0])


def test_a_kind_that_cannot_share_says_so():
    with pytest.raises(ValueError, match=r"AloneFactory made 1 critics with one encoder, 3 were asked for"):
        create_q_functions(AloneFactory(share_encoder=True), "default", (2,), A, 3)

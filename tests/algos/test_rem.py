import numpy as np
import pytest
import torch

from d3rlpy.algos import REM, EnsembleDQN
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.q_functions import MeanQFunctionFactory
from d3rlpy.testing import corridor, corridor_values
from tests.algos.restate import huber, numpy_of, pick
from tests.helpers import random_batch

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SHARED = MeanQFunctionFactory(share_encoder=True)
each = pytest.mark.parametrize("cls", [EnsembleDQN, REM])
each_kind = pytest.mark.parametrize("q_func", [SHARED, "mean"], ids=["heads", "networks"])


def impl_of(cls, n_critics=5, q_func_factory=SHARED):
    """An impl in float64 whose slow copy differs from the online network."""
    algo = cls(
        encoder_factory=VectorEncoderFactory(hidden_units=(16,)),
        n_critics=n_critics,
        q_func_factory=q_func_factory,
        random_state=0,
    )
    impl = algo.create_impl((3,), 4).impl.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in impl.targ_q_funcs.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return impl


def a_batch():
    return random_batch(32, action_size=4, discrete=True, dtype=torch.float64)


def heads(q_funcs, x):
    """Values ``(estimates, batch, actions)`` as float64 array."""
    with torch.no_grad():
        return q_funcs(torch.from_numpy(x)).numpy()


def ensemble_loss(impl, b):
    """Figure 3 of the paper: each head with its own target, averaged."""
    total = 0.0
    now, following = heads(impl.q_funcs, b["observations"]), heads(impl.targ_q_funcs, b["next_observations"])
    for k in range(len(now)):
        target = b["rewards"][:, 0] + b["discounts"][:, 0] * following[k].max(axis=1)
        total += huber(target - pick(now[k], b["actions"])).mean()
    return total / len(now)


def rem_loss(impl, b, weights):
    """The same mixture on both sides."""
    now, following = heads(impl.q_funcs, b["observations"]), heads(impl.targ_q_funcs, b["next_observations"])
    mixed = sum(w * q for w, q in zip(weights, following, strict=True))
    target = b["rewards"][:, 0] + b["discounts"][:, 0] * mixed.max(axis=1)
    return huber(target - pick(sum(w * q for w, q in zip(weights, now, strict=True)), b["actions"])).mean()


@each_kind
def test_each_estimate_of_the_ensemble_has_its_own_target(q_func):
    impl, batch = impl_of(EnsembleDQN, q_func_factory=q_func), a_batch()
    assert impl.loss(batch).item() == pytest.approx(ensemble_loss(impl, numpy_of(batch)), rel=1e-9)


@each_kind
def test_the_loss_of_rem_is_that_of_one_mixture(q_func):
    impl, batch = impl_of(REM, q_func_factory=q_func), a_batch()
    for _ in range(3):
        loss = impl.loss(batch).item()
        assert loss == pytest.approx(rem_loss(impl, numpy_of(batch), impl.weights.numpy()), rel=1e-9)


def set_outputs(impl, online, slow):
    """Estimates that don't depend on the observation: tables ``(estimates, actions)``."""
    for name, table in (("q_funcs", online), ("targ_q_funcs", slow)):
        values = torch.tensor(table, dtype=torch.float64)
        setattr(impl, name, Constant(values))


class Constant(torch.nn.Module):
    def __init__(self, values):
        super().__init__()
        self.values = torch.nn.Parameter(values)

    def forward(self, x):
        return self.values[:, None].expand(-1, len(x), -1)


def one_row(action=0, reward=1.0, discount=0.5):
    batch = random_batch(1, action_size=2, discrete=True, dtype=torch.float64)
    batch.actions.fill_(action), batch.rewards.fill_(reward), batch.discounts.fill_(discount)
    return batch


ONLINE, SLOW = [[0.0, 9.0], [3.0, 9.0]], [[4.0, 0.0], [0.0, 2.0]]


def test_known_losses(monkeypatch):
    ensemble, rem = impl_of(EnsembleDQN, n_critics=2), impl_of(REM, n_critics=2)
    set_outputs(ensemble, ONLINE, SLOW)
    set_outputs(rem, ONLINE, SLOW)
    # targets 1 + 0.5 * (4, 2) = (3, 2) against predictions (0, 3): Huber 2.5 and 0.5
    assert ensemble.loss(one_row()).item() == pytest.approx(1.5)
    # mixtures with weights (1/4, 3/4): prediction 2.25; following (1, 1.5), so target 1.75; error 0.5
    monkeypatch.setattr(rem, "draw_weights", lambda: torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert rem.loss(one_row()).item() == pytest.approx(0.125)


def test_the_gradient_of_each_head_is_proportional_to_its_weight():
    impl = impl_of(REM, n_critics=2)
    set_outputs(impl, [[0.0, 0.0], [0.0, 0.0]], SLOW)
    impl.loss(one_row(reward=10.0)).backward()  # beyond Huber's corner: the gradient is -1 times the weight
    assert impl.q_funcs.values.grad[:, 0].tolist() == pytest.approx((-impl.weights).tolist())
    assert impl.q_funcs.values.grad[:, 1].tolist() == [0.0, 0.0]
    assert impl.targ_q_funcs.values.grad is None


def test_weights_are_uniform_numbers_over_their_sum_and_drawn_once_in_a_mini_batch(monkeypatch):
    impl = impl_of(REM, n_critics=3)
    torch.manual_seed(0)
    impl.loss(a_batch())
    torch.manual_seed(0)
    u = torch.rand(3)
    assert impl.weights.tolist() == pytest.approx((u / u.sum()).tolist())
    draws = []
    drawn = impl.draw_weights
    monkeypatch.setattr(impl, "draw_weights", lambda: draws.append(drawn()) or draws[-1])
    before = impl.weights
    for _ in range(4):
        impl.update(a_batch())
    assert len(draws) == 4  # one for prediction and target together
    assert not any(torch.equal(a, b) for a, b in zip([before, *draws], draws, strict=False))
    sums = torch.stack([torch.stack([impl.draw_weights() for _ in range(50)]).sum(dim=1)])
    assert sums.flatten().tolist() == pytest.approx([1.0] * 50)


def test_prediction_and_target_of_one_table_agree_whatever_the_weights():
    """If all heads solve their Bellman equations with the same greedy action, the error of each mixture is 0."""
    impl = impl_of(REM, n_critics=3)
    values = [[2.0, 1.0], [6.0, 5.0], [4.0, -3.0]]  # Q_k = r_k + gamma Q_k holds with r = 0, gamma = 1
    set_outputs(impl, values, values)
    losses = [impl.loss(one_row(reward=0.0, discount=1.0)).item() for _ in range(10)]
    assert losses == pytest.approx([0.0] * 10, abs=1e-12)  # two draws would give errors of the order of 1


@each
@each_kind
def test_the_mean_of_all_estimates_acts(cls, q_func):
    impl = impl_of(cls, q_func_factory=q_func)
    x = a_batch().observations
    expected = heads(impl.q_funcs, x.numpy()).mean(axis=0).argmax(axis=1)
    assert impl.best_action(x).tolist() == expected.tolist()


@each
def test_nothing_but_the_online_estimates_receives_a_gradient(cls):
    impl = impl_of(cls)
    impl.loss(a_batch()).backward()
    assert all(p.grad is None for p in impl.targ_q_funcs.parameters())
    assert all(p.grad.abs().sum() > 0 for p in impl.q_funcs.parameters())


@each
def test_target_ignores_the_next_value_after_a_terminal(cls):
    impl, batch = impl_of(cls), a_batch()
    batch.discounts.zero_()
    losses = []
    for factor in (1, 100):
        torch.manual_seed(0)
        batch.next_observations.mul_(factor)
        losses.append(impl.loss(batch).item())
    assert losses[0] == losses[1]


@each
@pytest.mark.parametrize("q_func", ["qr", MeanQFunctionFactory(bootstrap=True)], ids=["qr", "bootstrap"])
def test_other_q_functions_are_refused(cls, q_func):
    with pytest.raises(ValueError, match=f"{cls.__name__}: q_func_factory=.* must be 'mean'"):
        cls(q_func_factory=q_func).create_impl((3,), 2)


@each
def test_the_default_is_200_heads_on_one_encoder(cls):
    impl = cls().create_impl((3,), 2).impl
    n_weights = sum(p.numel() for p in impl.q_funcs.parameters())
    assert n_weights == (3 + 1) * 256 + (256 + 1) * 256 + 200 * (256 + 1) * 2


@pytest.mark.slow
@each
@pytest.mark.parametrize(("q_func", "n_critics"), [(SHARED, 20), ("mean", 4)], ids=["heads", "networks"])
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

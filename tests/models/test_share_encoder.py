"""Critics that share an encoder, and critics that learn from halves of a batch."""

import copy

import numpy as np
import pytest
import torch

from d3rlpy.algos import DQN, SAC, TD3, DoubleDQN
from d3rlpy.models import MeanQFunctionFactory, PixelEncoderFactory, VectorEncoderFactory, create_q_functions
from tests.helpers import make_dataset
from tests.models.test_ensemble import KINDS, PARAMS, A, B, each_kind, inputs, make, seeded
from tests.models.test_tracing import BestDiscreteAction, check_exports, observations

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
VECTOR, PIXEL = VectorEncoderFactory((8,)), PixelEncoderFactory(((4, 8, 8),), 8)
LAYER_NORM = VectorEncoderFactory((8,), use_layer_norm=True)
each_space = pytest.mark.parametrize("discrete", [False, True])


def options(kind, **more):
    return {"type": kind, "params": PARAMS[kind] | more}


def apart(shared, kind, discrete, encoder=VECTOR, shape=(2,)):
    """The same critics with copies of the encoder."""
    q = create_q_functions(options(kind), encoder, shape, A, len(shared), discrete).to(next(shared.parameters()))
    (together,) = shared
    with torch.no_grad():
        for k, critic in enumerate(q):
            critic.encoder.load_state_dict(together.encoder.state_dict())
            for name in {"head", "embed", "proposal"} & {n for n, _ in together.named_children()}:
                mine, theirs = getattr(critic, name), getattr(together, name)
                rows = slice(k * mine.out_features, (k + 1) * mine.out_features)
                mine.weight.copy_(theirs.weight[rows])
                mine.bias.copy_(theirs.bias[rows])
    return q


@each_kind
@each_space
@pytest.mark.parametrize(
    ("encoder", "shape"),
    [(VECTOR, (2,)), (VectorEncoderFactory((8,), use_layer_norm=True), (2,)), (PIXEL, (1, 16, 16))],
)
def test_shared_critics_equal_separate_ones_with_equal_encoders(kind, discrete, encoder, shape):
    torch.manual_seed(0)
    shared = create_q_functions(options(kind, share_encoder=True), encoder, shape, A, 3, discrete).double()
    assert len(shared) == 3
    assert len(list(shared)) == 1
    q = apart(shared, kind, discrete, encoder, shape)
    _, action, ids = inputs()
    x = observations(shape, B).double() / (255 if len(shape) == 3 else 1)
    pairs, chosen = (x,) if discrete else (x, action.double()), ids if discrete else action.double()
    torch.testing.assert_close(shared(*pairs), q(*pairs))
    target = torch.randn(B, 1, dtype=torch.float64)
    losses = [seeded(e.td_loss, target, x, chosen) for e in (shared, q)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    (together,) = shared
    for name, p in together.named_parameters():
        grads = [dict(c.named_parameters())[name].grad for c in q]
        # the encoder's gradient is that of the sum of the losses
        wanted = sum(grads) if name.startswith("encoder") else torch.cat(grads)
        torch.testing.assert_close(p.grad, wanted, rtol=1e-6, atol=1e-9)


def test_two_hundred_heads_are_one_linear_layer():
    q = create_q_functions(MeanQFunctionFactory(share_encoder=True), VECTOR, (2,), A, 200, discrete=True)
    assert len(q) == 200
    assert [tuple(p.shape) for p in q.parameters()] == [(8, 2), (8,), (200 * A, 8), (200 * A,)]
    assert q(torch.zeros(B, 2)).shape == (200, B, A)


@pytest.mark.parametrize("cls", [DQN, DoubleDQN, TD3, SAC])
@each_kind
def test_algorithms_train_save_and_load(cls, kind, tmp_path):
    encoders = {k: VECTOR for k in cls().get_params(deep=False) if k.endswith("encoder_factory")}
    factory = options(kind, share_encoder=True, bootstrap=True)
    algo = cls(q_func_factory=factory, n_critics=3, random_state=0, batch_size=8, n_steps=2, **encoders)
    data = make_dataset(discrete=algo.action_space == "discrete")
    algo.fit(data, n_steps=3, logdir=tmp_path, verbose=False, show_progress=False)
    twin = cls.from_json(algo.logdir_ / "params.json")
    twin.load_model(algo.logdir_ / "model_3.pt")
    actions = algo.predict(data.observations)
    assert np.array_equal(twin.predict(data.observations), actions)
    mean, std = twin.predict_value(data.observations, actions, with_std=True)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    for a in (algo, twin):
        a.fit(data, n_steps=2, **QUIET)
    states = [a.impl.state_dict() for a in (algo, twin)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("encoder", "shape"), [(VECTOR, (3,)), (PIXEL, (2, 16, 16))], ids=["vector", "pixel"])
def test_critics_are_exported(kind, share, encoder, shape):
    q = create_q_functions(options(kind, share_encoder=share), encoder, shape, 2, 2, discrete=True)
    check_exports(BestDiscreteAction(q), (observations(shape, 2),), (observations(shape, 5),))
    q = create_q_functions(options(kind, share_encoder=share), encoder, shape, 2, 2)
    check_exports(q, (observations(shape, 2), torch.randn(2, 2)), (observations(shape, 5), torch.randn(5, 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3,), (1, 84, 84)])
def test_policies_on_these_critics_are_exported(kind, shape, tmp_path):
    encoder, scaler = (PIXEL, "pixel") if len(shape) == 3 else (VECTOR, None)
    algo = DQN(q_func_factory=options(kind, share_encoder=True), n_critics=2, encoder_factory=encoder, scaler=scaler)
    algo.create_impl(shape, 4)
    algo.save_policy(tmp_path / "policy.pt")  # both are compared with predict before they appear
    algo.save_policy(tmp_path / "policy.onnx")


class Halves:
    """Replaces ``torch.rand_like`` by numbers that are known."""

    def __init__(self, monkeypatch):
        self.drawn = []
        monkeypatch.setattr(torch, "rand_like", self)

    def __call__(self, like):
        g = torch.Generator().manual_seed(len(self.drawn))
        self.drawn.append(torch.rand(like.shape, generator=g, dtype=like.dtype))
        return self.drawn[-1]


@each_kind
@each_space
@pytest.mark.parametrize("share", [False, True])
def test_each_critic_learns_from_its_own_half(kind, discrete, share, monkeypatch):
    q, (x, action, ids) = make(kind, discrete=discrete, share_encoder=share, bootstrap=True), inputs()
    target, chosen = torch.randn(B, 1), ids if discrete else action
    errors = seeded(q.evaluate(x, None if discrete else action).errors, target, chosen)
    halves = Halves(monkeypatch)
    losses = [seeded(q.td_loss, target, x, chosen).item() for _ in range(2)]
    assert halves.drawn[0].shape == (3, B)
    for loss, drawn in zip(losses, halves.drawn, strict=True):  # drawn anew
        slow = sum(errors[k, b].item() / B for k in range(3) for b in range(B) if drawn[k, b] < 0.5)
        assert loss == pytest.approx(slow, rel=1e-5)


def test_half_of_the_rows_counts_on_average():
    q = make("mean", 2, bootstrap=True)
    errors = q.evaluate(torch.zeros(10_000, 2), torch.zeros(10_000, A))
    share = (
        errors.td_loss(torch.ones(10_000, 1), None).item()
        / make("mean", 2).td_loss(torch.ones(10_000, 1), torch.zeros(10_000, 2), torch.zeros(10_000, A)).item()
    )
    assert share == pytest.approx(0.5, abs=0.03)


def test_a_single_critic_learns_from_the_whole_batch(monkeypatch):
    x, action, _ = inputs()
    halves, target = Halves(monkeypatch), torch.randn(B, 1)
    losses = [make("mean", 1, bootstrap=b).td_loss(target, x, action) for b in (False, True)]
    assert torch.equal(*losses)
    assert halves.drawn == []


def test_critics_with_halves_disagree_more():
    """Two heads that start equal stay equal on whole batches, and part on halves."""
    for bootstrap in (False, True):
        q, (x, action, _) = make("mean", 2, share_encoder=True, bootstrap=bootstrap), inputs()
        with torch.no_grad():
            q.critics[0].head.weight[1] = q.critics[0].head.weight[0]
            q.critics[0].head.bias[1] = q.critics[0].head.bias[0]
        optim = torch.optim.SGD(q.parameters(), lr=0.1)
        for _ in range(5):
            optim.zero_grad()
            q.td_loss(torch.ones(B, 1), x, action).backward()
            optim.step()
        assert (q(x, action).std(dim=0).max() > 1e-3) == bootstrap


def test_slow_copies_follow():
    impl = TD3(q_func_factory=options("iqn", share_encoder=True), random_state=0).create_impl((3,), 2).impl
    before = copy.deepcopy(impl.targ_q_funcs.state_dict())
    with torch.no_grad():
        for p in impl.q_funcs.parameters():
            p += 1.0
    impl.update_critic_target()
    for name, p in impl.targ_q_funcs.state_dict().items():
        torch.testing.assert_close(p, before[name] + impl.hp.tau)

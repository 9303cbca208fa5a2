"""Updates in lower precision: what is rounded, what is not, and that it makes no other difference."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from d3rlpy import algos as A
from d3rlpy.algos import ALGORITHMS
from d3rlpy.dataset import MDPDataset, TransitionMiniBatch
from d3rlpy.model_selection import ManyRuns
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.precision import check_precision, computing_in
from tests.capture import SimulatedGraph
from tests.test_engine import QUIET, assert_equal, dataset, make, trained

LEARNING = [cls for cls in ALGORITHMS.values() if cls.learns]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def updated(cls, precision, **params):
    algo = make(cls, precision=precision, **params)
    data = dataset(cls.action_space == "discrete")
    algo.build_with_dataset(data)
    gamma = getattr(algo, "gamma", 0.99)
    batch = TransitionMiniBatch([t for e in data.episodes for t in e.transitions][:32], gamma=gamma)
    return algo, algo.update(batch)


def of_weights(algo):
    return torch.cat([p.detach().flatten() for p in algo.impl.parameters()])


def of_gradients(algo):
    """The running means of the gradients that optimizers keep: after one update, multiples of the gradients."""
    states = [s for o in algo.impl.optimizers().values() for s in o.state_dict()["optim"]["state"].values()]
    return torch.cat([s.get("exp_avg", s.get("momentum_buffer")).flatten() for s in states])


@pytest.mark.parametrize("cls", LEARNING, ids=lambda cls: cls.__name__)
def test_bf16_rounds_products_and_keeps_everything_else(cls):
    exact, losses = updated(cls, "float32")
    rounded, other_losses = updated(cls, "bf16")
    for name, value in losses.items():
        assert other_losses[name] == pytest.approx(value, rel=0.05, abs=0.05), name
    assert any(other_losses[name] != losses[name] for name in losses)
    for tensor in [*rounded.impl.parameters(), *rounded.impl.buffers()]:
        assert tensor.dtype in (torch.float32, torch.int64)
    for optim in rounded.impl.optimizers().values():
        for state in optim.state_dict()["optim"]["state"].values():
            assert {value.dtype for value in state.values() if isinstance(value, torch.Tensor)} == {torch.float32}
    assert torch.cosine_similarity(of_gradients(exact), of_gradients(rounded), dim=0) > 0.98


@pytest.mark.parametrize("factory", ["mean", "qr", "iqn", "fqf", "c51"])
@pytest.mark.parametrize("cls", [A.DQN, A.SAC])
def test_every_q_function_gives_float32_values_in_bf16(cls, factory):
    _, losses = updated(cls, "float32", q_func_factory=factory)
    algo, other_losses = updated(cls, "bf16", q_func_factory=factory)
    name = "loss" if cls is A.DQN else "critic_loss"
    assert other_losses[name] == pytest.approx(losses[name], rel=0.05)
    assert other_losses[name] != losses[name]
    impl = algo.impl
    with computing_in("bf16", CPU):
        x = torch.randn(5, *impl.observation_shape)
        actions = torch.zeros(5, dtype=torch.int64) if cls is A.DQN else torch.zeros(5, impl.action_size)
        assert impl.value(x, actions).dtype is torch.float32


@pytest.mark.parametrize("options", [{"use_layer_norm": True}, {"use_batch_norm": True}, {"activation": "tanh"}])
def test_every_kind_of_layer(options):
    encoder = VectorEncoderFactory(hidden_units=(16, 16), **options)
    _, losses = updated(A.DQN, "float32", encoder_factory=encoder)
    _, other_losses = updated(A.DQN, "bf16", encoder_factory=encoder)
    assert other_losses["loss"] == pytest.approx(losses["loss"], rel=0.05)
    assert other_losses["loss"] != losses["loss"]


def test_images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 1, 84, 84), dtype=np.uint8)
    data = MDPDataset(images, rng.integers(0, 3, 64), rng.normal(size=64).astype("float32"), np.arange(64) % 8 == 7)
    losses = []
    for precision in ("float32", "bf16"):
        algo = A.DQN(scaler="pixel", batch_size=8, precision=precision, random_state=0)
        losses.append(algo.fit(data, n_steps=2, **QUIET).history_[-1][1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("cls", [A.DQN, A.SAC, A.TD3PlusBC])
def test_recorded_updates_in_bf16_equal_updates_one_by_one(cls):
    alone, _, _ = trained(cls, None, 90, 1, precision="bf16")
    repeated, engine, _ = trained(cls, SimulatedGraph(), 90, 4, precision="bf16")
    assert engine.recordings
    assert_equal(alone, repeated)


@pytest.mark.parametrize("cls", [A.TD3PlusBC, A.DQN, A.IQL])
def test_runs_as_one_in_bf16_learn_what_each_would_alone(cls):
    algo, data = make(cls, precision="bf16"), dataset(cls.action_space == "discrete")
    runs = ManyRuns(algo, seeds=2).fit(data, n_steps=20, **QUIET)
    for estimator in runs.estimators_:
        alone = make(cls, precision="bf16").set_params(random_state=estimator.random_state)
        assert torch.allclose(of_weights(alone.fit(data, n_steps=20, **QUIET)), of_weights(estimator), atol=2e-4)


def test_predictions_and_files_do_not_depend_on_it(tmp_path):
    algo, _ = updated(A.TD3, "bf16")
    algo.save_model(tmp_path / "model.pt")
    other = make(A.TD3)
    other.load_model(tmp_path / "model.pt")
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    assert np.array_equal(algo.predict(x), other.predict(x))


def test_tf32_is_refused_where_there_is_none(monkeypatch):
    algo = A.TD3(precision="tf32")
    with pytest.raises(ValueError, match="precision='tf32' needs a GPU"):
        algo.fit(dataset(False), n_steps=1, **QUIET)
    assert algo.grad_step_ == 0
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "T4")
    for precision in ("tf32", "bf16"):
        with pytest.raises(ValueError, match=f"precision='{precision}' needs compute capability 8.0 or more, T4"):
            check_precision(precision, GPU)
    check_precision("float32", GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    check_precision("tf32", GPU)
    with pytest.raises(ValueError, match="precision='half' .* must be one of"):
        A.TD3(precision="half").fit(dataset(False), n_steps=1, **QUIET)


def test_tf32_switches_products_and_convolutions_and_switches_back_after_an_error():
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision

    def fail():
        assert (matmul.fp32_precision, conv.fp32_precision) == ("tf32", "tf32")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), computing_in("tf32", GPU):
        fail()
    assert (matmul.fp32_precision, conv.fp32_precision) == before


def test_tf32_by_the_names_of_older_versions(monkeypatch):
    old = SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False)),
                          cudnn=SimpleNamespace(allow_tf32=True))  # fmt: skip
    monkeypatch.setattr(torch, "backends", old)
    with computing_in("tf32", GPU):
        assert old.cuda.matmul.allow_tf32
        assert old.cudnn.allow_tf32
    assert not old.cuda.matmul.allow_tf32
    assert old.cudnn.allow_tf32

"""Updates in lower precision: what is rounded, what is not, and that it makes no other difference."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from d3rlpy import algos as A
from d3rlpy.algos import ALGORITHMS
from d3rlpy.dataset import MDPDataset, TransitionMiniBatch
from d3rlpy.hyperparameters import fields_of
from d3rlpy.model_selection import ManyRuns
from d3rlpy.models import mlp
from d3rlpy.models.encoders import EncoderFactory, VectorEncoderFactory
from d3rlpy.models.optimizers import Optimizer
from d3rlpy.models.q_functions import iqn
from d3rlpy.models.q_functions.distribution import as_distribution
from d3rlpy.precision import check_precision, computing_in
from d3rlpy.randomness import uniform
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
    assert torch.cosine_similarity(of_gradients(exact), of_gradients(rounded), dim=0) > 0.98


@pytest.mark.parametrize("cls", LEARNING, ids=lambda cls: cls.__name__)
def test_targets_and_losses_are_float32_in_bf16(cls, monkeypatch):
    seen = []

    def spied(owner, name, pick):
        original = getattr(owner, name)

        def spy(self, *args):
            result = original(self, *args)
            seen.append(pick(args, result).dtype)
            return result

        monkeypatch.setattr(owner, name, spy)

    spied(Optimizer, "minimize", lambda args, result: args[0])
    if hasattr(cls.Impl, "td_target"):
        spied(cls.Impl, "td_target", lambda args, result: as_distribution(result).values)
    at_once = {name: 0 for name in ("warmup_steps", "rl_start_step") if name in fields_of(cls)}
    updated(cls, "bf16", **at_once)
    assert set(seen) == {torch.float32}
    assert len(seen) >= 1 + hasattr(cls.Impl, "td_target")


class TorchEncoder(nn.Module):
    """An encoder of one's own, of torch's layers, whose features are bfloat16 under autocast."""

    def __init__(self, n_inputs, feature_size=8):
        super().__init__()
        self.feature_size, self.layer = feature_size, nn.Linear(n_inputs, feature_size)

    def forward(self, x, action=None):
        return torch.relu(self.layer(x if action is None else torch.cat([x, action], dim=1)))


@dataclass(frozen=True)
class TorchEncoderFactory(EncoderFactory):
    TYPE: ClassVar[str] = "torch_of_the_precision_tests"

    def create(self, observation_shape):
        return TorchEncoder(observation_shape[0])

    def create_with_action(self, observation_shape, action_size, discrete_action=False):
        return TorchEncoder(observation_shape[0] + action_size)


@pytest.mark.parametrize("factory", ["mean", "qr", "iqn", "fqf", "c51"])
def test_an_encoder_of_torch_layers(factory, monkeypatch):
    drawn = []
    monkeypatch.setattr(iqn, "uniform", lambda n, like: drawn.append(like.dtype) or uniform(n, like))
    encoder = TorchEncoderFactory()
    params = {"actor_encoder_factory": encoder, "critic_encoder_factory": encoder, "q_func_factory": factory}
    _, losses = updated(A.SAC, "float32", **params)
    _, other_losses = updated(A.SAC, "bf16", **params)
    assert other_losses["critic_loss"] == pytest.approx(losses["critic_loss"], rel=0.05)
    assert set(drawn) <= {torch.float32}


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


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_batched_products_of_a_gpu_agree_with_those_of_a_cpu(layer_norm):
    encoder = VectorEncoderFactory(hidden_units=(16, 16), use_layer_norm=layer_norm)
    critics = A.SAC(n_critics=3, critic_encoder_factory=encoder, random_state=0).create_impl((4,), 2).impl.q_funcs
    layers = [[m for m in critic.modules() if isinstance(m, (nn.Linear, nn.LayerNorm))] for critic in critics]
    weights, x = [p for each in layers for p in mlp.weights_of(each)], torch.randn(32, 6)
    with computing_in("bf16", CPU):
        inputs, stacks, lead, normed = mlp._in_stacks(x, 3, weights)
        batched = mlp.batched_forward(inputs, stacks, normed)[0].unflatten(0, lead)
        torch.testing.assert_close(batched.float(), mlp._lowered(x, 3, weights), rtol=0.05, atol=0.02)
    torch.testing.assert_close(batched.float(), mlp.mlp(x, 3, weights), rtol=0.05, atol=0.02)
    assert normed == layer_norm


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
        assert torch.allclose(of_weights(alone.fit(data, n_steps=20, **QUIET)), of_weights(estimator), atol=1e-6)


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
    assert algo.impl is None
    with pytest.raises(ValueError, match="precision='tf32' needs a GPU"):
        algo.profile(dataset(False))
    built, _ = updated(A.TD3, "float32")
    with pytest.raises(ValueError, match="precision='tf32' needs a GPU"):
        built.set_params(precision="tf32")
    assert built.precision == "float32"
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
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32

    def fail():
        assert (matmul.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (True, True, "high")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), computing_in("tf32", GPU):
        fail()
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


class Mixed:
    """Settings whose older name can't be read any more."""

    @property
    def allow_tf32(self):
        raise RuntimeError("mix of the legacy and new APIs")


def test_tf32_where_newer_names_have_been_used(monkeypatch):
    matmul, cudnn = Mixed(), Mixed()
    matmul.fp32_precision, cudnn.conv = "ieee", SimpleNamespace(fp32_precision="ieee")
    cuda = SimpleNamespace(matmul=matmul)
    monkeypatch.setattr(torch, "backends", SimpleNamespace(cuda=cuda, cudnn=cudnn))
    with computing_in("tf32", GPU):
        assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("tf32", "tf32")
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("ieee", "ieee")

"""Policies as TorchScript and ONNX."""

import numpy as np
import pytest
import torch

from d3rlpy.algos import BC, DQN, TD3, DiscreteBC
from d3rlpy.export import policy as policy_file
from d3rlpy.export.policy import GreedyPolicy, _agree
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.preprocessing import StandardScaler
from tests.helpers import make_dataset

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SMALL = VectorEncoderFactory(hidden_units=(8,))


def trained(**params):
    return DQN(encoder_factory=SMALL, random_state=0, **params).fit(make_dataset(discrete=True), n_steps=2, **QUIET)


@pytest.mark.parametrize("name", ["policy", "policy.h5", "policy.txt"])
def test_another_ending_is_an_error(tmp_path, name):
    with pytest.raises(ValueError, match=r"the ending of '.*' must be one of \['.pt', '.onnx'\]"):
        trained().save_policy(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_old_flag_is_accepted_with_a_warning(tmp_path):
    with pytest.warns(FutureWarning, match=r"the ending of the file name decides"):
        trained().save_policy(tmp_path / "policy.onnx", as_onnx=True)
    assert (tmp_path / "policy.onnx").exists()


@pytest.mark.parametrize("name", ["policy.pt", "policy.onnx"])
def test_a_file_that_does_not_act_like_the_policy_is_not_kept(tmp_path, monkeypatch, name):
    monkeypatch.setattr(policy_file, "_agree", lambda *_: False)
    with pytest.raises(RuntimeError, match="does not act like the one in memory; nothing was written"):
        trained().save_policy(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_actions_that_differ_by_more_than_rounding_are_noticed():
    algo = BC(encoder_factory=SMALL, random_state=0).create_impl((3,), 1)
    policy, x = GreedyPolicy(algo.impl, algo.fitted_scalers_), torch.zeros(2, 3)
    actions = policy(x).numpy()
    assert _agree(policy, x, actions + 1e-7)
    assert not _agree(policy, x, actions + 0.01)
    assert not _agree(policy, x, actions[:1])


@pytest.mark.parametrize(("margin", "agrees"), [(1e-7, True), (0.01, False)])
@torch.no_grad()
def test_only_actions_of_the_same_value_may_be_exchanged(margin, agrees):
    algo = DQN(encoder_factory=SMALL, random_state=0, scaler=StandardScaler(mean=[1.0] * 3, std=[2.0] * 3))
    algo.create_impl((3,), 2)
    head = algo.impl.q_funcs.critics[0].head
    policy, x = GreedyPolicy(algo.impl, algo.fitted_scalers_), torch.randn(5, 3)
    head.weight[1] = head.weight[0]
    head.bias[:] = torch.tensor([0.0, margin])
    assert policy(x).tolist() == [1] * 5
    assert _agree(policy, x, np.ones(5, np.int64))
    assert _agree(policy, x, np.array([1, 1, 0, 1, 1])) == agrees
    assert _agree(policy, x, np.zeros(5, np.int64)) == agrees


@torch.no_grad()
def test_actions_of_a_policy_without_values_must_be_equal():
    algo = DiscreteBC(encoder_factory=SMALL, random_state=0).create_impl((3,), 2)
    policy, x = GreedyPolicy(algo.impl, algo.fitted_scalers_), torch.randn(5, 3)
    actions = policy(x).numpy()
    assert _agree(policy, x, actions)
    assert not _agree(policy, x, np.append(1 - actions[:1], actions[1:]))


def test_dropout_and_batch_norm_are_in_evaluation_mode(tmp_path):
    encoder = VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True, use_layer_norm=True, dropout_rate=0.5)
    data = make_dataset(discrete=False)
    algo = BC(encoder_factory=encoder, random_state=0).fit(data, n_steps=3, **QUIET)
    for name in ("policy.pt", "policy.onnx"):
        algo.save_policy(tmp_path / name)
    policy = torch.jit.load(tmp_path / "policy.pt")
    got = policy(torch.from_numpy(data.observations)).numpy()
    assert got == pytest.approx(algo.predict(data.observations), abs=1e-6)


def test_the_model_trains_on_after_an_export(tmp_path):
    data = make_dataset(discrete=False)
    runs = []
    for export in (False, True):
        algo = TD3(actor_encoder_factory=SMALL, critic_encoder_factory=SMALL, random_state=0)
        algo.fit(data, n_steps=2, **QUIET)
        if export:
            algo.save_policy(tmp_path / "policy.pt")
            algo.save_policy(tmp_path / "policy.onnx")
        runs.append(algo.fit(data, n_steps=2, **QUIET).impl.state_dict())
    assert all(torch.equal(v, runs[1][k]) for k, v in runs[0].items())


@pytest.mark.parametrize("name", ["policy.pt", "policy.onnx"])
def test_an_export_in_a_callback_leaves_the_networks_in_training_mode(tmp_path, name):
    encoder = VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True, dropout_rate=0.5)
    data = make_dataset(discrete=False)

    def export(algo, epoch, total_step):
        before = [module.training for module in algo.impl.modules()]
        algo.save_policy(tmp_path / name)
        assert [module.training for module in algo.impl.modules()] == before
        assert algo.impl.policy.training

    runs = []
    for callback in (None, export):
        algo = TD3(actor_encoder_factory=encoder, critic_encoder_factory=encoder, random_state=0)
        runs.append(algo.fit(data, n_steps=4, callback=callback, **QUIET).impl.state_dict())
    assert all(torch.equal(v, runs[1][k]) for k, v in runs[0].items())


@pytest.mark.parametrize("name", ["policy.pt", "policy.onnx"])
def test_a_policy_is_exported_inside_inference_mode(tmp_path, name):
    algo = trained(scaler="standard")
    with torch.inference_mode():
        algo.save_policy(tmp_path / name)
    assert (tmp_path / name).exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_policy_on_a_gpu_is_exported_for_the_cpu_and_stays_where_it_is(tmp_path):
    algo = trained(use_gpu=True, scaler="standard")
    for name in ("policy.pt", "policy.onnx"):
        algo.save_policy(tmp_path / name)
    x = make_dataset(discrete=True).observations
    assert torch.jit.load(tmp_path / "policy.pt")(torch.from_numpy(x)).tolist() == algo.predict(x).tolist()
    assert {p.device.type for p in algo.impl.parameters()} == {"cuda"}

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from d3rlpy.algos import BC, DQN, TD3, Algo, DoubleDQN, TD3PlusBC
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.optimizers import AdamFactory, RMSpropFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.preprocessing import MinMaxScaler
from tests.helpers import make_dataset

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SMALL = VectorEncoderFactory(hidden_units=(8,))


class Boom:
    """A pickle that leaves a trace when it is executed."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


def trained(**params):
    return DQN(encoder_factory=SMALL, random_state=0, **params).fit(make_dataset(discrete=True), n_steps=2, **QUIET)


class TestParams:
    def test_every_hyperparameter_survives(self, tmp_path):
        algo = TD3PlusBC(
            actor_learning_rate=1e-5,
            actor_optim_factory=AdamFactory(betas=(0.8, 0.9), clip_grad_norm=1.0),
            critic_optim_factory=RMSpropFactory(warmup_steps=5),
            actor_encoder_factory=VectorEncoderFactory(hidden_units=(8, 4), activation="tanh"),
            q_func_factory=QRQFunctionFactory(n_quantiles=5),
            scaler=MinMaxScaler(minimum=np.zeros(3), maximum=np.full(3, 2.0)),
            action_scaler="min_max",
            reward_scaler="standard",
            n_critics=3,
            gamma=0.5,
            random_state=7,
        )
        data = make_dataset(discrete=False)
        algo.fit(data, n_steps=1, logdir=tmp_path, verbose=False, show_progress=False)
        twin = TD3PlusBC.from_json(algo.logdir_ / "params.json")
        for name, value in algo.get_params(deep=False).items():
            if name not in ("scaler", "action_scaler", "reward_scaler"):
                assert getattr(twin, name) == value, name
        assert twin.saved_params() == algo.saved_params()
        x = torch.from_numpy(data.observations)
        for kind in ("observation", "action", "reward"):
            ours, theirs = (getattr(a.fitted_scalers_, kind) for a in (algo, twin))
            y = torch.from_numpy(data.actions) if kind == "action" else x[:, :1] if kind == "reward" else x
            assert torch.allclose(ours.transform(y), theirs.transform(y))

    def test_the_base_class_and_parents_read_any_child(self, tmp_path):
        algo = trained()
        path = tmp_path / "params.json"
        path.write_text(json.dumps(algo.saved_params()))
        assert type(Algo.from_json(path)) is DQN
        assert type(DQN.from_json(path, use_gpu=False)) is DQN

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"algorithm": "TD3PlusBC"}, "belongs to TD3PlusBC, not to DQN: use TD3PlusBC.from_json"),
            ({"algorithm": "DQM"}, r"names the algorithm 'DQM', which is unknown. Did you mean 'DQN'\?"),
            ({"format": 99}, "has format 99, this version reads up to 1: upgrade d3rlpy"),
            ({"observation_shape": None}, "lacks"),
        ],
    )
    def test_a_file_of_something_else_is_an_error(self, tmp_path, change, message):
        params = {**trained().saved_params(), **change}
        path = tmp_path / "params.json"
        path.write_text(json.dumps({k: v for k, v in params.items() if v is not None or k != "observation_shape"}))
        with pytest.raises(ValueError, match=message):
            DQN.from_json(path)

    @pytest.mark.parametrize("content", ["", "{", "[1]", "{}", "\x00\x01"])
    def test_a_file_that_is_no_params_json_is_an_error(self, tmp_path, content):
        path = tmp_path / "params.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"is not a params.json of d3rlpy"):
            DQN.from_json(path)

    def test_a_file_with_an_unknown_parameter_is_an_error(self, tmp_path):
        path = tmp_path / "params.json"
        path.write_text(json.dumps({**trained().saved_params(), "gama": 0.5}))
        with pytest.raises(TypeError, match=r"DQN has no parameter 'gama'. Did you mean 'gamma'\?"):
            DQN.from_json(path)


class TestModel:
    def test_scalers_travel_with_the_model_into_an_object_that_has_seen_no_data(self, tmp_path):
        algo = trained(scaler="standard")
        algo.save_model(tmp_path / "model.pt")
        twin = DQN(encoder_factory=SMALL, scaler="standard")
        twin.load_model(tmp_path / "model.pt")
        x = make_dataset(discrete=True, seed=3).observations
        assert np.array_equal(twin.predict(x), algo.predict(x))
        assert np.array_equal(twin.predict_value(x, twin.predict(x)), algo.predict_value(x, algo.predict(x)))

    def test_a_scaler_that_the_object_was_not_declared_with_is_used_with_a_warning(self, tmp_path):
        algo = trained(scaler="standard")
        algo.save_model(tmp_path / "model.pt")
        twin = DQN(encoder_factory=SMALL)
        with pytest.warns(UserWarning, match="brings scaler='standard', which replaces scaler=None"):
            twin.load_model(tmp_path / "model.pt")
        x = make_dataset(discrete=True, seed=3).observations
        assert np.array_equal(twin.predict(x), algo.predict(x))

    def test_the_learning_rate_is_the_objects_own(self, tmp_path):
        trained(learning_rate=0.1).save_model(tmp_path / "model.pt")
        twin = DQN(encoder_factory=SMALL, learning_rate=0.2)
        twin.load_model(tmp_path / "model.pt")
        assert twin.impl.optim.torch_optim.param_groups[0]["lr"] == 0.2

    def test_a_model_of_another_algorithm_is_an_error(self, tmp_path):
        trained().save_model(tmp_path / "model.pt")
        with pytest.raises(ValueError, match=r"model.pt holds a DQN, not a DoubleDQN: use DQN\(\).load_model"):
            DoubleDQN(encoder_factory=SMALL).load_model(tmp_path / "model.pt")

    def test_a_model_of_another_shape_is_an_error(self, tmp_path):
        trained().save_model(tmp_path / "model.pt")
        with pytest.raises(
            ValueError, match=r"saved for observation_shape=\(3,\) and action_size=2, this DQN was built"
        ):
            DQN(encoder_factory=SMALL).create_impl((4,), 2).load_model(tmp_path / "model.pt")

    @pytest.mark.parametrize("built", [False, True])
    def test_a_model_of_other_networks_is_an_error_that_names_the_difference(self, tmp_path, built):
        trained(q_func_factory="qr", n_critics=2).save_model(tmp_path / "model.pt")
        algo = DQN(encoder_factory=SMALL, random_state=1)
        if built:
            algo.create_impl((3,), 2)
            before = {k: v.clone() for k, v in algo.impl.state_dict().items()}
        with pytest.raises(ValueError, match=r"has other networks than this DQN; it was saved with .*n_critics=2"):
            algo.load_model(tmp_path / "model.pt")
        if built:
            assert all(torch.equal(v, before[k]) for k, v in algo.impl.state_dict().items())
        else:
            assert algo.impl is None

    def test_nothing_in_a_file_is_executed(self, tmp_path):
        for name, write in (("raw.pt", pickle.dump), ("torch.pt", lambda o, f: torch.save(o, f))):
            with open(tmp_path / name, "wb") as file:
                write(Boom(), file)
            with pytest.raises(ValueError, match="is not a model file that save_model of d3rlpy has written"):
                DQN().load_model(tmp_path / name)
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
    def test_a_truncated_file_is_an_error(self, tmp_path, keep):
        algo = trained()
        algo.save_model(tmp_path / "model.pt")
        content = (tmp_path / "model.pt").read_bytes()
        (tmp_path / "model.pt").write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
        with pytest.raises(ValueError, match="is not a model file that save_model of d3rlpy has written"):
            algo.load_model(tmp_path / "model.pt")

    @pytest.mark.parametrize("payload", [{}, {"params": {}}, [1, 2], torch.zeros(3)])
    def test_a_file_of_other_tensors_is_an_error(self, tmp_path, payload):
        torch.save(payload, tmp_path / "model.pt")
        with pytest.raises(ValueError, match="is not a model file that save_model of d3rlpy has written"):
            DQN().load_model(tmp_path / "model.pt")

    def test_a_missing_file_is_the_usual_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            DQN().load_model(tmp_path / "model.pt")

    def test_a_failing_save_keeps_the_old_file(self, tmp_path, monkeypatch):
        algo = trained()
        algo.save_model(tmp_path / "model.pt")
        before = (tmp_path / "model.pt").read_bytes()

        def fail(payload, path):
            Path(path).write_bytes(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            algo.save_model(tmp_path / "model.pt")
        assert (tmp_path / "model.pt").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


class TestExport:
    @pytest.mark.parametrize("name", ["policy", "policy.h5", "policy.txt"])
    def test_another_ending_is_an_error(self, tmp_path, name):
        with pytest.raises(ValueError, match=r"the ending of '.*' must be one of \['.pt', '.onnx'\]"):
            trained().save_policy(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_the_old_flag_is_accepted_with_a_warning(self, tmp_path):
        with pytest.warns(FutureWarning, match=r"the ending of the file name decides"):
            trained().save_policy(tmp_path / "policy.onnx", as_onnx=True)
        assert (tmp_path / "policy.onnx").exists()

    @pytest.mark.parametrize("name", ["policy.pt", "policy.onnx"])
    def test_a_file_that_does_not_act_like_the_policy_is_not_kept(self, tmp_path, monkeypatch, name):
        from d3rlpy.export import policy

        monkeypatch.setattr(policy, "_agree", lambda *_: False)
        with pytest.raises(RuntimeError, match="does not act like the one in memory; nothing was written"):
            trained().save_policy(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_disagreement_is_noticed(self):
        from d3rlpy.export.policy import _agree

        assert _agree(np.array([0.5, 1.0]), np.array([0.5, 1.0 + 1e-7]))
        assert not _agree(np.array([0.5, 1.0]), np.array([0.5, 1.01]))
        assert not _agree(np.array([0, 1, 1, 0, 1]), np.array([1, 0, 1, 0, 1]))

    def test_dropout_and_batch_norm_are_in_evaluation_mode(self, tmp_path):
        encoder = VectorEncoderFactory(hidden_units=(8,), use_batch_norm=True, use_layer_norm=True, dropout_rate=0.5)
        data = make_dataset(discrete=False)
        algo = BC(encoder_factory=encoder, random_state=0).fit(data, n_steps=3, **QUIET)
        for name in ("policy.pt", "policy.onnx"):
            algo.save_policy(tmp_path / name)
        policy = torch.jit.load(tmp_path / "policy.pt")
        got = policy(torch.from_numpy(data.observations)).numpy()
        assert got == pytest.approx(algo.predict(data.observations), abs=1e-6)

    def test_the_model_trains_on_after_an_export(self, tmp_path):
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

"""``params.json``: what survives, and what a wrong file does."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from d3rlpy.algos import DQN, Algo, TD3PlusBC
from d3rlpy.models.encoders import EncoderFactory, VectorEncoderFactory
from d3rlpy.models.optimizers import AdamFactory, RMSpropFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from d3rlpy.preprocessing import MinMaxScaler, StandardScaler
from tests.helpers import make_dataset

SMALL = VectorEncoderFactory(hidden_units=(8,))


def dqn():
    return DQN(encoder_factory=SMALL).create_impl((3,), 2)


def test_every_hyperparameter_survives(tmp_path):
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


def test_the_base_class_and_parents_read_any_child(tmp_path):
    algo = dqn()
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
        ({"observation_shape": None}, "it lacks \\['observation_shape'\\]"),
        ({"observation_shape": 4}, "it has observation_shape=4"),
        ({"observation_shape": "(4,)"}, r"it has observation_shape='\(4,\)'"),
        ({"observation_shape": [0]}, r"it has observation_shape=\[0\]"),
        ({"action_size": "2"}, "it has action_size='2'"),
        ({"format": "1"}, "it has format='1'"),
        ({"algorithm": ["DQN"]}, r"it has algorithm=\['DQN'\]"),
        ({"gama": 0.5}, r"can't be loaded: DQN has no parameter 'gama'. Did you mean 'gamma'\?"),
        ({"gamma": "x"}, "can't be loaded: DQN: gamma must be a number, got 'x'"),
        (
            {"scaler": {"type": "standard", "params": {"mean": [0.0] * 4, "std": [1.0] * 4}}},
            "can't be loaded: The size of tensor",
        ),
        ({"encoder_factory": {"type": "mine"}}, "can't be loaded: no encoder factory is called 'mine'"),
    ],
)
def test_a_file_of_something_else_is_an_error(tmp_path, change, message):
    params = {**dqn().saved_params(), **change}
    path = tmp_path / "params.json"
    path.write_text(json.dumps({k: v for k, v in params.items() if v is not None or k != "observation_shape"}))
    with pytest.raises(ValueError, match=rf"{path} .*{message}"):
        DQN.from_json(path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\x01", "[" * 10**5])
def test_a_file_that_is_no_params_json_is_an_error(tmp_path, content):
    path = tmp_path / "params.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"is not a params.json of d3rlpy"):
        DQN.from_json(path)


def test_arrays_tensors_and_numbers_of_numpy_are_saved_as_plain_numbers(tmp_path):
    scaler = StandardScaler(mean=torch.zeros(3), std=np.ones(3, np.float32))
    params = {"gamma": torch.tensor(0.5), "n_critics": np.int64(2), "use_gpu": torch.device("cpu")}
    algo = DQN(encoder_factory=SMALL, scaler=scaler, **params).create_impl((3,), 2)
    params = json.loads(json.dumps(algo.saved_params()))
    assert params["scaler"]["params"] == {"mean": [0, 0, 0], "std": [1, 1, 1], "eps": 0.001}
    assert (params["gamma"], params["n_critics"], params["use_gpu"]) == (0.5, 2, "cpu")
    algo.save_model(tmp_path / "model.pt")
    twin = DQN(encoder_factory=SMALL, scaler="standard", n_critics=2)
    twin.load_model(tmp_path / "model.pt")
    assert twin.saved_params()["scaler"] == params["scaler"]


def test_a_hyperparameter_that_json_cannot_hold_is_an_error_that_names_it(tmp_path):
    @dataclass(frozen=True)
    class OwnFactory(EncoderFactory):
        TYPE = "own"
        function: object = torch.relu

        def create(self, observation_shape):
            return SMALL.create(observation_shape)

    algo = DQN(encoder_factory=OwnFactory()).create_impl((3,), 2)
    for save in (algo.saved_params, lambda: algo.save_model(tmp_path / "model.pt")):
        with pytest.raises(ValueError, match=r"encoder_factory=.* can't be written to a file: JSON knows no builtin"):
            save()
    assert list(tmp_path.iterdir()) == []

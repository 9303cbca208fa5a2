"""Model files: what survives, and what a wrong or damaged file does."""

import json
import os
import pickle
import struct
import subprocess
import sys
import traceback
import zipfile

import numpy as np
import pytest
import torch

from d3rlpy.algos import DQN, DoubleDQN
from d3rlpy.models.encoders import PixelEncoderFactory, VectorEncoderFactory
from d3rlpy.models.optimizers import AdamFactory, SGDFactory
from d3rlpy.models.q_functions import QRQFunctionFactory
from tests.helpers import make_dataset

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SMALL = VectorEncoderFactory(hidden_units=(8,))


class Boom:
    """A pickle that leaves a trace when it is executed."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


def trained(**params):
    return DQN(encoder_factory=SMALL, random_state=0, **params).fit(make_dataset(discrete=True), n_steps=2, **QUIET)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def saves_the_same(algo, path):
    """Whether ``algo`` is in the state that it had when it wrote ``path``: weights, moments, counters, randomness."""
    again = path.with_name("again.pt")
    algo.save_model(again)
    return again.read_bytes() == path.read_bytes()


def test_scalers_travel_with_the_model_into_an_object_that_has_seen_no_data(tmp_path):
    algo = trained(scaler="standard")
    algo.save_model(tmp_path / "model.pt")
    twin = DQN(encoder_factory=SMALL, scaler="standard")
    twin.load_model(tmp_path / "model.pt")
    x = make_dataset(discrete=True, seed=3).observations
    assert np.array_equal(twin.predict(x), algo.predict(x))
    assert np.array_equal(twin.predict_value(x, twin.predict(x)), algo.predict_value(x, algo.predict(x)))


def test_a_scaler_that_the_object_was_not_declared_with_is_used_with_a_warning(tmp_path):
    algo = trained(scaler="standard")
    algo.save_model(tmp_path / "model.pt")
    twin = DQN(encoder_factory=SMALL)
    with pytest.warns(UserWarning, match="brings scaler='standard', which replaces scaler=None"):
        twin.load_model(tmp_path / "model.pt")
    x = make_dataset(discrete=True, seed=3).observations
    assert np.array_equal(twin.predict(x), algo.predict(x))


def test_the_learning_rate_is_the_objects_own(tmp_path):
    trained(learning_rate=0.1).save_model(tmp_path / "model.pt")
    twin = DQN(encoder_factory=SMALL, learning_rate=0.2)
    twin.load_model(tmp_path / "model.pt")
    assert twin.impl.optim.torch_optim.param_groups[0]["lr"] == 0.2


def test_the_options_of_an_optimizer_are_the_objects_own(tmp_path):
    trained(optim_factory=AdamFactory(eps=1e-3, weight_decay=0.1)).save_model(tmp_path / "model.pt")
    twin = DQN(encoder_factory=SMALL, optim_factory=AdamFactory(eps=1e-2, clip_grad_norm=1.0))
    twin.load_model(tmp_path / "model.pt")
    group = twin.impl.optim.torch_optim.param_groups[0]
    assert (group["eps"], group["weight_decay"]) == (1e-2, 0.0)
    assert twin.impl.optim.n_steps == 2
    assert all(state["step"] == 2 for state in twin.impl.optim.torch_optim.state.values())


@pytest.mark.parametrize(
    ("saved", "own", "message"),
    [
        ("adam", "rmsprop", r"it was saved with optim_factory='adam' \(here 'rmsprop'\)"),
        ("sgd", "adam", r"it was saved with optim_factory='sgd' \(here 'adam'\)"),
        (AdamFactory(), AdamFactory(amsgrad=True), "optim was saved with .* for parameter 0 and has .*max_exp_avg_sq"),
        (SGDFactory(momentum=0.9), SGDFactory(), "optim was saved with .*momentum_buffer.* for parameter 0"),
    ],
)
def test_a_model_of_another_optimizer_is_an_error(tmp_path, saved, own, message):
    trained(optim_factory=saved).save_model(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=f"model.pt can't be loaded: {message}"):
        DQN(encoder_factory=SMALL, optim_factory=own).load_model(tmp_path / "model.pt")


def test_a_model_of_another_algorithm_is_an_error(tmp_path):
    trained().save_model(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt holds a DQN, not a DoubleDQN: use DQN\(\).load_model"):
        DoubleDQN(encoder_factory=SMALL).load_model(tmp_path / "model.pt")


def test_a_model_of_another_shape_is_an_error(tmp_path):
    trained().save_model(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"saved for observation_shape=\(3,\) and action_size=2, this DQN was built"):
        DQN(encoder_factory=SMALL).create_impl((4,), 2).load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"q_func_factory": "qr", "n_critics": 2}, r"n_critics=2 \(here 1\)"),
        (
            {"encoder_factory": VectorEncoderFactory((8,), activation="tanh")},
            r"encoder_factory__activation='tanh' \(here 'relu'\)",
        ),
    ],
)
def test_a_model_of_other_networks_is_an_error_that_names_the_difference(tmp_path, built, saved, message):
    params = {"encoder_factory": SMALL, "random_state": 1}
    DQN(**{**params, **saved}).create_impl((3,), 2).save_model(tmp_path / "model.pt")
    algo = DQN(**params)
    if built:
        algo.create_impl((3,), 2).save_model(tmp_path / "before.pt")
    with pytest.raises(ValueError, match=f"model.pt can't be loaded: it was saved with .*{message}"):
        algo.load_model(tmp_path / "model.pt")
    if built:
        assert saves_the_same(algo, tmp_path / "before.pt")
    else:
        assert algo.impl is None


def test_stacked_frames_are_not_taken_for_channels(tmp_path):
    encoder = PixelEncoderFactory(filters=((4, 8, 8),), feature_size=8)
    DQN(encoder_factory=encoder, n_frames=4).create_impl((4, 36, 36), 2).save_model(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"it was saved with n_frames=4 \(here 1\)"):
        DQN(encoder_factory=encoder).load_model(tmp_path / "model.pt")


def test_a_factory_and_its_name_are_the_same(tmp_path):
    DQN(q_func_factory="qr").create_impl((3,), 2).save_model(tmp_path / "model.pt")
    twin = DQN(q_func_factory=QRQFunctionFactory(), random_state=5)
    twin.load_model(tmp_path / "model.pt")
    assert twin.observation_shape == (3,)


def damage(path, *keys, value=None):
    """Replace, or delete without a value, one entry of a saved dictionary."""
    payload = torch.load(path, weights_only=True)
    part = payload
    for key in keys[:-1]:
        part = part[key]
    if value is None:
        del part[keys[-1]]
    else:
        part[keys[-1]] = value
    torch.save(payload, path)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("params",), {}, "it lacks"),
        (("params", "format"), 99, "has format 99, this version reads up to 1"),
        (("params", "observation_shape"), [3.0], r"it has observation_shape=\[3.0\]"),
        (("params", "scaler"), None, "it lacks 'scaler'"),
        (("params", "scaler"), {"type": "nonsense"}, "no scaler is called 'nonsense'"),
        (("params", "scaler", "params"), {"mean": [0.0] * 4, "std": [1.0] * 4}, "size of tensor"),
        (("params", "scaler", "params"), {"mean": [[0.0] * 3] * 2, "std": [1.0] * 3}, "shape"),
        (("params", "n_critics"), "x", "n_critics must be a whole number"),
        (("modules",), [], "has no attribute"),
        (("modules", "q_funcs.critics.0.head.bias"), None, "other layers"),
        (("modules", "q_funcs.critics.0.head.bias"), torch.zeros(3), "other layers"),
        (("modules", "q_funcs.critics.0.head.bias"), "x", "other layers"),
        (("optimizers",), {}, r"it has the optimizers \[\] instead of \['optim'\]"),
        (("optimizers", "optim", "optim"), None, "it lacks 'optim'"),
        (("optimizers", "optim", "optim", "state", 0, "exp_avg"), None, "optim was saved with .* for parameter 0"),
        (("optimizers", "optim", "optim", "state", 0, "exp_avg"), torch.zeros(2), "for parameter 0"),
        (("optimizers", "optim", "optim", "state", 99), {"step": torch.zeros(())}, "for parameter 99"),
        (("optimizers", "optim", "n_steps"), None, "it lacks 'n_steps'"),
        (("optimizers", "optim", "n_steps"), "x", "n_steps of optim='x' must be a whole number from 0"),
        (("grad_step",), "x", "grad_step='x' must be a whole number from 0"),
        (("grad_step",), -1, "grad_step=-1 must be a whole number from 0"),
        (("random", "numpy"), None, "it lacks 'numpy'"),
        (("random", "numpy"), {"bit_generator": "x"}, "PCG64"),
        (("random", "torch"), {}, "it lacks 'cpu'"),
        (("random", "torch", "cpu"), torch.zeros(3, dtype=torch.uint8), "size"),
    ],
)
def test_a_wrong_entry_is_an_error_that_leaves_the_object_as_it_was(tmp_path, keys, value, message, built):
    trained(scaler="standard").save_model(tmp_path / "model.pt")
    damage(tmp_path / "model.pt", *keys, value=value)
    algo = trained(scaler="standard") if built else DQN(encoder_factory=SMALL, scaler="standard")
    if built:
        algo.save_model(tmp_path / "before.pt")
    with pytest.raises(ValueError, match=rf"(?s){tmp_path / 'model.pt'} .*{message}"):
        algo.load_model(tmp_path / "model.pt")
    if built:
        assert saves_the_same(algo, tmp_path / "before.pt")
    else:
        assert algo.impl is None


def test_a_model_loaded_in_a_callback_is_trained_on(tmp_path):
    start = trained()
    start.save_model(tmp_path / "model.pt")
    algo, modes = trained(), []

    def go_back(algo, epoch, total_step):
        algo.load_model(tmp_path / "model.pt")
        modes.append(algo.impl.training)

    algo.fit(make_dataset(discrete=True), n_steps=5, callback=go_back, **QUIET)
    assert modes == [True] * 5
    assert same(algo.impl.state_dict(), start.impl.state_dict())
    assert algo.grad_step_ == 2


def test_a_model_loaded_in_inference_mode_can_be_trained(tmp_path):
    trained().save_model(tmp_path / "model.pt")
    algo = DQN(encoder_factory=SMALL)
    with torch.inference_mode():
        algo.load_model(tmp_path / "model.pt")
    assert algo.fit(make_dataset(discrete=True), n_steps=2, **QUIET).grad_step_ == 4


def test_nothing_in_a_file_is_executed(tmp_path):
    for name, write in (("raw.pt", pickle.dump), ("torch.pt", lambda o, f: torch.save(o, f))):
        with open(tmp_path / name, "wb") as file:
            write(Boom(), file)
        with pytest.raises(ValueError, match="is not a model file that save_model of d3rlpy has written"):
            DQN().load_model(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_nobody_is_advised_to_execute_a_file(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(trained().saved_params()))
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Boom()))
    torch.save(Boom(), tmp_path / "torch.pt")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match="is not a model file") as caught:
            DQN().load_model(path)
        assert "weights_only" not in "".join(traceback.format_exception(caught.value))


def test_a_flipped_bit_in_any_tensor_is_an_error(tmp_path):
    path = tmp_path / "model.pt"
    algo = trained()
    algo.save_model(path)
    content, records = path.read_bytes(), []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if "/data/" in info.filename:
                sizes = struct.unpack_from("<HH", content, info.header_offset + 26)  # of name and padding
                records.append(info.header_offset + 30 + sum(sizes))
    assert len(records) > 10
    for start in records:
        path.write_bytes(content[:start] + bytes([content[start] ^ 1]) + content[start + 1 :])
        with pytest.raises(ValueError, match="is not a model file that save_model of d3rlpy has written, or it is da"):
            algo.load_model(path)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_an_error(tmp_path, keep):
    algo = trained()
    algo.save_model(tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ValueError, match="is not a model file that save_model of d3rlpy has written"):
        algo.load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("payload", [{}, {"params": {}}, [1, 2], torch.zeros(3)])
def test_a_file_of_other_tensors_is_an_error(tmp_path, payload):
    torch.save(payload, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is not a model file that save_model of d3rlpy has written"):
        DQN().load_model(tmp_path / "model.pt")


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        DQN().load_model(tmp_path / "model.pt")


FULL_DISK = """
import resource
from d3rlpy.algos import DQN
algo = DQN().create_impl((3,), 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for save, name in ((algo.save_model, "model.pt"), (algo.save_policy, "policy.pt"), (algo.save_policy, "policy.onnx")):
    try:
        save(name)
    except OSError as error:
        print(name, error.strerror)
"""


def test_a_full_disk_is_an_ordinary_error_that_keeps_the_old_files(tmp_path):
    names = ["model.pt", "policy.onnx", "policy.pt"]
    for name in names:
        (tmp_path / name).write_text("old")
    run = subprocess.run([sys.executable, "-c", FULL_DISK], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert sorted(run.stdout.splitlines()) == [f"{name} File too large" for name in names]
    assert [(p.name, p.read_text()) for p in sorted(tmp_path.iterdir())] == [(name, "old") for name in names]

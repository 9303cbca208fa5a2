"""``params.json`` and ``model_{step}.pt``: what is in them, and how they are read safely.

``params.json`` holds the format version, the algorithm, the shapes and every hyper-parameter, scalers with their
fitted statistics. A model file holds that dictionary too, beside the states of modules, optimizers and random
generators, so that it can be loaded into an object that has never seen data. Both are read without executing
anything from them.
"""

from __future__ import annotations

import copy
import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .augmentation import AUGMENTATIONS
from .dataset.validation import warn_caller
from .files import replacing
from .gpu import Device, resolve_device
from .hyperparameters import ALGORITHMS, check_hyperparameters, fields_of
from .impl import AlgorithmImpl
from .models.encoders import ENCODERS
from .models.optimizers import OPTIMIZERS, Optimizer
from .models.q_functions import Q_FUNCTIONS
from .preprocessing import ACTION_SCALERS, REWARD_SCALERS, SCALERS, Scalers
from .randomness import RandomStream
from .registry import Configurable, Registry, nearest

if TYPE_CHECKING:
    from .base import Algo

FORMAT = 1
SHAPE_KEYS = ("format", "algorithm", "observation_shape", "action_size")
MODEL_KEYS = {"params", "modules", "optimizers", "grad_step", "random"}
SCALER_KEYS = {"scaler": "observation", "action_scaler": "action", "reward_scaler": "reward"}
REGISTRIES: dict[str, Registry[Any]] = {
    "action_scaler": ACTION_SCALERS,
    "augmentation": AUGMENTATIONS,
    "reward_scaler": REWARD_SCALERS,
    "scaler": SCALERS,
    "encoder_factory": ENCODERS,
    "optim_factory": OPTIMIZERS,
    "q_func_factory": Q_FUNCTIONS,
}
"""Registry by the ending of a hyper-parameter's name."""


def params_dict(algo: Algo) -> dict[str, Any]:
    """What ``params.json`` holds; ``ValueError`` for a hyper-parameter that JSON can't hold."""
    params: dict[str, Any] = {
        "format": FORMAT,
        "algorithm": type(algo).__name__,
        "observation_shape": list(algo.impl.observation_shape),
        "action_size": algo.impl.action_size,
    }
    for name in fields_of(type(algo)):
        value = getattr(algo, name)
        if name in SCALER_KEYS:
            value = getattr(algo.fitted_scalers_, SCALER_KEYS[name])
        params[name] = _plain(name, value)
    return params


def _plain(name: str, value: Any) -> Any:
    """``value`` as JSON gives it back: lists for tuples and arrays, dictionaries for factories and scalers."""
    try:
        return json.loads(json.dumps(value, default=_as_json))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the hyper-parameter {name}={value!r} can't be written to a file: {error}") from error


def _as_json(value: Any) -> Any:
    if isinstance(value, Configurable):
        return {"type": value.get_type(), "params": value.get_params()}
    if isinstance(value, Device):
        return value.get_id()
    if isinstance(value, torch.device):
        return str(value)
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return value.tolist()
    raise TypeError(f"JSON knows no {type(value).__name__}")


def algo_from_params(cls: type[Algo], params: dict[str, Any], use_gpu: Any, source: str) -> Any:
    """The built object that ``params`` describes, without learned weights."""
    _check_header(params, source)
    classes = {c.__name__: c for c in ALGORITHMS.values()}
    name = params["algorithm"]
    if name not in classes:
        raise ValueError(f"{source} names the algorithm {name!r}, which is unknown.{nearest(name, list(classes))}")
    if not issubclass(classes[name], cls):
        raise ValueError(f"{source} belongs to {name}, not to {cls.__name__}: use {name}.from_json")
    resolve_device(use_gpu)  # not the file's fault
    with _blaming(source):
        algo: Algo = _described(classes[name], {**params, "use_gpu": use_gpu})
        algo.create_impl(tuple(params["observation_shape"]), params["action_size"])
        _check_scalers(algo.fitted_scalers_, params)
        return algo


def _check_header(params: Any, source: str) -> None:
    """Raise unless ``params`` is a dictionary with sound ``SHAPE_KEYS``."""
    missing = [key for key in SHAPE_KEYS if key not in params] if isinstance(params, dict) else list(SHAPE_KEYS)
    if missing:
        raise ValueError(f"{source} was not written by d3rlpy, or it is damaged: it lacks {missing}")
    shape = params["observation_shape"]
    sound = {
        "format": _is_count(params["format"], 1),
        "algorithm": isinstance(params["algorithm"], str),
        "observation_shape": isinstance(shape, list) and bool(shape) and all(_is_count(n, 1) for n in shape),
        "action_size": _is_count(params["action_size"], 1),
    }
    for key, value in params.items():
        if not sound.get(key, True):
            raise ValueError(f"{source} was not written by d3rlpy, or it is damaged: it has {key}={value!r}")
    if params["format"] > FORMAT:
        raise ValueError(f"{source} has format {params['format']}, this version reads up to {FORMAT}: upgrade d3rlpy")


def _is_count(value: Any, low: int) -> bool:
    return type(value) is int and value >= low


@contextmanager
def _blaming(source: str) -> Iterator[None]:
    """Whatever fails inside fails because of the file, and says so by a ``ValueError`` that names it."""
    try:
        yield
    except Exception as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{source} can't be loaded: {reason}") from error


def _described(cls: type[Algo], params: dict[str, Any]) -> Algo:
    """The object that ``params`` describes, not built."""
    return cls(**{key: _revive(key, value) for key, value in params.items() if key not in SHAPE_KEYS})


def _registry(name: str) -> Registry[Any] | None:
    """The table of classes that a hyper-parameter chooses from."""
    return next((registry for ending, registry in REGISTRIES.items() if name.endswith(ending)), None)


def _revive(name: str, value: Any) -> Any:
    """A dictionary becomes the factory, scaler or augmentation that it describes, also in a list."""
    if isinstance(value, list):
        return [_revive(name, each) for each in value]
    registry = _registry(name)
    return registry.resolve(value) if registry is not None and isinstance(value, dict) else value


def read_params(fname: str | os.PathLike[str]) -> dict[str, Any]:
    """The dictionary in a ``params.json``."""
    try:
        params = json.loads(Path(fname).read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{fname} is not a params.json of d3rlpy: {error}") from error
    if not isinstance(params, dict):
        raise ValueError(f"{fname} is not a params.json of d3rlpy: it holds no object")
    return params


def write_model(algo: Algo, fname: str | os.PathLike[str]) -> None:
    """Write states of modules, optimizers, scalers, counters and random generators."""
    impl = algo.impl
    payload = {
        "params": params_dict(algo),
        "modules": {name: tensor.clone() for name, tensor in impl.state_dict().items()},  # not what it is a slice of
        "optimizers": {name: optim.state_dict() for name, optim in impl.optimizers().items()},
        "grad_step": impl.grad_step,
        "random": algo.stream_.get_state(),
    }
    content = io.BytesIO()  # on a full disk torch itself would end Python, instead of raising an error
    torch.save(payload, content)
    with replacing(fname) as path:
        Path(path).write_bytes(content.getbuffer())


@torch.inference_mode(False)
def read_model(fname: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a model file; tensors and plain values only, nothing in the file is executed."""
    content = io.BytesIO(Path(fname).read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            damaged = archive.testzip()  # compares check sums, which torch doesn't
        content.seek(0)
        payload = None if damaged else torch.load(content, map_location="cpu", weights_only=True)
    except Exception:
        payload = None  # torch's reason is not passed on: it advises to execute the file
    if not isinstance(payload, dict) or not set(payload) >= MODEL_KEYS:
        raise ValueError(f"{fname} is not a model file that save_model of d3rlpy has written, or it is damaged")
    return payload


@torch.inference_mode(False)
def restore_model(algo: Algo, payload: dict[str, Any], fname: str) -> None:
    """Put the states of ``payload`` into ``algo``, building it if needed; on an error ``algo`` stays as it was."""
    saved, name = payload["params"], type(algo).__name__
    _check_header(saved, fname)
    if saved["algorithm"] != name:
        raise ValueError(f"{fname} holds a {saved['algorithm']}, not a {name}: use {saved['algorithm']}().load_model")
    shape, action_size = tuple(saved["observation_shape"]), saved["action_size"]
    built = algo.impl is not None
    if built and (shape, action_size) != (algo.observation_shape, algo.action_size):
        raise ValueError(
            f"{fname} was saved for observation_shape={shape} and action_size={action_size}, this {name} was built "
            f"for {algo.observation_shape} and {algo.action_size}"
        )
    check_hyperparameters(algo)
    resolve_device(algo.use_gpu)  # neither is the file's fault
    with _blaming(fname):
        scalers = _saved_scalers(algo, saved)
        _check_same_networks(algo, saved)
        impl, stream = (algo.impl, algo.stream_) if built else algo.make_impl(shape, action_size)
        # A rehearsal on copies: what fails leaves the object alone. The estimator behind the networks isn't copied.
        copies = copy.deepcopy((impl, stream), {id(algo): algo})
        _check_states(*copies, payload)
        _load(*copies, payload)
    _warn_about_scalers(algo, scalers, fname)
    _load(impl, stream, payload)
    algo.impl, algo.stream_, algo.fitted_scalers_ = impl, stream, scalers


def _load(impl: AlgorithmImpl, stream: RandomStream, payload: dict[str, Any]) -> None:
    impl.load_state_dict(payload["modules"])
    for key, optim in impl.optimizers().items():
        saved = payload["optimizers"][key]
        options = optim.torch_optim.state_dict()["param_groups"]  # weight decay and the like are the object's own
        optim.load_state_dict(
            {"optim": {"state": saved["optim"]["state"], "param_groups": options}, "n_steps": saved["n_steps"]}
        )
    impl.grad_step = payload["grad_step"]
    stream.set_state(payload["random"])


def _check_states(impl: AlgorithmImpl, stream: RandomStream, payload: dict[str, Any]) -> None:
    """Raise for states that could be loaded and would fail later; changes ``impl``."""
    if _shapes(impl.state_dict()) != _shapes(payload["modules"]):
        raise ValueError("its networks have other layers, although they were saved with the same hyper-parameters")
    optimizers, random = payload["optimizers"], payload["random"]
    if set(optimizers) != set(impl.optimizers()):
        raise ValueError(f"it has the optimizers {sorted(optimizers)} instead of {sorted(impl.optimizers())}")
    counts = {"grad_step": payload["grad_step"]} | {f"n_steps of {k}": v["n_steps"] for k, v in optimizers.items()}
    for name, count in counts.items():
        if not _is_count(count, 0):
            raise ValueError(f"{name}={count!r} must be a whole number from 0")
    for name, optim in impl.optimizers().items():
        _check_optimizer(name, optim, optimizers[name]["optim"]["state"])
    torch.Generator().set_state(random["torch"]["cpu"])
    if stream.device.type == "cuda" and "cuda" in random["torch"]:
        torch.Generator(stream.device).set_state(random["torch"]["cuda"])


def _check_optimizer(name: str, optim: Optimizer, saved: dict[int, Any]) -> None:
    """Compare ``saved`` with what a step leaves in ``optim``; parameters that were never moved have no state."""
    for param in optim.params:
        param.grad = torch.zeros_like(param)
    optim.torch_optim.step()
    own = optim.torch_optim.state_dict()["state"]
    for index, state in saved.items():
        if _shapes(state) != _shapes(own.get(index, {})):
            raise ValueError(
                f"{name} was saved with {_shapes(state)} for parameter {index} and has {_shapes(own.get(index, {}))} "
                "here: give its factory the options it was saved with"
            )


def _shapes(state: dict[Any, Any]) -> dict[Any, tuple[int, ...] | None]:
    return {key: tuple(value.shape) if isinstance(value, Tensor) else None for key, value in state.items()}


def _saved_scalers(algo: Algo, saved: dict[str, Any]) -> Scalers:
    keys = [key for key in SCALER_KEYS if key in fields_of(type(algo))]
    scalers = Scalers(**{SCALER_KEYS[key]: _revive(key, saved[key]) for key in keys})
    _check_scalers(scalers, saved)
    return scalers


def _check_scalers(scalers: Scalers, params: dict[str, Any]) -> None:
    """Raise unless each scaler works for the shapes in ``params``, or isn't fitted yet."""
    shape = tuple(params["observation_shape"])
    inputs = {
        "observation": torch.zeros(1, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32),
        "action": torch.zeros(1, params["action_size"]),
        "reward": torch.zeros(1, 1),
    }
    for kind, x in inputs.items():
        scaler = getattr(scalers, kind)
        if scaler is not None and scaler.fitted and scaler.transform(x).shape != x.shape:
            raise ValueError(f"the statistics of its {kind} scaler don't fit the shape {tuple(x.shape[1:])}")


def _check_same_networks(algo: Algo, saved: dict[str, Any]) -> None:
    """Raise unless the hyper-parameters that shape networks, and the kinds of optimizers, are those of the file."""
    described = _described(type(algo), saved)
    check_hyperparameters(described)
    own, theirs = _network_parts(algo), _network_parts(described)
    found = [f"{k}={v!r} (here {own[k]!r})" for k, v in theirs.items() if k in own and own[k] != v]
    if found:
        raise ValueError(
            f"it was saved with {', '.join(found)}; an object with the same hyper-parameters can load it, "
            f"{type(algo).__name__}.from_json makes one"
        )


def _network_parts(algo: Algo) -> dict[str, Any]:
    """Hyper-parameters that shape networks, factories as their kind and parameters; only the kind of optimizers."""
    parts: dict[str, Any] = {}
    for name, field in fields_of(type(algo)).items():
        if not field.metadata.get("fixed") or name in (*SCALER_KEYS, "use_gpu", "random_state"):
            continue
        value, registry = getattr(algo, name), _registry(name)
        if registry is None or value is None:
            parts[name] = _plain(name, value)
            continue
        factory = registry.resolve(value)
        parts[name] = factory.get_type()
        if registry is not OPTIMIZERS:
            parts |= {f"{name}__{k}": v for k, v in _plain(name, factory)["params"].items()}
    return parts


def _warn_about_scalers(algo: Algo, scalers: Scalers, fname: str) -> None:
    for key, to in SCALER_KEYS.items():
        given = getattr(algo, key, None)
        own = None if given is None else REGISTRIES[key].resolve(given).get_type()
        theirs = getattr(scalers, to) and getattr(scalers, to).get_type()
        if own != theirs:
            warn_caller(f"{fname} brings {key}={theirs!r}, which replaces {key}={given!r}")

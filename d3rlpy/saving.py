"""``params.json`` and ``model_{step}.pt``: what is in them, and how they are read safely.

``params.json`` holds the format version, the algorithm, the shapes and every hyper-parameter, scalers with their
fitted statistics. A model file holds that dictionary too, beside the states of modules, optimizers and random
generators, so that it can be loaded into an object that has never seen data. Both are read without executing
anything from them.
"""

from __future__ import annotations

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .files import replacing
from .gpu import Device
from .hyperparameters import ALGORITHMS, fields_of
from .models.encoders import ENCODERS
from .models.optimizers import OPTIMIZERS
from .models.q_functions import Q_FUNCTIONS
from .preprocessing import ACTION_SCALERS, REWARD_SCALERS, SCALERS, Scalers
from .registry import Configurable, Registry, nearest, to_plain

if TYPE_CHECKING:
    from .base import Algo

FORMAT = 1
SHAPE_KEYS = ("format", "algorithm", "observation_shape", "action_size")
SCALER_KEYS = {"scaler": "observation", "action_scaler": "action", "reward_scaler": "reward"}
REGISTRIES: dict[str, Registry[Any]] = {
    "action_scaler": ACTION_SCALERS,
    "reward_scaler": REWARD_SCALERS,
    "scaler": SCALERS,
    "encoder_factory": ENCODERS,
    "optim_factory": OPTIMIZERS,
    "q_func_factory": Q_FUNCTIONS,
}
"""Registry by the ending of a hyper-parameter's name."""


def params_dict(algo: Algo) -> dict[str, Any]:
    """What ``params.json`` holds."""
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
        if isinstance(value, Configurable):
            params[name] = value.to_dict()
        else:
            params[name] = value.get_id() if isinstance(value, Device) else to_plain(value)
    return params


def algo_from_params(cls: type[Algo], params: dict[str, Any], use_gpu: Any, source: str) -> Any:
    """The built object that ``params`` describes, without learned weights."""
    missing = [key for key in SHAPE_KEYS if key not in params]
    if missing:
        raise ValueError(f"{source} is not a params.json of d3rlpy: it lacks {missing}")
    if params["format"] > FORMAT:
        raise ValueError(f"{source} has format {params['format']}, this version reads up to {FORMAT}: upgrade d3rlpy")
    classes = {c.__name__: c for c in ALGORITHMS.values()}
    name = params["algorithm"]
    if name not in classes:
        raise ValueError(f"{source} names the algorithm {name!r}, which is unknown.{nearest(str(name), list(classes))}")
    if not issubclass(classes[name], cls):
        raise ValueError(f"{source} belongs to {name}, not to {cls.__name__}: use {name}.from_json")
    given = {k: _revive(k, v) for k, v in params.items() if k not in SHAPE_KEYS}
    algo: Algo = classes[name](**{**given, "use_gpu": use_gpu})
    return algo.create_impl(tuple(params["observation_shape"]), params["action_size"])


def _revive(name: str, value: Any) -> Any:
    """A dictionary becomes the factory or scaler that it describes."""
    if isinstance(value, dict):
        registry = next((r for ending, r in REGISTRIES.items() if name.endswith(ending)), None)
        return value if registry is None else registry.resolve(value)
    return value


def read_params(fname: str | os.PathLike[str]) -> dict[str, Any]:
    """The dictionary in a ``params.json``."""
    try:
        params = json.loads(Path(fname).read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{fname} is not a params.json of d3rlpy: {error}") from error
    if not isinstance(params, dict):
        raise ValueError(f"{fname} is not a params.json of d3rlpy: it holds no object")
    return params


def write_model(algo: Algo, fname: str | os.PathLike[str]) -> None:
    """Write states of modules, optimizers, scalers, counters and random generators."""
    impl = algo.impl
    payload = {
        "params": params_dict(algo),
        "modules": impl.state_dict(),
        "optimizers": {name: optim.state_dict() for name, optim in impl.optimizers().items()},
        "grad_step": impl.grad_step,
        "random": algo.stream_.get_state(),
    }
    with replacing(fname) as path:
        torch.save(payload, path)


def read_model(fname: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a model file; tensors and plain values only, nothing in the file is executed."""
    try:
        payload = torch.load(fname, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        OSError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{fname} is not a model file that save_model of d3rlpy has written, or it is damaged ({reason[:200]})"
        ) from error
    if not isinstance(payload, dict) or not {"params", "modules", "optimizers", "grad_step", "random"} <= set(payload):
        raise ValueError(f"{fname} is not a model file that save_model of d3rlpy has written")
    return payload


def restore_model(algo: Algo, payload: dict[str, Any], fname: str) -> None:
    """Put the states of ``payload`` into ``algo``, building it if needed; on an error ``algo`` stays as it was."""
    saved, name = payload["params"], type(algo).__name__
    if saved["algorithm"] != name:
        raise ValueError(f"{fname} holds a {saved['algorithm']}, not a {name}: use {saved['algorithm']}().load_model")
    shape, action_size = tuple(saved["observation_shape"]), saved["action_size"]
    if algo.impl is None:
        impl, stream = algo.make_impl(shape, action_size)
    else:
        impl, stream = algo.impl, algo.stream_
        if (shape, action_size) != (algo.observation_shape, algo.action_size):
            raise ValueError(
                f"{fname} was saved for observation_shape={shape} and action_size={action_size}, this {name} was built "
                f"for {algo.observation_shape} and {algo.action_size}"
            )
    own = {k: v.shape for k, v in impl.state_dict().items()}
    theirs = {k: v.shape for k, v in payload["modules"].items()}
    if own != theirs or set(impl.optimizers()) != set(payload["optimizers"]):
        differing = _differences(algo, saved)
        raise ValueError(
            f"{fname} has other networks than this {name}; it was saved with {differing or 'another network'}: "
            f"load it into an object with the same hyper-parameters, {name}.from_json makes one"
        )
    scalers = Scalers(**{to: _revive(key, saved.get(key)) for key, to in SCALER_KEYS.items()})
    _warn_about_scalers(algo, scalers, fname)
    impl.load_state_dict(payload["modules"])
    for key, optim in impl.optimizers().items():
        optim.load_state_dict(payload["optimizers"][key])
    impl.grad_step = payload["grad_step"]
    stream.set_state(payload["random"])
    algo.impl, algo.stream_, algo.fitted_scalers_ = impl, stream, scalers


def _differences(algo: Algo, saved: dict[str, Any]) -> str:
    """Hyper-parameters that shape the networks and differ from the saved ones."""
    found = []
    for name, field in fields_of(type(algo)).items():
        if field.metadata.get("fixed") and name in saved and name not in (*SCALER_KEYS, "use_gpu"):
            value = getattr(algo, name)
            registry = next((r for ending, r in REGISTRIES.items() if name.endswith(ending)), None)
            if _canonical(registry, value) != _canonical(registry, saved[name]):
                found.append(f"{name}={saved[name]!r}")
    return ", ".join(found)


def _canonical(registry: Registry[Any] | None, value: Any) -> Any:
    return registry.resolve(value).to_dict() if registry is not None and value is not None else value


def _warn_about_scalers(algo: Algo, scalers: Scalers, fname: str) -> None:
    for key, to in SCALER_KEYS.items():
        if not hasattr(algo, key):
            continue
        theirs = getattr(scalers, to)
        own = None if getattr(algo, key) is None else REGISTRIES[key].resolve(getattr(algo, key))
        if getattr(own, "TYPE", None) != getattr(theirs, "TYPE", None):
            warnings.warn(
                f"{fname} brings {key}={getattr(theirs, 'TYPE', None)!r}, which replaces {key}={getattr(algo, key)!r}",
                UserWarning,
                stacklevel=4,
            )

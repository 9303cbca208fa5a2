"""The estimator: what users hold in their hands.

A subclass declares hyper-parameters and names its ``Impl``; ``fit``, ``predict``, saving and the rest are here and
delegate to the rooms below.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if
from torch import Tensor

from .arrays import as_numbers, to_tensor
from .dataset import Rows, TransitionMiniBatch, rows_of
from .dataset.validation import warn_caller
from .envs import EnvAdapter
from .export import export_policy
from .gpu import Device, for_a_clone, resolve_device
from .hyperparameters import (
    as_declared,
    check_hyperparameters,
    check_value,
    fields_of,
    hp,
    hyperparameters,
    warn_old_name,
)
from .impl import AlgorithmImpl, training_mode
from .logger import Meter
from .online.estimator import OnlineMethods
from .precision import PRECISIONS, check_precision
from .preprocessing import Scaler, Scalers
from .randomness import RandomStream, new_seed
from .registry import nearest, with_parameter
from .saving import algo_from_params, params_dict, read_model, read_params, restore_model, write_model
from .signatures import same_arguments
from .training import Profile, check_data, network_shape, offline_run, profile
from .training.loop import Data


def _has_values(algo: Algo) -> bool:
    if not hasattr(type(algo).Impl, "value"):
        raise AttributeError(f"{type(algo).__name__} has no action values, so it has no predict_value")
    return True


def _has_greedy_actions(algo: Algo) -> bool:
    if not algo.learns:
        raise AttributeError(f"{type(algo).__name__} acts at random, so it has no save_policy: a file is deterministic")
    return True


@hyperparameters
class Algo(OnlineMethods, BaseEstimator):
    """Base class of all algorithms.

    Attributes
    ----------
    impl : networks and optimizers, None before the shapes are known.
    observation_shape, action_size : shapes that it was built for, None before; image frames are stacked.
    fitted_scalers_ : the scalers in use, beside the parameters so that ``clone`` copies no data.
    history_ : list of ``(epoch, metrics)`` of the last ``fit``.
    eval_results_ : lists of scores by name of the last ``fit``, in their natural sign.
    logdir_ : folder of the last ``fit``, None if nothing was written.
    grad_step_ : updates made so far.
    """

    batch_size: int = hp(256, "transitions in a mini-batch", low=1)
    n_frames: int = hp(1, "images stacked to one observation", low=1, fixed=True)
    scaler: str | Scaler | None = hp(
        None, "observation scaler: 'pixel', 'min_max', 'standard' or an object", fixed=True
    )
    use_gpu: bool | int | str | Device | None = hp(False, "device: True, an index, a Device or 'cuda:1'", fixed=True)
    cuda_graph: bool = hp(True, "on a GPU, whether the updates of a fit are captured as CUDA graphs")
    precision: str = hp(
        "float32", "in which updates compute matrix products and convolutions; see docs/gpu.md", options=PRECISIONS
    )
    random_state: int | None = hp(
        None, "seed of networks, batches and noise; None draws one from d3rlpy.seed", fixed=True
    )

    Impl: ClassVar[type[AlgorithmImpl]]
    action_space: ClassVar[str]
    learns: ClassVar[bool] = True  # whether training changes how it acts; False for random policies
    impl: Any = field(default=None, init=False)
    stream_: RandomStream = field(init=False)
    fitted_scalers_: Scalers = field(init=False)
    history_: list[tuple[int, dict[str, float]]] = field(init=False)
    eval_results_: dict[str, list[float]] = field(init=False)
    logdir_: Path | None = field(init=False)

    def __sklearn_clone__(self) -> Self:
        clone: Self = super().__sklearn_clone__()
        clone.use_gpu = for_a_clone(clone.use_gpu)
        return clone

    def create_impl(self, observation_shape: tuple[int, ...], action_size: int) -> Self:
        """Build the networks; ``observation_shape`` is that of one observation with its frames stacked."""
        if self.impl is not None:
            raise RuntimeError(f"this {type(self).__name__} is built already: sklearn.base.clone gives a fresh one")
        impl, stream = self.make_impl(observation_shape, action_size)
        self.fitted_scalers_ = self._new_scalers()
        self.impl, self.stream_ = impl, stream
        return self

    def make_impl(self, observation_shape: tuple[int, ...], action_size: int) -> tuple[AlgorithmImpl, RandomStream]:
        """Fresh networks and their random stream, not yet part of this object."""
        check_hyperparameters(self)
        seed = self.random_state
        if seed is not None and (not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63):
            raise ValueError(f"{type(self).__name__}: random_state={seed!r} must be a whole number from 0, or None")
        device = resolve_device(self.use_gpu)
        stream = RandomStream(new_seed() if seed is None else int(seed), device)
        with stream, torch.inference_mode(False):
            return self.Impl(self, tuple(observation_shape), action_size, device), stream

    def _new_scalers(self) -> Scalers:
        given: Any = (self.scaler, getattr(self, "action_scaler", None), getattr(self, "reward_scaler", None))
        return Scalers(*copy.deepcopy(given))

    def build_with_dataset(self, dataset: Data) -> Self:
        """Build the networks for the shapes of ``dataset`` and fit the scalers that are not fitted yet."""
        return self.build_with_rows(*rows_of(dataset))

    def build_with_rows(self, rows: Rows, indices: np.ndarray) -> Self:
        """``build_with_dataset`` for transitions of one storage; on an error nothing is built."""
        check_data(self, rows, indices)
        scalers = self._new_scalers() if self.impl is None else copy.deepcopy(self.fitted_scalers_)
        for scaler in (scalers.observation, scalers.action, scalers.reward):
            if scaler is not None:
                scaler.fit_rows(rows, indices)
        if self.impl is None:
            self.create_impl(network_shape(rows.observation_shape, self.n_frames), rows.action_size)
        self.fitted_scalers_ = scalers
        return self

    def build_with_env(self, env: Any) -> Self:
        """Build the networks for the spaces of ``env`` and fit the scalers that its bounds determine.

        The others stay unfitted: ``fit`` and ``load_model`` fit them, acting before that is an error.
        """
        adapter = EnvAdapter(env)
        if adapter.discrete != (self.action_space == "discrete"):
            kind = "discrete" if adapter.discrete else "continuous"
            raise ValueError(f"{type(self).__name__} learns {self.action_space} actions, those of env are {kind}")
        if self.impl is None:
            self.create_impl(network_shape(adapter.observation_shape, self.n_frames), adapter.action_size)
        for scaler in (self.fitted_scalers_.observation, self.fitted_scalers_.action):
            if scaler is not None:
                with suppress(ValueError):
                    scaler.fit_with_env(env)
        return self

    @property
    def observation_shape(self) -> tuple[int, ...] | None:
        return None if self.impl is None else self.impl.observation_shape

    @property
    def action_size(self) -> int | None:
        return None if self.impl is None else self.impl.action_size

    @property
    def grad_step_(self) -> int:
        return 0 if self.impl is None else self.impl.grad_step

    def __sklearn_is_fitted__(self) -> bool:
        return self.impl is not None

    def _built(self, method: str) -> AlgorithmImpl:
        if self.impl is None:
            raise RuntimeError(
                f"{type(self).__name__} has no networks yet, so {method} can't work: call fit, load_model, "
                "build_with_dataset or create_impl first"
            )
        return self.impl

    @same_arguments(offline_run)
    def fit(self, *args: Any, **kwargs: Any) -> Self:
        """Train; a second call continues from the present state. Returns ``self``."""
        for _ in offline_run(self, *args, **kwargs).all_epochs():
            pass
        return self

    @same_arguments(offline_run)
    def fitter(self, *args: Any, **kwargs: Any) -> Iterator[tuple[int, dict[str, float]]]:
        """Train and yield ``(epoch, metrics)`` after each epoch; stop iterating to stop training."""
        return offline_run(self, *args, **kwargs).all_epochs()

    def update(self, batch: TransitionMiniBatch, *old: Any) -> dict[str, float]:
        """Make one update with a mini-batch of the same ``gamma`` and return the values of its metrics."""
        if old:  # update(epoch, total_step, batch)
            warn_old_name("update(epoch, total_step, batch)", "write update(batch)")
            batch = old[-1]
        impl = self._built("update")
        if not isinstance(batch, TransitionMiniBatch):
            raise TypeError(f"update needs a TransitionMiniBatch, got {type(batch).__name__}")
        check_data(self, batch.rows, batch.indices)
        gamma = getattr(self, "gamma", None)
        if gamma is not None and batch.gamma != gamma:
            raise ValueError(f"the mini-batch has gamma={batch.gamma}, {type(self).__name__} has gamma={gamma}")
        reward_scaler = self.fitted_scalers_.reward
        if reward_scaler is not None:
            batch = batch.with_rewards(reward_scaler.transform_numpy)
        check_precision(self.precision, impl.device)
        meter = Meter()
        with training_mode(impl), self.stream_:
            meter.add(impl.step(impl.batch_type.of(batch, self.fitted_scalers_, impl.device)))
        return meter.means()

    def profile(self, dataset: Data, seconds: float = 3.0) -> Profile:
        """How the time of an update divides, and what would change it: ``print(algo.profile(dataset))``."""
        return profile(self, dataset, seconds)

    def reset_optimizer_states(self) -> None:
        """Forget the moments and step counts of all optimizers."""
        for optim in self._built("reset_optimizer_states").optimizers().values():
            optim.reset()

    def predict(self, x: Any) -> np.ndarray:
        """Greedy actions for observations ``(batch, ...)``: ``(batch, action_size)`` or ``(batch,)`` integers."""
        return self._act(x, "predict")

    def sample_action(self, x: Any) -> np.ndarray:
        """Actions drawn from the policy, shaped as by ``predict``; greedy ones if the policy is deterministic."""
        with self.stream_ if self.impl is not None else nullcontext():
            return self._act(x, "sample_action")

    def _act(self, x: Any, method: str) -> np.ndarray:
        impl = self._built(method)
        with torch.no_grad():
            observations = self._observations(x)
            act: Callable[..., Tensor] = impl.best_action if method == "predict" else impl.sample_action
            actions = _in_eval_mode(impl, act, observations)
            if self.fitted_scalers_.action is not None:
                actions = self.fitted_scalers_.action.reverse_transform(actions)
        return actions.cpu().numpy()

    @available_if(_has_values)
    def predict_value(self, x: Any, action: Any, with_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Expected value ``(batch,)`` of actions, the mean of the critics, in units of scaled rewards.

        ``with_std`` adds their standard deviation, a measure of disagreement and not of confidence.
        """
        impl = self._built("predict_value")
        with torch.no_grad():
            observations = self._observations(x)
            actions = self._actions(action, len(observations))
            values = _in_eval_mode(impl, cast(Any, impl).value, observations, actions)  # (critics, batch)
            mean = values.mean(dim=0).cpu().numpy()
            return (mean, values.std(dim=0, correction=0).cpu().numpy()) if with_std else mean

    def _observations(self, x: Any) -> Tensor:
        """Scaled observations on the device."""
        array, shape = as_numbers("x", x), self.impl.observation_shape
        if array.shape[1:] != shape:
            hint = ": add a batch axis, x[None]" if array.shape == shape else ""
            needed = ", ".join(map(str, ("batch", *shape)))
            raise ValueError(f"x has the shape {array.shape}, {type(self).__name__} needs ({needed}){hint}")
        if len(shape) == 3 and array.dtype != np.uint8:
            raise ValueError(f"x holds images of {array.dtype}, they must be uint8 in [0, 255]")
        if len(shape) != 3 and not np.isfinite(array).all():
            raise ValueError(f"x has NaN or infinity in row {int(np.argmin(np.isfinite(array).all(axis=1)))}")
        tensor = to_tensor(array, np.uint8 if len(shape) == 3 else np.float32).to(self.impl.device)
        scaler = self.fitted_scalers_.observation
        return tensor if scaler is None else scaler.transform(tensor)

    def _actions(self, action: Any, n: int) -> Tensor:
        """Scaled actions on the device."""
        array = as_numbers("action", action)
        if self.action_space == "discrete":
            if array.size and array.dtype.kind not in "iu":
                raise ValueError(f"action must hold whole numbers of an integer type, got {array.dtype}")
            if array.shape != (n,) or (array.size and not (array.min() >= 0 and array.max() < self.impl.action_size)):
                raise ValueError(f"action must be {n} ids below {self.impl.action_size}, got the shape {array.shape}")
            return to_tensor(array, np.int64).to(self.impl.device)
        if array.shape != (n, self.impl.action_size):
            raise ValueError(f"action has the shape {array.shape}, it must be ({n}, {self.impl.action_size})")
        tensor, scaler = to_tensor(array, np.float32).to(self.impl.device), self.fitted_scalers_.action
        return tensor if scaler is None else scaler.transform(tensor)

    def set_params(self, **params: Any) -> Self:
        """Change hyper-parameters; on a built object they act on the next update.

        ``encoder_factory__hidden_units`` reaches into a factory or scaler, as in scikit-learn's searches. Raises
        ``ValueError`` for unknown names, values out of bounds, and, on a built object, for parameters that
        shape its networks.
        """
        declared = fields_of(type(self))
        changed: dict[str, Any] = {}
        for name, value in params.items():
            base = name.partition("__")[0]
            if base not in declared:
                raise ValueError(f"{type(self).__name__} has no parameter {base!r}.{nearest(base, list(declared))}")
            if base == name:
                value = as_declared(value, declared[name])
                check_value(type(self).__name__, name, value, declared[name])
            if self.impl is not None and declared[base].metadata.get("fixed"):
                raise ValueError(
                    f"{base} shapes what is built already: set it on sklearn.base.clone(algo), which is not built"
                )
            owner = changed.get(base, getattr(self, base))
            changed[base] = value if base == name else with_parameter(owner, name, value)
        if self.impl is not None and "precision" in changed:
            check_precision(changed["precision"], self.impl.device)
        for name, value in changed.items():
            setattr(self, name, value)
        if self.impl is not None:
            self.impl.refresh_learning_rates()
        return self

    def saved_params(self) -> dict[str, Any]:
        """The content of ``params.json``."""
        self._built("saved_params")
        return params_dict(self)

    @classmethod
    def from_json(cls, fname: str | os.PathLike[str], use_gpu: bool | int | str | Device = False) -> Self:
        """The built object that a ``params.json`` describes, scalers fitted, ready for ``load_model``."""
        return algo_from_params(cls, read_params(fname), use_gpu, str(fname))

    def save_model(self, fname: str | os.PathLike[str]) -> None:
        """Write networks, optimizers, scalers, counters and random states."""
        self._built("save_model")
        write_model(self, fname)

    def load_model(self, fname: str | os.PathLike[str]) -> None:
        """Read what ``save_model`` wrote, also into an object that is not built; nothing in the file is executed."""
        restore_model(self, read_model(fname), str(fname))

    @available_if(_has_greedy_actions)
    def save_policy(self, fname: str | os.PathLike[str], as_onnx: bool | None = None) -> None:
        """Write the greedy policy as TorchScript (``.pt``) or ONNX (``.onnx``), scalers inside.

        The file takes a batch of any size and is checked against ``predict`` before this returns. ``as_onnx`` is
        an argument of the 2020 documentation; the ending decides.
        """
        impl = self._built("save_policy")
        if as_onnx is not None:
            warn_old_name("as_onnx", "the ending of the file name decides, .pt or .onnx")
        export_policy(impl, self.fitted_scalers_, fname)

    def copy_policy_from(self, algo: Algo) -> None:
        """Copy the policy of another algorithm, target network included."""
        self._copy_from(algo, "policy", "copy_policy_from")

    def copy_q_function_from(self, algo: Algo) -> None:
        """Copy the Q functions of another algorithm, target networks included."""
        self._copy_from(algo, "q", "copy_q_function_from")

    def _copy_from(self, algo: Algo, what: str, method: str) -> None:
        mine, theirs = self._built(method), algo._built(method)
        names, their_names = getattr(mine, f"{what}_modules"), getattr(theirs, f"{what}_modules")
        for name, their_name in [
            (names[0], their_names[0]),
            *((n, n) for n in dict.fromkeys(names[2:] + their_names[2:])),
        ]:
            source, goal = getattr(theirs, their_name, None), getattr(mine, name, None)
            if source is None or goal is None:
                owner = algo if source is None else self
                raise ValueError(f"{type(owner).__name__} has no {name}, so {method} has nothing to copy")
            if repr(source) != repr(goal):  # the layers with their sizes and activations
                raise ValueError(
                    f"{method}: {name} of {type(self).__name__} and of {type(algo).__name__} are different networks:\n"
                    f"{goal!r}\nand {source!r}"
                )
        if self.fitted_scalers_.to_dict() != algo.fitted_scalers_.to_dict():
            warn_caller(f"{method}: {type(algo).__name__} has other scalers, and only weights are copied")
        source = getattr(theirs, their_names[0])
        getattr(mine, names[0]).load_state_dict(source.state_dict())
        if hasattr(mine, names[1]):
            getattr(mine, names[1]).load_state_dict(getattr(theirs, their_names[1], source).state_dict())
        for name in names[2:]:
            getattr(mine, name).load_state_dict(getattr(theirs, name).state_dict())
        noise, theirs_noise = (getattr(impl, "noise", None) for impl in (mine, theirs))
        if what == "policy" and noise is not None and theirs_noise is not None and noise.shape == theirs_noise.shape:
            noise.copy_(theirs_noise)


def _in_eval_mode(impl: AlgorithmImpl, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call in evaluation mode, also from a callback in the middle of training."""
    if not impl.training:
        return function(*inputs)
    impl.eval()
    try:
        return function(*inputs)
    finally:
        impl.train()

"""One hyper-parameter, one line: constructor, help, bounds, ``params.json`` and tests derive from it.

``hp(default, "meaning", low=, high=)`` declares a parameter in the body of an estimator, ``@algorithm``
turns the class into a keyword-only dataclass, documents it and enters it in ``ALGORITHMS``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, dataclass_transform

from .dataset.validation import warn_caller
from .registry import nearest, with_parameter

ALGORITHMS: dict[str, Any] = {}
"""Every algorithm by the snake-case name of its paper."""

Class = TypeVar("Class", bound=type)


def hp(
    default: Any,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    options: tuple[Any, ...] | None = None,
    fixed: bool = False,
) -> Any:
    """Declare a hyper-parameter.

    Parameters
    ----------
    default : immutable default value.
    help : its meaning, with its unit if it has one; a child class that only changes the default leaves it out.
    low, high : smallest and largest allowed value, both included.
    options : the allowed values, where they can be listed.
    fixed : it shapes the networks, so it can't change once they exist.
    """
    given = {"help": help, "low": low, "high": high, "options": options, "fixed": fixed or None}
    return dataclasses.field(default=default, metadata={k: v for k, v in given.items() if v not in (None, "")})


def snake_case(name: str) -> str:
    """``TD3PlusBC`` -> ``td3_plus_bc``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


@dataclass_transform(kw_only_default=True, field_specifiers=(hp, dataclasses.field))
def hyperparameters(cls: Class) -> Class:
    """Make ``cls`` a keyword-only dataclass that rejects unknown names and documents its parameters."""
    for name, field in vars(cls).copy().items():
        if isinstance(field, dataclasses.Field):
            inherited: Mapping[str, Any] = next(
                (fields_of(b)[name].metadata for b in cls.__mro__[1:] if name in fields_of(b)), {}
            )
            field.metadata = MappingProxyType({**inherited, **field.metadata})
    doc = cls.__doc__
    cls = dataclasses.dataclass(kw_only=True, repr=False, eq=False)(cls)  # type: ignore[assignment]
    init = cls.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def checked_init(self: Any, **given: Any) -> None:
        init(self, **translate(type(self), given))

    cls.__init__ = checked_init  # type: ignore[misc]
    cls.__doc__ = inspect.cleandoc(doc or "") + "\n\n" + describe(cls)
    return cls


@dataclass_transform(kw_only_default=True, field_specifiers=(hp, dataclasses.field))
def algorithm(cls: Class) -> Class:
    """``hyperparameters`` for a class that users train: it also joins ``ALGORITHMS``."""
    cls = hyperparameters(cls)
    ALGORITHMS[snake_case(cls.__name__)] = cls
    return cls


def fields_of(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Declared hyper-parameters of a class by name, an empty dictionary if it has none."""
    return {f.name: f for f in dataclasses.fields(cls) if f.init} if dataclasses.is_dataclass(cls) else {}


def type_name(field: dataclasses.Field[Any]) -> str:
    """The annotation as it is written, also where the module evaluates its annotations."""
    return field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))


def describe(cls: type) -> str:
    """The generated ``Parameters`` section."""
    lines = ["Parameters", "----------"]
    for name, field in fields_of(cls).items():
        meta = field.metadata
        limits = [f"at least {meta['low']}"] if "low" in meta else []
        limits += [f"at most {meta['high']}"] if "high" in meta else []
        limits += [f"one of {meta['options']}"] if "options" in meta else []
        limits += ["fixed once the networks exist"] if meta.get("fixed") else []
        lines.append(f"{name} : {type_name(field)}, default {field.default!r}")
        lines.append(f"    {meta.get('help', '')}" + (f" ({', '.join(limits)})" if limits else "") + ".")
    return "\n".join(lines)


def check_value(owner: str, name: str, value: Any, field: dataclasses.Field[Any]) -> None:
    """Raise if ``value`` has the wrong type or lies outside the declared bounds."""
    meta = field.metadata
    kind = type_name(field)
    if value is not None and ("low" in meta or "high" in meta):
        kind = kind.removesuffix(" | None")
    if kind in ("int", "float"):
        number = isinstance(value, (int, float)) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)
        whole = number and float(value).is_integer()
        if not number or isinstance(value, bool) or (kind == "int" and not whole):
            wanted = "a whole number" if kind == "int" else "a number"
            raise ValueError(f"{owner}: {name} must be {wanted}, got {value!r}")
        if not (meta.get("low", -float("inf")) <= value <= meta.get("high", float("inf"))) or math.isinf(value):
            bounds = f"[{meta.get('low', '-inf')}, " + (f"{meta['high']}]" if "high" in meta else "inf)")
            raise ValueError(f"{owner}: {name}={value!r} is out of bounds, it must lie in {bounds}")
    if kind == "bool" and not isinstance(value, bool):
        raise ValueError(f"{owner}: {name} must be True or False, got {value!r}")
    if "options" in meta and value not in meta["options"]:
        raise ValueError(f"{owner}: {name}={value!r} is unknown, it must be one of {list(meta['options'])}")


def check_hyperparameters(estimator: Any) -> None:
    """Check every hyper-parameter of an estimator against its declaration; training starts with this."""
    for name, field in fields_of(type(estimator)).items():
        check_value(type(estimator).__name__, name, getattr(estimator, name), field)


# Names of the 2020 documentation. A value that is a tuple (x, ...) lists the values that ask for nothing
# and can be dropped; a string is the new name; a function gives the new parameters.


def _with_params(
    cls: type, ending: str, type_: str, params: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Every factory of ``cls`` whose name ends so, as the dictionary form that registries understand."""
    changed = {}
    for name in fields_of(cls):
        if name.endswith(ending):
            before = given.get(name, {})
            before = before if isinstance(before, dict) else {}
            kind = type_ if before.get("type", "default") == "default" else before["type"]
            changed[name] = {"type": kind, "params": {**before.get("params", {}), **params}}
    return changed


def _encoder_params(cls: type, value: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    kind = "pixel" if {"filters", "feature_size"} & set(value) else "vector"
    return _with_params(cls, "encoder_factory", kind, value, given) if value else {}


def _use_batch_norm(cls: type, value: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    return _with_params(cls, "encoder_factory", "default", {"use_batch_norm": value}, given)


def _eps(cls: type, value: float, given: Mapping[str, Any]) -> dict[str, Any]:
    return _with_params(cls, "optim_factory", "adam", {"eps": value}, given)


def _momentum(cls: type, value: float, given: Mapping[str, Any]) -> dict[str, Any]:
    return _with_params(cls, "optim_factory", "sgd", {"momentum": value}, given)


def _actor_weight_decay(cls: type, value: float, given: Mapping[str, Any]) -> dict[str, Any]:
    return _with_params(cls, "actor_optim_factory", "adam", {"weight_decay": value}, given)


def _q_func_option(option: str) -> Callable[..., dict[str, Any]]:
    """The rule for an option that is now one of the Q function factory; it joins a factory that is given."""

    def rule(cls: type, value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        if value is not True or "q_func_factory" not in fields_of(cls):
            return {}
        before = given.get("q_func_factory", fields_of(cls)["q_func_factory"].default)
        if isinstance(before, str):
            before = {"type": before}
        if not isinstance(before, dict):
            return {"q_func_factory": with_parameter(before, f"q_func_factory__{option}", value)}
        return {"q_func_factory": {**before, "params": {**before.get("params", {}), option: value}}}

    return rule


JOINING = ("bootstrap", "share_encoder")
"""Old names that add to a factory, which may itself come from another old name: so they are translated last."""

OLD_NAMES: dict[str, Any] = {
    "q_func_type": "q_func_factory",
    "encoder_params": _encoder_params,
    "use_batch_norm": _use_batch_norm,
    "eps": _eps,
    "momentum": _momentum,
    "actor_weight_decay": _actor_weight_decay,
    "share_encoder": _q_func_option("share_encoder"),
    "bootstrap": _q_func_option("bootstrap"),
    "augmentation": (None, [], ()),
    "n_augmentations": (1,),
    "dynamics": (None,),
    "reguralizing_rate": (0, 1e-10),
    "rl_start_epoch": (0,),
    "impl": (None,),
}


def warn_old_name(old: str, new: str) -> None:
    """The one warning about a name of the 2020 documentation."""
    warn_caller(f"{old!r} is a name of the 2020 documentation and will go away with version 1.0: {new}", FutureWarning)


def as_declared(value: Any, field: dataclasses.Field[Any]) -> Any:
    """A whole float where a whole number is declared becomes one; anything else stays the same object."""
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole and type_name(field) == "int" else value


def _refuse_both(cls: type, old: str, new: Iterable[str], given: Mapping[str, Any]) -> None:
    both = [name for name in new if name in given]
    if both:
        raise TypeError(f"{cls.__name__} got {old!r}, a name of the 2020 documentation, together with {both}: give one")


def translate(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the constructor knows them; old names are replaced, unknown ones raise ``TypeError``."""
    known = fields_of(cls)
    result = {name: as_declared(value, known[name]) for name, value in given.items() if name in known}
    for name, value in sorted(given.items(), key=lambda item: item[0] in JOINING):
        if name in known:
            continue
        rule = OLD_NAMES.get(name)
        if isinstance(rule, tuple) and any(type(value) is type(r) and value == r for r in rule):
            warn_old_name(name, f"leave it out, {value!r} asks for nothing")
        elif isinstance(rule, str) and rule in known:
            _refuse_both(cls, name, [rule], given)
            warn_old_name(name, f"write {rule}={value!r}")
            result[rule] = value
        elif callable(rule) and (new := rule(cls, value, result)):
            if name not in JOINING:
                _refuse_both(cls, name, new, given)
            warn_old_name(name, "write " + ", ".join(f"{k}={v!r}" for k, v in new.items()))
            result.update(new)
        elif callable(rule) and (value == {} or value is False):
            warn_old_name(name, f"leave it out, {value!r} asks for nothing")
        else:
            hint = nearest(name, list(known))
            raise TypeError(f"{cls.__name__} has no parameter {name!r}.{hint} It has {sorted(known)}")
    return result

"""Names and classes of everything that a user picks by a string: encoders, Q functions, scalers.

A registered class is a dataclass whose fields are its parameters, or has none, so that one object is one small
dictionary ``{"type": name, "params": {...}}``, which is what ``params.json`` holds.
"""

from __future__ import annotations

import difflib
import inspect
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar, cast


def nearest(word: str, words: list[str]) -> str:
    """`` Did you mean 'x'?`` with the most similar of ``words``, or an empty string."""
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""


def to_plain(value: Any) -> Any:
    """``value`` as JSON can hold it: tuples, arrays and tensors become lists, their scalars Python numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    return value


def type_of(cls: type) -> str:
    """The ``TYPE`` of a class; ``TypeError`` if it has none."""
    name = getattr(cls, "TYPE", None)
    if not isinstance(name, str):
        raise TypeError(f"{cls.__name__} needs a class attribute TYPE, the name it is chosen by")
    return name


def parameter_names(cls: type) -> list[str]:
    """What the constructor of ``cls`` takes: the fields of a dataclass, nothing for a class without parameters.

    Raises
    ------
    TypeError
        For any other class, of whose objects the parameters can't be known.
    """
    if is_dataclass(cls):
        return [f.name for f in fields(cls) if f.init]
    if inspect.signature(cls).parameters:
        raise TypeError(f"{cls.__name__} must be a dataclass, so that its fields are its parameters")
    return []


class Configurable:
    """Something known by a name: a dataclass, whose fields are its parameters, or a class without parameters."""

    TYPE: ClassVar[str]

    def get_type(self) -> str:
        """The name under which the class is registered."""
        return type_of(type(self))

    def get_params(self, deep: bool = False) -> dict[str, Any]:
        """Parameters by name, ready for the constructor of an equal object.

        ``deep`` is there for scikit-learn; parameters hold no further parameters.
        """
        return {name: getattr(self, name) for name in parameter_names(type(self))}

    def to_dict(self) -> dict[str, Any]:
        """``{"type": ..., "params": ...}`` with plain JSON values."""
        return {"type": self.get_type(), "params": to_plain(self.get_params())}


T = TypeVar("T", bound=Configurable)


class Registry(Generic[T]):
    """Table of the classes of one kind.

    Parameters
    ----------
    kind : what the classes are, for error messages ("encoder factory").
    base : the class that all of them derive from.
    """

    def __init__(self, kind: str, base: type[T]):
        self.kind = kind
        self.base = base
        self.classes: dict[str, type[T]] = {}

    def register(self, cls: type[T]) -> type[T]:
        """Enter ``cls`` under its ``TYPE``; usable as a decorator.

        A class of the same module and name is replaced, so that a notebook cell can run twice.
        """
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise TypeError(f"{cls!r} is no {self.kind}: it must be a class derived from {self.base.__name__}")
        name = type_of(cls)
        parameter_names(cls)
        known = self.classes.get(name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"the {self.kind} name {name!r} already belongs to {known.__name__}")
        self.classes[name] = cls
        return cls

    def create(self, name: str, **params: Any) -> T:
        """Object of the class known as ``name``."""
        if name not in self.classes:
            known = sorted(self.classes)
            raise ValueError(f"no {self.kind} is called {name!r}; known are {known}.{nearest(name, known)}")
        return self.classes[name](**params)

    def resolve(self, value: str | dict[str, Any] | T) -> T:
        """The object that ``value`` means: itself, a name, or the dictionary of ``Configurable.to_dict``."""
        if isinstance(value, self.base):
            return value
        if isinstance(value, str):
            return self.create(value)
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            return self._from_dict(value["type"], value)
        raise TypeError(
            f"expected an object of the kind {self.kind}, its name (one of {sorted(self.classes)}) "
            f"or a dictionary with 'type' and 'params', got {value!r}"
        )

    def _from_dict(self, name: str, value: dict[str, Any]) -> T:
        others = sorted(str(key) for key in value if key not in ("type", "params"))
        if others:
            raise TypeError(
                f"the dictionary of the {self.kind} {name!r} has the keys {others} besides 'type' and 'params': "
                "parameters belong into 'params'"
            )
        params = value.get("params", {})
        if not isinstance(params, dict):
            raise TypeError(f"'params' of the {self.kind} {name!r} must be a dictionary, got {params!r}")
        return self.create(name, **params)


def with_parameter(owner: Any, name: str, value: Any) -> Any:
    """A copy of a factory or scaler with one parameter changed; ``name`` is ``owner__parameter``."""
    base, _, inner = name.partition("__")
    if not isinstance(owner, Configurable) or inner not in owner.get_params():
        raise ValueError(f"{name} can't be set, because {base}={owner!r} has no parameter {inner!r}: give an object")
    return replace(cast(Any, owner), **{inner: value})

"""Names and classes of everything that a user picks by a string: encoders, Q functions, scalers.

A registered class is a dataclass whose fields are its parameters, so that one object is one small
dictionary ``{"type": name, "params": {...}}``, which is what ``params.json`` holds.
"""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np


def nearest(word: str, words: list[str]) -> str:
    """`` Did you mean 'x'?`` with the most similar of ``words``, or an empty string."""
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""


def to_plain(value: Any) -> Any:
    """``value`` as JSON can hold it: tuples and arrays become lists, numpy scalars Python numbers."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    return value


class Configurable:
    """A dataclass that is known by a name: its fields are its parameters."""

    TYPE: ClassVar[str]

    def get_type(self) -> str:
        """The name under which the class is registered."""
        return self.TYPE

    def get_params(self, deep: bool = False) -> dict[str, Any]:
        """Parameters by name, ready for the constructor of an equal object.

        ``deep`` is there for scikit-learn; parameters hold no further parameters.
        """
        if not is_dataclass(self):
            raise TypeError(f"{type(self).__name__} must be a dataclass, so that its fields are its parameters")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

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
        """Enter ``cls`` under its ``TYPE``; usable as a decorator."""
        name = getattr(cls, "TYPE", None)
        if not isinstance(name, str):
            raise TypeError(f"{cls.__name__} needs a class attribute TYPE, the name it is chosen by")
        if self.classes.get(name, cls) is not cls:
            raise ValueError(f"the {self.kind} name {name!r} already belongs to {self.classes[name].__name__}")
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
        if isinstance(value, dict) and "type" in value:
            return self.create(value["type"], **value.get("params", {}))
        raise TypeError(
            f"expected a {self.kind}, its name (one of {sorted(self.classes)}) "
            f"or a dictionary with 'type' and 'params', got {value!r}"
        )

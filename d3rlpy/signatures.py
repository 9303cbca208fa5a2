"""One signature for several methods, written down once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from .registry import nearest

P = ParamSpec("P")
R = TypeVar("R")


def same_arguments(
    function: Callable[Concatenate[Any, P], Any],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """A method takes the arguments of ``function``, for readers, editors and type checkers alike."""

    def decorate(method: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        names = [p.name for p in parameters[1:]]

        @functools.wraps(method)
        def checked(self: Any, *args: Any, **kwargs: Any) -> R:
            where = f"{type(self).__name__}.{method.__name__}"
            for name in kwargs:
                if name not in names:
                    raise TypeError(f"{where} has no argument {name!r}.{nearest(name, names)} It has {names}")
            try:
                signature.bind(self, *args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{where}: {error}") from None
            return method(self, *args, **kwargs)

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        checked.__signature__ = inspect.Signature([own, *parameters[1:]])  # type: ignore[attr-defined]
        checked.__doc__ = f"{method.__doc__}\n\n{_from_parameters(function)}"
        return checked

    return decorate


def _from_parameters(function: Callable[..., Any]) -> str:
    doc = inspect.getdoc(function) or ""
    return doc[doc.index("Parameters\n---") :]

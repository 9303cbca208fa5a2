"""One signature for several methods, written down once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def same_arguments(
    function: Callable[Concatenate[Any, P], Any],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """A method takes the arguments of ``function``, for readers, editors and type checkers alike."""

    def decorate(method: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        parameters = list(inspect.signature(function).parameters.values())
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        method.__signature__ = inspect.Signature([own, *parameters[1:]])  # type: ignore[attr-defined]
        method.__doc__ = f"{method.__doc__}\n\n{_from_parameters(function)}"
        return method

    return decorate


def _from_parameters(function: Callable[..., Any]) -> str:
    doc = inspect.getdoc(function) or ""
    return doc[doc.index("Parameters\n---") :]

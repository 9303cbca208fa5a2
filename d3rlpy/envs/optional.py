"""Packages that only some wrappers need."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def require(module: str, package: str, extra: str, owner: str) -> Any:
    """The imported ``module``.

    Raises
    ------
    ModuleNotFoundError
        When it isn't there; the message names the package, and the extra of this library that brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, but lacks something itself
            raise
        raise ModuleNotFoundError(
            f"{owner} needs {package}: pip install {package}, or install this library with its extra [{extra}]",
            name=module,
        ) from error

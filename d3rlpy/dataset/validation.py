"""What the user's arrays must look like, and their conversion to the types that are stored.

Every function takes the argument's name, because every error names it. Arrays that already have the right
type and are contiguous come back as they are, not copied; nothing here ever writes into them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

CHUNK = 1 << 20  # elements looked at in one go, so that checks need little memory
FLOAT32_MAX = float(np.finfo(np.float32).max)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the nearest line outside this library: the line that can be changed."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "d3rlpy":
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


def check_limit(name: str, value: Any) -> None:
    """Refuse a limit that is neither None nor a number that float32 can hold."""
    number = isinstance(value, (int, float, np.integer, np.floating))
    if value is not None and not (number and abs(value) <= FLOAT32_MAX):  # false for NaN
        raise ValueError(f"{name} must be a finite number within float32, or None for an open side, got {value!r}")


def row_chunks(array: np.ndarray) -> Iterator[slice]:
    """Slices over the rows of ``array``, each of about ``CHUNK`` elements."""
    step = max(1, CHUNK // max(1, array[:1].size))
    for start in range(0, len(array), step):
        yield slice(start, start + step)


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Refuse what is not an integer from ``low`` to ``high``."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {limits}, got {value!r}")


def as_array(name: str, value: Any) -> np.ndarray:
    """``value`` as an array; an error if that would bring masked values to light."""
    if np.ma.is_masked(value):
        raise ValueError(
            f"{name} is a masked array with masked values: fill them with .filled(value), or leave out their rows"
        )
    try:
        return np.asarray(value)
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name} must be an array with rows of equal shape: {error}") from error
    except (TypeError, RuntimeError) as error:  # a tensor that needs a gradient, a type or device unknown to numpy
        raise TypeError(
            f"{name} cannot be read as an array ({error}): pass tensors as x.detach().float().cpu().numpy()"
        ) from error


def as_numbers(name: str, value: Any) -> np.ndarray:
    """``value`` as an array of numbers with at least one axis."""
    array = as_array(name, value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{name} must have one row for each time step, got a single number")
    return array


def check_finite(name: str, array: np.ndarray) -> None:
    """Refuse NaN and infinities, naming the first row that has one."""
    if array.dtype.kind != "f":
        return
    for part in row_chunks(array):
        finite = np.isfinite(array[part])
        if not finite.all():
            row = part.start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
            raise ValueError(
                f"{name} has NaN, an infinity or a number too large for float32 in row {row}: "
                "remove or repair such rows first"
            )


def to_float32(name: str, array: np.ndarray) -> np.ndarray:
    """Contiguous float32, checked to be finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    check_finite(name, array)
    return array


def check_length(name: str, array: np.ndarray, n_rows: int) -> None:
    if len(array) != n_rows:
        raise ValueError(
            f"{name} has {len(array)} rows and observations has {n_rows}: each array needs a row a time step"
        )


def to_observations(name: str, value: Any) -> np.ndarray:
    """``(N, D)`` float32 or ``(N, C, H, W)`` uint8."""
    array = as_numbers(name, value)
    if len(array) == 0:
        raise ValueError(f"{name} is empty: a data set needs at least one row")
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: an observation needs at least one number")
    if array.ndim == 4:
        if array.dtype != np.uint8:
            raise ValueError(
                f"{name} has shape {array.shape} and dtype {array.dtype}, but images must be uint8: multiply "
                "values of [0, 1] by 255 and convert with .astype(np.uint8); flatten rows that are no images"
            )
        return np.ascontiguousarray(array)
    if array.ndim == 2:
        return to_float32(name, array)
    cure = {
        1: "for one number a row use .reshape(-1, 1)",
        3: "images need a channel axis, (N, C, H, W): for grey ones use observations[:, None]",
    }.get(array.ndim, "flatten each row to a vector")
    raise ValueError(f"{name} must be vectors (N, D) or uint8 images (N, C, H, W), got {array.shape}: {cure}")


def to_scalars(name: str, value: Any, n_rows: int) -> np.ndarray:
    """One number a row, ``(N,)`` float32; ``(N, 1)`` is accepted."""
    array = as_numbers(name, value)
    check_length(name, array, n_rows)
    if array.size != n_rows:
        raise ValueError(f"{name} must have shape ({n_rows},), one number a row, got {array.shape}")
    return to_float32(name, array.reshape(-1))


def to_flags(name: str, value: Any, n_rows: int) -> np.ndarray:
    """One flag a row, ``(N,)`` bool; 0 and 1 of any number type and ``(N, 1)`` are accepted."""
    array = as_numbers(name, value)
    check_length(name, array, n_rows)
    if array.size != n_rows:
        raise ValueError(f"{name} must have shape ({n_rows},), one flag a row, got {array.shape}")
    array = array.reshape(-1)
    if array.dtype != np.bool_:
        wrong = (array != 0) & (array != 1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"{name} must be 0 or 1, got {array[row]} in row {row}")
    return np.ascontiguousarray(array, dtype=np.bool_)


def first_fraction(array: np.ndarray) -> int | None:
    """The first row that holds a number which is not whole, None if all are whole."""
    for part in row_chunks(array):
        rows = array[part].reshape(len(array[part]), -1)
        with np.errstate(invalid="ignore"):
            fraction = ~(rows == np.rint(rows)).all(axis=1)
        if fraction.any():
            return int(part.start + np.argmax(fraction))
    return None


def to_ids(array: np.ndarray, action_size: int | None, least_size: int) -> tuple[np.ndarray, int]:
    """Discrete actions ``(N,)`` int32 or int64, and how many there are, at least ``least_size``."""
    if array.size != len(array):
        raise ValueError(
            f"discrete actions must have shape ({len(array)},), one id a row, got {array.shape}; for "
            "continuous actions pass floats or discrete_action=False"
        )
    array = array.reshape(-1)
    if array.dtype.kind == "f":
        row = first_fraction(array)
        if row is not None:
            raise ValueError(f"discrete actions are whole numbers, but actions has {array[row]} in row {row}")
    low, high = int(array.min()), int(array.max())
    if low < 0:
        row = int(np.argmax(array < 0))
        raise ValueError(f"actions has the id {array[row]} in row {row}: ids start at 0")
    if high > np.iinfo(np.int64).max:
        row = int(np.argmax(array))
        raise ValueError(f"actions has the id {array[row]} in row {row}: too large for int64")
    if array.dtype not in (np.int32, np.int64):
        wide = array.dtype.itemsize > 4 or (array.dtype.kind in "fu" and array.dtype.itemsize == 4)
        array = array.astype(np.int64 if wide else np.int32)
    if action_size is not None and high >= action_size:
        row = int(np.argmax(array >= action_size))
        raise ValueError(
            f"actions has the id {array[row]} in row {row}, but action_size={action_size}: "
            f"ids must be below it; action_size must be at least {high + 1}"
        )
    if action_size is None:
        if high >= least_size:
            warn_if_sparse(array, high)
        action_size = max(high + 1, least_size)
    return np.ascontiguousarray(array), action_size


def warn_if_sparse(ids: np.ndarray, high: int) -> None:
    """Warn if most ids up to the largest, ``high``, never occur: names or hashes rather than numbers from 0."""
    if high < 1000:
        return
    count = len(np.unique(ids))
    if high >= 2 * count:
        warn_caller(
            f"the largest id is {high}, but only {count} ids occur: networks get one output for each id up to the "
            "largest; number them anew with np.unique(actions, return_inverse=True), or pass action_size= to "
            "silence this"
        )


def to_vectors(array: np.ndarray, action_size: int | None) -> tuple[np.ndarray, int]:
    """Continuous actions ``(N, A)`` float32, and A."""
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"continuous actions must have shape (N, action_size), got {array.shape}")
    if action_size is not None and array.shape[1] != action_size:
        raise ValueError(f"actions has {array.shape[1]} numbers a row, but action_size={action_size}")
    return to_float32("actions", array), array.shape[1]


def to_actions(
    value: Any, n_rows: int, discrete_action: bool | None, action_size: int | None, least_size: int = 0
) -> tuple[np.ndarray, bool, int]:
    """Actions as stored, whether they are discrete, and their size.

    Integers are ids of discrete actions, floats are continuous, unless ``discrete_action`` says otherwise.
    Where ``action_size`` is not given, there are at least ``least_size`` discrete ones.
    """
    array = as_numbers("actions", value)
    check_length("actions", array, n_rows)
    if action_size is not None:
        check_whole("action_size", action_size, 1)
    if array.dtype.kind == "f":
        check_finite("actions", array)
        if discrete_action is None and first_fraction(array) is None:
            warn_caller(
                "actions are floats and all of them whole numbers: taken as continuous; pass "
                "discrete_action=True if they are ids, or discrete_action=False to silence this"
            )
    discrete = array.dtype.kind in "iub" if discrete_action is None else bool(discrete_action)
    actions, size = to_ids(array, action_size, least_size) if discrete else to_vectors(array, action_size)
    return actions, discrete, int(size)


def to_columns(
    columns: Mapping[str, Any] | None, n_rows: int, discrete_action: bool, action_size: int
) -> dict[str, np.ndarray]:
    """Named columns, each with one row a time step; the known names are held to their meaning."""
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise ValueError(f"columns must be a dictionary of arrays by name, got {type(columns).__name__}")
    result = {}
    for name, value in columns.items():
        if not isinstance(name, str) or not name.strip(".") or "/" in name or "\0" in name:  # not legal in HDF5
            raise ValueError(
                f"columns: a name must be a string without '/' or null bytes, and not only dots, got {name!r}"
            )
        label = f"columns[{name!r}]"
        if name in ("discount", "behavior_log_prob"):
            array = to_scalars(label, value, n_rows)
        elif name == "action_mask":
            array = to_mask(label, value, n_rows, discrete_action, action_size)
        else:
            array = as_numbers(label, value)
            check_length(label, array, n_rows)
            array = to_float32(label, array) if array.dtype.kind == "f" else np.ascontiguousarray(array)
        if name == "discount" and not ((array >= 0) & (array <= 1)).all():
            row = int(np.argmax((array < 0) | (array > 1)))
            raise ValueError(f"{label} must lie in [0, 1], got {array[row]} in row {row}")
        result[name] = array
    return result


def to_mask(label: str, value: Any, n_rows: int, discrete_action: bool, action_size: int) -> np.ndarray:
    """Which actions were possible, ``(N, action_size)`` bool."""
    array = as_numbers(label, value)
    check_length(label, array, n_rows)
    if not discrete_action or array.shape != (n_rows, action_size):
        raise ValueError(
            f"{label} is for discrete actions and has shape (N, action_size), here "
            f"({n_rows}, {action_size}), got {array.shape}"
        )
    return to_flags(label, array.reshape(-1), array.size).reshape(array.shape)

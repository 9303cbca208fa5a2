"""Bad input: every message names the argument, the value or row, and the cure."""

import warnings

import numpy as np
import pytest
import torch

from d3rlpy.dataset import MDPDataset

from .generated import flags

GOOD = {
    "observations": np.zeros((5, 3), np.float32),
    "actions": np.array([0, 1, 0, 1, 0]),
    "rewards": np.zeros(5, np.float32),
    "terminals": flags(5, 4),
}


def spoiled(name, row, value, kind=np.float32):
    array = GOOD[name].astype(kind)
    array[row] = value
    return {name: array}


BAD = {
    "shorter actions": ({"actions": [0, 1]}, "actions has 2 rows and observations has 5"),
    "longer rewards": ({"rewards": np.zeros(6)}, "rewards has 6 rows and observations has 5"),
    "shorter terminals": ({"terminals": [1]}, "terminals has 1 rows and observations has 5"),
    "shorter timeouts": ({"timeouts": [1]}, "timeouts has 1 rows and observations has 5"),
    "shorter successors": ({"next_observations": np.zeros((4, 3))}, "next_observations has 4 rows"),
    "shorter column": ({"columns": {"x": [1]}}, r"columns\['x'\] has 1 rows"),
    "other successors": (
        {"next_observations": np.zeros((5, 2))},
        "next_observations must be like observations",
    ),
    "nan observation": (
        spoiled("observations", 3, np.nan),
        "observations has NaN.* in row 3: remove or repair",
    ),
    "infinite reward": (spoiled("rewards", 1, np.inf), "rewards has NaN, an infinity .* in row 1"),
    "nan action": ({"actions": np.array([0.5, np.nan, 0, 0, 0])}, "actions has NaN.* in row 1"),
    "nan successor": ({"next_observations": np.full((5, 3), np.nan)}, "next_observations has NaN.* in row 0"),
    "nan flag": ({"terminals": [0, 0, np.nan, 0, 1]}, "terminals must be 0 or 1, got nan in row 2"),
    "nan column": ({"columns": {"x": [0, 0, 0, 0, np.nan]}}, r"columns\['x'\] has NaN.* in row 4"),
    "too large": (spoiled("rewards", 2, 1e300, np.float64), "too large for float32 in row 2"),
    "flag of 2": ({"terminals": [0, 2, 0, 0, 1]}, "terminals must be 0 or 1, got 2 in row 1"),
    "timeout of -1": ({"timeouts": [0, 0, -1, 0, 0]}, "timeouts must be 0 or 1, got -1 in row 2"),
    "wide rewards": ({"rewards": np.zeros((5, 2))}, r"rewards must have shape \(5,\), one number a row"),
    "wide terminals": ({"terminals": np.zeros((5, 2))}, r"terminals must have shape \(5,\), one flag a row"),
    "float images": (
        {"observations": np.zeros((5, 1, 8, 8))},
        "images must be uint8: multiply .* by 255 and convert",
    ),
    "grey images": (
        {"observations": np.zeros((5, 8, 8), np.uint8)},
        r"\(N, C, H, W\): for grey ones use observations",
    ),
    "plain numbers": ({"observations": np.zeros(5)}, r"for one number a row use .reshape\(-1, 1\)"),
    "five axes": ({"observations": np.zeros((5, 1, 1, 1, 1))}, "flatten each row to a vector"),
    "no numbers a row": ({"observations": np.zeros((5, 0))}, "an observation needs at least one number"),
    "no rows": ({name: array[:0] for name, array in GOOD.items()}, "observations is empty"),
    "text": ({"observations": [["a"]] * 5}, "observations must hold numbers, got dtype"),
    "objects": ({"rewards": [None] * 5}, "rewards must hold numbers, got dtype object"),
    "ragged": (
        {"observations": [[1.0], [1.0, 2.0]]},
        "observations must be an array with rows of equal shape",
    ),
    "a single number": ({"rewards": 1.0}, "rewards must have one row for each time step"),
    "fractional ids": (
        {"actions": [0.0, 1.0, 1.5, 0.0, 0.0], "discrete_action": True},
        "discrete actions are whole numbers, but actions has 1.5 in row 2",
    ),
    "negative id": ({"actions": [0, 1, -1, 0, 0]}, "actions has the id -1 in row 2: ids start at 0"),
    "id too large": ({"actions": [0, 1, 5, 0, 0], "action_size": 3}, "the id 5 in row 2, but action_size=3"),
    "vectors of ids": (
        {"actions": np.zeros((5, 2), int)},
        r"one id a row, got \(5, 2\); for continuous actions pass",
    ),
    "wrong action size": (
        {"actions": np.full((5, 2), 0.5), "action_size": 3},
        "2 numbers a row, but action_size=3",
    ),
    "unsigned id too large": (
        {"actions": np.array([0, 2**64 - 1, 0, 0, 0], np.uint64)},
        "actions has the id 18446744073709551615 in row 1: too large for int64",
    ),
    "float id too large": (
        {"actions": [0.0, 0.0, 1e30, 0.0, 0.0], "discrete_action": True},
        r"actions has the id 1e\+30 in row 2: too large for int64",
    ),
    "masked observations": (
        {"observations": np.ma.masked_equal([[1.0], [2.0], [-1.0], [3.0], [4.0]], -1)},
        r"observations is a masked array with masked values: .* leave out their rows",
    ),
    "masked rewards": ({"rewards": np.ma.masked_equal([1.0, 2, 3, 4, 5], 3)}, "rewards is a masked array"),
    "masked column": ({"columns": {"x": np.ma.masked_equal([1, 2, 3, 4, 5], 3)}}, r"columns\['x'\] is a masked"),
    "action size zero": ({"action_size": 0}, "action_size must be a whole number of at least 1, got 0"),
    "action size 1.5": ({"action_size": 1.5}, "action_size must be a whole number of at least 1, got 1.5"),
    "action size nan": ({"action_size": np.nan}, "action_size must be a whole number of at least 1, got nan"),
    "action size text": ({"action_size": "abc"}, "action_size must be a whole number of at least 1, got 'abc'"),
    "action size list": ({"action_size": [2]}, r"action_size must be a whole number of at least 1, got \[2\]"),
    "list of columns": ({"columns": [1, 2]}, "columns must be a dictionary of arrays by name, got list"),
    "actions of three axes": (
        {"actions": np.full((5, 2, 2), 0.5)},
        r"must have shape \(N, action_size\), got",
    ),
    "column without a name": ({"columns": {"": np.zeros(5)}}, "a name must be a string without '/'"),
    "column with a path": ({"columns": {"a/b": np.zeros(5)}}, "a name must be a string without '/'"),
    "column named dot": ({"columns": {".": np.zeros(5)}}, "and not only dots, got '.'"),
    "column with a null byte": ({"columns": {"a\0b": np.zeros(5)}}, r"or null bytes.*, got 'a\\x00b'"),
    "discount above 1": (
        {"columns": {"discount": [1, 1, 2, 1, 1]}},
        r"must lie in \[0, 1\], got 2.0 in row 2",
    ),
    "mask of another width": ({"columns": {"action_mask": np.ones((5, 3))}}, r"here \(5, 2\), got \(5, 3\)"),
    "mask of 2": ({"columns": {"action_mask": np.full((5, 2), 2)}}, "must be 0 or 1, got 2 in row 0"),
    "no transition": (
        {name: array[:1] for name, array in GOOD.items()} | {"terminals": [0], "timeouts": [1]},
        "the data hold no transition: .* give next_observations",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        MDPDataset(**(GOOD | arguments))


def test_the_good_input_is_good():
    assert MDPDataset(**GOOD).report.transitions == 5


def test_further_arrays_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        MDPDataset(*GOOD.values(), np.zeros(5))


def test_a_masked_array_without_masked_values_is_an_array():
    assert MDPDataset(**(GOOD | {"rewards": np.ma.array(np.ones(5))})).rewards.tolist() == [1] * 5


@pytest.mark.parametrize(
    "tensor", [torch.zeros(5, requires_grad=True), torch.zeros(5, dtype=torch.bfloat16)], ids=["with grad", "bfloat16"]
)
def test_a_tensor_that_numpy_cannot_read_is_named(tensor):
    message = r"rewards cannot be read as an array \(.*\): pass tensors as x.detach\(\).float\(\).cpu\(\).numpy\(\)"
    with pytest.raises(TypeError, match=message):
        MDPDataset(**(GOOD | {"rewards": tensor}))


def test_ids_that_leave_most_outputs_unused_warn():
    with pytest.warns(UserWarning, match=r"largest id is 1000000000000, but only 2 ids occur: .* return_inverse=True"):
        assert MDPDataset(**(GOOD | {"actions": [0, 10**12, 0, 0, 0]})).get_action_size() == 10**12 + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MDPDataset(**(GOOD | {"actions": [0, 5000, 0, 0, 0], "action_size": 5001}))
        MDPDataset(**(GOOD | {"actions": [0, 900, 0, 0, 0]}))

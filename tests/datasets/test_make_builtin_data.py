"""The script that made the built-in data still runs, and gives the shipped numbers where that takes no time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from d3rlpy.datasets import get_cartpole

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_builtin_data.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_builtin_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_script_makes_the_shipped_random_set(script):
    made = script.DATA["cartpole_random"]().arrays()
    shipped, _ = get_cartpole("random")
    np.testing.assert_array_equal(made["actions"], shipped.actions)
    np.testing.assert_array_equal(made["terminals"], shipped.terminals)
    np.testing.assert_allclose(made["observations"], shipped.observations, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("learner", "env"), [("train_dqn", "cartpole"), ("train_td3", "pendulum")])
def test_learner_logs_whole_episodes_of_linked_steps_twice_the_same(script, learner, env):
    logs = [getattr(script, learner)(getattr(script, env)(), 1020, seed=0) for _ in range(2)]
    for name, column in logs[0].arrays().items():
        np.testing.assert_array_equal(column, logs[1].arrays()[name])
    columns = logs[0].arrays()
    ends = columns["terminals"] | columns["timeouts"]
    assert ends[-1]
    assert not (columns["terminals"] & columns["timeouts"]).any()
    inside = ~ends[:-1]
    np.testing.assert_array_equal(columns["next_observations"][:-1][inside], columns["observations"][1:][inside])
    assert logs[0].returns().sum() == pytest.approx(columns["rewards"].sum(), rel=1e-4)

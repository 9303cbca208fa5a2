"""The examples do what the README promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def output_of(name):
    result = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cartpole_is_learned_from_mediocre_data_and_shipped():
    out = output_of("cartpole.py")
    assert float(re.search(r"episodes, mean return ([\d.]+)", out)[1]) <= 130
    assert float(re.search(r"mean of 20 episodes: ([\d.]+) of 200", out)[1]) >= 190
    assert "rebuilt in a new process: same actions" in out
    assert "TorchScript and ONNX: same actions" in out
    assert Path("demo_output/curve.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pendulum_gets_at_least_half_of_the_way_from_the_mean_to_the_best():
    out = output_of("pendulum.py")
    assert int(re.search(r"; (-?\d+)% of the way from mean to best", out)[1]) >= 50


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_policy_that_was_learned_offline_gets_better_online():
    out = output_of("online.py")
    before, after = re.search(r": (-?\d+) offline, (-?\d+) after 1000 steps online", out).groups()
    assert int(after) >= int(before) + 150
    assert int(after) >= -400  # no logged episode is as good as that

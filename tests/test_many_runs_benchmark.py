"""benchmarks/bench_many_runs.py: both ways make the same updates, and the table says what was measured."""

import sys
from pathlib import Path
from time import process_time

import pytest

from d3rlpy.models.encoders import VectorEncoderFactory

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import bench_many_runs as bench

TINY = bench.Case("DQN", 8, 8, {"encoder_factory": VectorEncoderFactory(hidden_units=(8,))})


@pytest.mark.parametrize("as_one", [True, False])
def test_a_window_makes_its_updates_in_every_run(as_one):
    runs = bench.runs_of(TINY)
    bench.seconds(TINY, runs, as_one, 4, process_time)
    assert [run.algo.grad_step_ for run in runs] == [4] * bench.N_RUNS


def test_a_ratio_is_that_of_its_round(monkeypatch):
    times = iter([0.0, 0.1, 2.0, 1.0, 6.0, 2.0])  # first steps, calibration, then pairs: alone, as one
    monkeypatch.setattr(bench, "seconds", lambda *args: next(times))
    row = bench.measure(TINY, 2, process_time)
    assert (row["times"], row["lowest"], row["highest"]) == (2.5, 2.0, 3.0)
    assert row["one after the other"] == pytest.approx(8 / (4.0 / 100))
    assert "| DQN, batch 8, 8 units | 200 | 533 | 2.50 | 2.00 to 3.00 | as one |" in bench.markdown([row])

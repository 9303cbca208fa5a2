"""benchmarks/gpu.py runs wherever it is told to, and says so where there is no GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gpu


@pytest.fixture(autouse=True)
def little_data(monkeypatch):
    monkeypatch.setattr(gpu, "N_ROWS", 2000)
    monkeypatch.setattr(gpu, "N_IMAGES", 100)


def test_a_rate_is_that_of_the_second_epoch(monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(gpu, "perf_counter", lambda: next(clock))
    assert gpu.rate(gpu.Case("TD3PlusBC", 4000, 8, {"batch_size": 4}), "cpu", 8) == 2.0


def test_ten_runs_are_compared_with_one(monkeypatch):
    monkeypatch.setattr(gpu, "N_RUNS", 2)
    found = gpu.many_runs("cpu", 1e-9)
    assert found["times as long"] == pytest.approx(found["ten"] / found["one"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = subprocess.run([sys.executable, gpu.__file__], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch sees no CUDA device here" in done.stderr

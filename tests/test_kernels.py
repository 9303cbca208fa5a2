import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from d3rlpy import kernels
from d3rlpy.algos import ALGORITHMS
from tests.common.test_suite import make
from tests.helpers import random_batch

COUNTS = Path(__file__).parent / "golden" / "kernels.json"


@pytest.fixture(autouse=True)
def _decide_again_afterwards():
    yield
    kernels.use_backend("auto")


def test_an_unknown_backend_is_an_error():
    with pytest.raises(ValueError, match=r"backend='fast' is unknown, it must be one of \['auto', 'plain', 'onednn'\]"):
        kernels.use_backend("fast")


def test_a_missing_or_wrong_operator_falls_back_to_torch(monkeypatch):
    def missing(*args):
        raise RuntimeError

    for broken in (missing, lambda x, *args: x + 1.0):
        monkeypatch.setattr(kernels, "_pointwise", broken)
        assert kernels.use_backend("auto") == "plain"
        with pytest.raises(RuntimeError, match="no oneDNN product that agrees"):
            kernels.use_backend("onednn")


def test_a_slow_operator_is_not_used(monkeypatch):
    monkeypatch.setattr(kernels, "_LEAST_GAIN", 1e9)
    assert kernels.use_backend("auto") == "plain"


def test_the_environment_chooses_the_backend():
    code = "from d3rlpy import kernels; print(kernels.backend())"
    env = {**os.environ, "D3RLPY_BACKEND": "plain"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "plain"


def test_float64_and_small_products_stay_with_torch(monkeypatch):
    def called(*args):
        raise AssertionError("oneDNN was called")

    monkeypatch.setattr(kernels, "_backend", "onednn")
    monkeypatch.setattr(kernels, "_pointwise", called)
    for n, size, dtype in ((256, 256, torch.float64), (8, 256, torch.float32), (256, 8, torch.float32)):
        x, weight = torch.randn(n, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        kernels.linear(x, weight, torch.zeros(size, dtype=dtype), relu=True)
        kernels.input_grad(x, weight)
        kernels.weight_grad(x, x)
    monkeypatch.undo()


class Counter(TorchDispatchMode):
    """Counts what reaches a kernel: every operator but views and allocations."""

    FREE = ("aten::empty", "aten::detach", "aten::new_empty")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and not func.name().startswith(self.FREE):
            self.count += 1
        return func(*args, **(kwargs or {}))


def kernels_per_update(name):
    """Operators of four updates after the first two, so that delayed actors count."""
    kernels.use_backend("plain")
    impl = make(name).create_impl((3,), 2).impl.train()
    batches = [random_batch(discrete=impl.hp.action_space == "discrete", seed=s) for s in range(6)]
    for batch in batches[:2]:
        impl.step(batch)
    with Counter() as counter:
        for batch in batches[2:]:
            impl.step(batch)
    return counter.count


@pytest.mark.skipif(not torch.__version__.startswith("2.13.0"), reason="counts depend on the version of torch")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_update_takes_no_more_kernels_than_it_did(name):
    """A change that needs more says so by writing the file anew: ``python -m tests.test_kernels``."""
    known = json.loads(COUNTS.read_text())
    assert name in known, f"{name} is new: write its count with python -m tests.test_kernels"
    assert kernels_per_update(name) <= 1.05 * known[name]


if __name__ == "__main__":
    COUNTS.write_text(json.dumps({name: kernels_per_update(name) for name in ALGORITHMS}, indent=1) + "\n")

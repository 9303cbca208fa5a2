"""Updates a second on a GPU: captured, launched one by one, and in lower precision; ten runs as one; a million of IQL.

Everything goes through the public ``fit``, on random data of Hopper's shape and on random images; the first epoch, in
which graphs are captured, is not timed. Under eight minutes on a machine with a GPU::

    make bench-gpu
    python benchmarks/gpu.py --device cpu --scale 0.001   # does it run? The figures mean nothing
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from peers.report import commit, cpu_model

from d3rlpy import algos
from d3rlpy.dataset import MDPDataset
from d3rlpy.model_selection import ManyRuns

RESULTS = Path(__file__).parent / "results" / "gpu.json"
QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
N_ROWS, N_IMAGES = 100_000, 20_000


@dataclass(frozen=True)
class Case:
    algorithm: str
    wanted: float  # updates a second
    n_updates: int
    params: dict[str, Any] = field(default_factory=dict)
    image: bool = False


CASES = [
    Case("TD3PlusBC", 4000, 40_000),
    Case("IQL", 3500, 40_000),
    Case("SAC", 3000, 40_000),
    Case("CQL", 1500, 15_000, {"alpha_learning_rate": 0.0}),
    Case("DQN", 3000, 20_000, {"batch_size": 32, "n_frames": 4, "scaler": "pixel"}, image=True),
]
N_RUNS, RUNS_UPDATES = 10, 10_000
MILLION = 1_000_000


def data(discrete: bool, image: bool) -> MDPDataset:
    rng = np.random.default_rng(0)
    n = N_IMAGES if image else N_ROWS
    actions = rng.integers(0, 4, n) if discrete else rng.uniform(-1, 1, (n, 3)).astype("float32")
    if image:
        observations = rng.integers(0, 256, (n, 1, 84, 84), dtype=np.uint8)
    else:
        observations = rng.normal(size=(n, 11)).astype("float32")
    return MDPDataset(observations, actions, rng.normal(size=n).astype("float32"), np.arange(n) % 1000 == 999)


def rate(case: Case, device: str, n_updates: int, **params: Any) -> float:
    """Updates a second of the second of two epochs."""
    cls = getattr(algos, case.algorithm)
    algo = cls(use_gpu=device, random_state=0, **case.params, **params)
    epochs = algo.fitter(
        data(cls.action_space == "discrete", case.image), n_steps=2 * n_updates, n_steps_per_epoch=n_updates, **QUIET
    )
    next(epochs)
    start = perf_counter()
    next(epochs)  # ends with a look at the losses, which waits for the device
    return n_updates / (perf_counter() - start)


def cases(device: str, scale: float) -> list[dict[str, Any]]:
    rows = []
    for case in CASES:
        n = max(32, int(case.n_updates * scale))
        captured = rate(case, device, n)
        single = rate(case, device, max(32, n // 10), cuda_graph=False)
        lower = {f"{name}/s": rate(case, device, max(32, n // 4), precision=name)
                 for name in ("tf32", "bf16") if name == "bf16" or device.startswith("cuda")}  # fmt: skip
        rows.append({"case": case.algorithm + (" pixels" if case.image else ""), "captured/s": captured,
                     "one by one/s": single, "times": captured / single, "wanted/s": case.wanted, **lower})  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def many_runs(device: str, scale: float) -> dict[str, float]:
    """Seconds of the second epoch of one run and of ten as one."""
    n, dataset = max(32, int(RUNS_UPDATES * scale)), data(discrete=False, image=False)
    seconds = {}
    for n_runs in (1, N_RUNS):
        runs = ManyRuns(algos.TD3PlusBC(use_gpu=device), seeds=n_runs)
        runs.fit(dataset, n_steps=2 * n, n_steps_per_epoch=n, scorers={"clock": lambda a, e: perf_counter()},
                 eval_episodes=dataset.episodes[:1], **QUIET)  # fmt: skip
        first, second = (metrics["clock"] for _, metrics in runs.estimators_[0].history_)
        seconds[n_runs] = second - first
    return {"one": seconds[1], "ten": seconds[N_RUNS], "times as long": seconds[N_RUNS] / seconds[1]}


def million(device: str, scale: float) -> dict[str, float]:
    """Seconds of a million updates of IQL with logs and checkpoints."""
    n = max(100, int(MILLION * scale))
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        algos.IQL(use_gpu=device, random_state=0).fit(
            data(discrete=False, image=False), n_steps=n, n_steps_per_epoch=max(10, n // 100), logdir=folder,
            verbose=False, show_progress=False,
        )  # fmt: skip
        return {"updates": n, "seconds": perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="default cuda:0")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the updates; only 1 writes results")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("error: torch sees no CUDA device here; --device cpu --scale 0.001 only tries the script")
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else cpu_model()
    found = {"device": name, "torch": torch.__version__, "commit": commit(), "cases": cases(args.device, args.scale)}
    found["ten runs of TD3PlusBC"] = many_runs(args.device, args.scale)
    found["a million updates of IQL"] = million(args.device, args.scale)
    print(json.dumps(found, indent=1))
    if args.scale == 1.0:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

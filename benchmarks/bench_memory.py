"""How much memory does a data set take, as a multiple of its raw bytes, the caller's arrays included?

Each case runs in a fresh process: resident memory after the imports, then after building (``built``), and the
highest in between (``peak``). ``sampling`` adds a sampler of ``fit`` and some batches. Raw bytes are those of
the arrays given. One thread; Linux only (reads ``/proc``).
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_sampling import image_arrays, vector_arrays

from d3rlpy.dataset import MDPDataset, PermutationSampler, rows_of

N_VECTORS, N_IMAGES = 1_000_000, 20_000
CASES = ("vectors", "short episodes", "ids", "images", "vectors from a file", "images from a file")


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` (now) or ``VmHWM`` (the highest so far)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def make_arrays(case: str) -> dict:
    if "images" in case:
        return image_arrays(N_IMAGES)
    arrays = vector_arrays(N_VECTORS)
    if case == "short episodes":  # two rows each, as from random flags
        arrays["terminals"] = arrays["observations"][:, 0] > 0
        arrays["terminals"][-1] = True
        del arrays["timeouts"]
    if case == "ids":
        arrays["actions"] = (arrays["actions"][:, 0] > 0).astype(int)
    return arrays


def write_file(case: str, path: Path) -> None:
    MDPDataset(**make_arrays(case)).dump(path)


def measure(case: str, path: Path) -> dict[str, float]:
    """Multiples of the raw bytes, in this process."""
    make_small(path)
    before = resident("VmRSS")
    from_file = case.endswith("file")
    if from_file:
        dataset = MDPDataset.load(path)
        raw = sum(getattr(dataset, name).nbytes for name in ("observations", "actions", "rewards", "terminals"))
        peak = resident("VmHWM")
    else:
        arrays = make_arrays(case)
        made = resident("VmRSS")
        raw = sum(array.nbytes for array in arrays.values())
        before = made - raw  # making the arrays left memory behind that is not the data set's
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far starts anew
        dataset = MDPDataset(**arrays)
        peak = resident("VmHWM")
    built = resident("VmRSS")
    sampler = PermutationSampler(*rows_of(dataset), 32 if "images" in case else 256, seed=0)
    for _ in range(20):
        sampler.sample()
    values = {"built": built, "peak": peak, "sampling": resident("VmRSS")}
    return {name: (value - before) / raw for name, value in values.items()}


def make_small(path: Path) -> None:
    """Build, write, read and sample a few rows once, so that what is loaded at first use is not counted."""
    small = path.with_name("small.h5")
    MDPDataset(**vector_arrays(100)).dump(small)
    PermutationSampler(*rows_of(MDPDataset.load(small)), 4, seed=0).sample()


def measure_apart(case: str, folder: str) -> dict[str, float]:
    """``measure`` in a fresh process."""
    command = [sys.executable, __file__, "--case", case, "--folder", folder]
    # Large blocks go back to the system when freed, or they would hide what is allocated after them
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.case, Path(args.folder) / "data.h5")))
        return
    figures = {}
    print(f"{'multiples of the raw bytes':28s} {'built':>8s} {'peak':>8s} {'sampling':>8s}")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            if case.endswith("file"):
                write_file(case, Path(folder) / "data.h5")
            runs = [measure_apart(case, folder) for _ in range(args.repeats)]
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        print(f"{case:28s} " + " ".join(f"{value:8.3f}" for value in medians.values()))
        figures |= {f"{case}, {name}": value for name, value in medians.items()}
    if args.json:
        with open(args.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()

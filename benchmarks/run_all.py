"""Run every benchmark on one thread and keep the figures in ``benchmarks/results``."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for script in sorted(HERE.glob("bench_*.py")):
        print(f"== {script.stem}", flush=True)
        command = [sys.executable, str(script), "--json", str(results / f"{script.stem}.json")]
        subprocess.run(command, env=env, check=True)


if __name__ == "__main__":
    main()

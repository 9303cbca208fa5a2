"""A queue of long training runs that can be stopped and started at will, also twice at once.

As a run ends it appends one row, a line of JSON, to the results; a run that is there with the same settings is skipped.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch

Row = dict[str, Any]


class Run(Protocol):
    """What identifies a run."""

    @property
    def name(self) -> str:
        """For people and for ``--only``."""

    def settings(self) -> Row:
        """All that it takes to repeat it, as JSON."""


def read(path: Path) -> list[Row]:
    """All whole rows; a line that a crash cut short does not count."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: passing over a broken line: {line[:60]}", file=sys.stderr)
    return rows


def append(path: Path, row: Row) -> None:
    """Add one line, whole or not at all, beside other processes that do the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + json.dumps(row, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def is_done(case: Run, rows: Iterable[Row]) -> bool:
    settings = case.settings()
    return any(all(row.get(key) == value for key, value in settings.items()) for row in rows)


def circumstances(start: float) -> Row:
    """Processor time since ``start``, today's date, versions: the end of each row."""
    return {
        "seconds": round(time.process_time() - start, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {name: version_of(name) for name in ("torch", "gymnasium", "mujoco", "d3rlpy")},
    }


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def run(case: Any, train: Callable[[Any, Path | None], Row], results: Path, data_dir: Path | None) -> bool:
    """Train, unless another process has, and keep the row; False if the run failed."""
    torch.set_num_threads(1)
    if is_done(case, read(results)):
        return True
    try:
        row = train(case, data_dir)
    except Exception:  # the other runs go on
        print(f"{case.name} failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return False
    append(results, row)
    print(f"{case.name}: last {row['last']:.1f}, best {row['best']:.1f}, {row['seconds']:.0f} s", flush=True)
    return True


def main(
    arguments: list[str] | None,
    doc: str,
    results: Path,
    cases: Sequence[Any],
    needs_files: Callable[[Any], bool],
    train: Callable[[Any, Path | None], Row],
    report: Callable[[list[Row]], str],
) -> int:
    """The command line of a queue: run what is missing, print what there is."""
    args = parse(arguments, doc, results)
    done = [True]
    if not args.table:
        rows = read(args.results)
        chosen = [c for c in cases if not args.only or any(re.search(pattern, c.name) for pattern in args.only)]
        if args.data_dir is None:
            print("without --data-dir: only what needs no files")
            chosen = [case for case in chosen if not needs_files(case)]
        missing = [case for case in chosen if not is_done(case, rows)]
        if args.list:
            print(*(f"{case.name} {case.settings()}" for case in missing), sep="\n")
            return 0
        work = partial(run, train=train, results=args.results, data_dir=args.data_dir)
        if args.workers == 1:
            done = [work(case) for case in missing]
        else:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(args.workers, mp_context=spawn) as pool:
                done = list(pool.map(work, missing))
    print(f"\n{report(read(args.results))}")
    return 0 if all(done) else 1


def parse(arguments: list[str] | None, doc: str, results: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with mujoco/hopper-*-local-v0.hdf5")
    parser.add_argument("--results", type=Path, default=results, help=f"default: benchmarks/results/{results.name}")
    parser.add_argument("--only", nargs="+", default=[], metavar="REGEX", help="names of runs, any of these")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each, default 1")
    parser.add_argument("--list", action="store_true", help="say what would run")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error(f"--workers={args.workers} must be at least 1")
    return args

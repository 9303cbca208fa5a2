"""Updates a second through the public ``fit``, side by side with releases 1.1.1 and 2.8.1 of the original library.

Each library runs in a process of its own, pinned to the same core, with one thread; in every round each library
trains each case for about a second, one after the other, and the median window counts. The share of the floor is
what the matrix products that an update can't do without would take at the measured rate of this core. Run it on a
quiet machine::

    python benchmarks/compare.py --docs      # everything; builds .venv-peers once
    python benchmarks/compare.py --no-peers  # against this library's own plain path, 2 minutes
    python benchmarks/compare.py --threads 2 # this library with one thread and with two, best window of each
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peers.cases import CASES
from peers.environments import RELEASES, ROOT, InstallError, environment_of
from peers.process import Library, WorkerError, WorkerProcess
from peers.report import (
    OURS,
    PLAIN,
    Row,
    circumstances,
    markdown,
    rows_of_table,
    summary,
    thread_rows,
    write_page,
)
from peers.rounds import Windows, prepare, run_rounds

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"


def chosen_core() -> int | None:
    """The last core this process may use: the first ones get the interrupts."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def libraries_side_by_side(peers: bool, peer_python: str) -> list[Library]:
    """This library, the same without its faster kernels, and the peers."""
    core = chosen_core()
    found = [Library(OURS, core=core), Library(PLAIN, environment={"D3RLPY_BACKEND": "plain"}, core=core)]
    for release in RELEASES if peers else ():
        python = str(environment_of(release, peer_python))
        found.append(Library(release, f"version_{release[0]}", python, peer=release, core=core))
    return found


def libraries_by_threads(threads: int) -> list[Library]:
    """This library with one thread and with several, free to move between cores."""
    return [Library("1 thread"), Library(f"{threads} threads", threads=threads)]


def measure(libraries: list[Library], args: argparse.Namespace) -> tuple[Windows, dict[str, dict[str, Any]]]:
    """All windows, and what each worker says about itself."""
    cases = [case for case in CASES if not args.cases or case.name in args.cases]
    with ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess(library)) for library in libraries]
        versions = {worker.library.name: worker.hello() for worker in workers}
        lengths = prepare(workers, cases, args.seconds)
        return run_rounds(workers, lengths, args.rounds, args.clock), versions


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-peers", action="store_true", help="compare with this library's own plain path only")
    parser.add_argument("--threads", type=int, metavar="N", help="compare one thread with N, this library only")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each case and library, default 5")
    parser.add_argument("--seconds", type=float, default=1.2, help="length of a window, default 1.2")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, on a busy machine"
    )
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that .venv-peers is built from")
    parser.add_argument("--docs", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    args = parser.parse_args(arguments)
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds above 0")
    if args.threads is not None and args.threads < 2:
        parser.error(f"--threads={args.threads} must be at least 2: one thread is what the others run with")
    if args.threads and args.clock == "cpu":
        parser.error("--clock cpu adds up the threads: leave it out with --threads")
    args.whole = not args.cases and args.rounds >= 3
    if args.docs and (args.no_peers or args.threads or not args.whole):
        parser.error("--docs needs a whole run: all cases, the peers, and at least 3 rounds")
    return args


def main() -> None:
    args = parse()
    try:
        if args.threads:
            libraries = libraries_by_threads(args.threads)
        else:
            libraries = libraries_side_by_side(not args.no_peers, args.peer_python)
        windows, versions = measure(libraries, args)
    except (InstallError, WorkerError) as error:
        sys.exit(f"error: {error}")
    names = [library.name for library in libraries]
    if not windows.updates:
        sys.exit("error: no library has any of these cases")
    table = thread_rows(windows, *names) if args.threads else rows_of_table(windows, names)
    facts = circumstances(windows, versions, args.clock)
    text = f"{markdown(table)}\n\n{summary(facts, args.rounds, best=bool(args.threads))}"
    print(f"\n{text}")
    variant = "_threads" if args.threads else "_quick" if args.no_peers else ""
    if args.whole:  # a part never replaces the figures of a whole run
        write_results(RESULTS / f"compare{variant}.json", facts, table, windows)
    if args.docs:
        write_page(PAGE, text)


def write_results(path: Path, facts: dict[str, Any], table: dict[str, Row], windows: Windows) -> None:
    """Everything that was measured, every window included."""
    path.parent.mkdir(exist_ok=True)
    content = facts | {"table": table, "windows": windows.updates, "matmul_windows": windows.matmul}
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

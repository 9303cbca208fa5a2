"""Steps a second of online training with one update a step, side by side with stable-baselines3; and RLPD's update.

SAC on Pendulum-v1 and DQN on CartPole-v1 go through the public ``fit_online`` here and ``learn`` there, with the same
hyper-parameters. RLPD's update is compared with a loop over critics on plain modules, ``peers/online_loop.py``. Each
side runs in a process of its own, pinned to the same core, with one thread; in every round each side runs each case for
about two seconds, one right after the other. A ratio belongs to one round; the table shows their median, and how far
they spread. Run it on a quiet machine::

    python benchmarks/online_speed.py --docs        # everything; builds .venv-peers/stable-baselines3 once
    python benchmarks/online_speed.py --cases RLPD  # needs no peer
    python benchmarks/online_speed.py --clock cpu   # processor time, on a busy machine
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from typing import Any

from compare import PAGE, RESULTS, chosen_core, write_results
from peers.environments import ROOT, SB3_VERSION, InstallError, environment_of
from peers.environments import SB3 as SB3_NAME
from peers.process import Library, WorkerError, WorkerProcess
from peers.report import OURS, circumstances, summary, write_page
from peers.rounds import Windows, prepare, run_rounds
from peers.speed_cases import CASES, LOOP, SB3, OnlineCase


def sides(cases: list[OnlineCase], peer_python: str) -> list[Library]:
    """This library and what the cases compare it with."""
    core, others = chosen_core(), {case.other for case in cases}
    found = [Library(OURS, "online_ours", core=core, worker="online_worker")]
    if SB3 in others:
        python = str(environment_of(SB3_NAME, peer_python))
        found.append(Library(SB3, "online_sb3", python, peer=SB3_VERSION, core=core, worker="online_worker"))
    if LOOP in others:
        found.append(Library(LOOP, "online_loop", core=core, worker="online_worker"))
    return found


def ratios(windows: Windows, case: OnlineCase) -> list[float]:
    """How many times as fast this library was, round by round."""
    rates = windows.updates[case.name]
    return [ours / other for ours, other in zip(rates[OURS], rates[case.other], strict=True)]


def rows_of_table(windows: Windows, cases: list[OnlineCase]) -> list[dict[str, Any]]:
    """By case: medians of the rates and of the ratios, and the lowest and highest ratio."""
    table = []
    for case in cases:
        rates, times = windows.rates(case.name), ratios(windows, case)
        table.append(
            {
                "case": case.name,
                "ours/s": rates[OURS],
                "other": case.other,
                "other/s": rates[case.other],
                "times": statistics.median(times),
                "lowest": min(times),
                "highest": max(times),
                "wanted": case.wanted,
            }
        )
    return table


def markdown(table: list[dict[str, Any]]) -> str:
    """The table as it stands in the docs."""
    lines = [
        "| case | ours/s | other | other/s | times as fast | single rounds | meant to be |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['case']} | {row['ours/s']:.1f} | {row['other']} | {row['other/s']:.1f} | {row['times']:.2f} | "
        f"{row['lowest']:.2f} to {row['highest']:.2f} | {row['wanted']} |"
        for row in table
    ]
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="default: all")
    parser.add_argument("--rounds", type=int, default=9, help="windows of each case and side, default 9")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window, default 2")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that .venv-peers is built from")
    parser.add_argument("--docs", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    args = parser.parse_args(arguments)
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds above 0")
    args.whole = not args.cases and args.rounds >= 3
    if args.docs and not args.whole:
        parser.error("--docs needs a whole run: all cases and at least 3 rounds")
    return args


def main() -> None:
    args = parse()
    cases = [case for case in CASES if not args.cases or case.name in args.cases]
    try:
        libraries = sides(cases, args.peer_python)
        with ExitStack() as stack:
            workers = [stack.enter_context(WorkerProcess(library)) for library in libraries]
            versions = {worker.library.name: worker.hello() for worker in workers}
            windows = run_rounds(workers, prepare(workers, cases, args.seconds), args.rounds, args.clock)
    except (InstallError, WorkerError) as error:
        sys.exit(f"error: {error}")
    table, facts = rows_of_table(windows, cases), circumstances(windows, versions, args.clock)
    text = f"{markdown(table)}\n\n{summary(facts, args.rounds)}"
    print(f"\n{text}")
    if args.whole:  # a part never replaces the figures of a whole run
        write_results(RESULTS / "online_speed.json", facts, table, windows)
    if args.docs:
        write_page(PAGE, text, "online")


if __name__ == "__main__":
    main()

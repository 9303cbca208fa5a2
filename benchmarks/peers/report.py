"""From windows to a table, a JSON file and the page ``docs/performance.md``."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

from .cases import Case, case_of
from .environments import ROOT
from .rounds import Windows

OURS, PLAIN = "ours", "plain"
QUIET = 0.97  # of the time a worker must have had its core, or the figures are called provisional
CLOCKS = {"wall": "wall-clock", "cpu": "processor"}
Row = dict[str, float | None]


def share_of_floor(case: Case, updates: float, gflops: float) -> float | None:
    """Part of the machine's matrix-product rate that the least computation of the updates takes up."""
    return None if case.mflop is None else case.mflop * updates / (gflops * 1e3)


def rows_of_table(windows: Windows, libraries: list[str]) -> dict[str, Row]:
    """By case: updates/s of each library, how many times each other library, share of the floor."""
    table: dict[str, Row] = {}
    for name in windows.updates:
        rates = windows.rates(name)
        row: Row = {f"{library}/s": rates.get(library) for library in libraries}
        for other in libraries[1:]:
            both = OURS in rates and other in rates
            row[f"x {other}"] = rates[OURS] / rates[other] if both else None
        ours = rates.get(OURS)
        row["floor"] = None if ours is None else share_of_floor(case_of(name), ours, windows.gflops())
        table[name] = row
    return table


def thread_rows(windows: Windows, one: str, several: str) -> dict[str, Row]:
    """By case: the best window with one thread and with several, and their ratio."""
    table: dict[str, Row] = {}
    for name in windows.updates:
        rates = windows.rates(name, best=True)
        table[name] = {f"{one}/s": rates[one], f"{several}/s": rates[several], "ratio": rates[several] / rates[one]}
    return table


def markdown(table: dict[str, Row]) -> str:
    """The table with its numbers at a sensible length, columns aligned."""
    columns = list(next(iter(table.values())))
    lines = [["", *columns], *([name, *(_shown(c, row[c]) for c in columns)] for name, row in table.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
    shown = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [shown[0], rule, *shown[1:]])


def _shown(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    if column == "floor":
        return f"{100 * value:.0f} %"
    if column.endswith("/s"):
        return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2f}"


def circumstances(windows: Windows, libraries: dict[str, dict[str, Any]], clock: str) -> dict[str, Any]:
    """When, on what, and how quiet it was."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_at_end": load,
        "torch": libraries[next(iter(libraries))]["torch"],
        "matmul_gflops": {kernel: statistics.median(rates) for kernel, rates in windows.matmul.items()},
        "window_spread": windows.spread(),
        "clock": clock,
        "had_core": statistics.mean(windows.had_core),
        "libraries": libraries,
    }


def commit() -> str:
    """The commit that was measured, with ``-dirty`` if files were changed since."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu_model() -> str:
    """Name of the processor, with family and model where the name alone says little."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    name = found.get("model name", platform.machine())
    return f"{name}, family {found['cpu family']} model {found['model']}" if "cpu family" in found else name


def summary(facts: dict[str, Any], rounds: int, best: bool = False) -> str:
    """One paragraph under the table; ``best`` says that the best windows are shown, not the medians."""
    rates = ", ".join(f"{kernel} {rate:.0f}" for kernel, rate in facts["matmul_gflops"].items())
    load = "" if facts["load_at_end"] is None else f", load average {facts['load_at_end']:.1f}"
    busy = facts["had_core"] < QUIET and facts["clock"] == "wall"
    warning = f" Provisional: other work took {100 * (1 - facts['had_core']):.0f} % of the core's time." if busy else ""
    return (
        f"{facts['date']}, commit {facts['commit']}, {facts['cpu']}, {facts['cores']} cores{load}; "
        f"torch {facts['torch']}. GFLOP/s of one core at 256x256x256: {rates}. "
        f"{'Best' if best else 'Median'} of {rounds} windows by {CLOCKS[facts['clock']]} time; "
        f"typically they spread by {100 * facts['window_spread']:.0f} % of it.{warning}"
    )


def write_page(page: Path, text: str, table: str = "measured") -> None:
    """Replace what stands between the two markers of a table in ``page``."""
    first, last = (f"<!-- {place} of the {table} table -->" for place in ("begin", "end"))
    before, begin, rest = page.read_text().partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"{page} has no markers {first!r} and {last!r}: put them where the table belongs")
    page.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}")

"""The rows of ``results/online_learning.jsonl`` as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learning_table import curve, with_error
from online_cases import all_cases

RESULTS = Path(__file__).parent / "results" / "online_learning.jsonl"

HEAD = ("environment", "run", "seeds", "before", "scores on the way", "last", "best")


def report(rows: list[dict[str, Any]]) -> str:
    """Markdown tables, one for each group of runs."""
    return "\n\n".join(f"{group}\n\n{table(rows, group)}" for group in dict.fromkeys(c.group for c in all_cases()))


def table(rows: list[dict[str, Any]], group: str) -> str:
    """A line for each run of the group, means over its seeds."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["group"] == group:
            found.setdefault((row["env"], row["label"]), []).append(row)
    lines = [HEAD, ["---"] * len(HEAD)]
    for name, runs_of_it in found.items():
        before, *later = curve(runs_of_it).split(", ")
        cells = [str(len(runs_of_it)), before, ", ".join(later)]
        lines.append([*name, *cells, with_error(runs_of_it, "last"), with_error(runs_of_it, "best")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

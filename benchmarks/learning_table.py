"""The rows of ``results/learning.jsonl`` as a table, and what they say about the claims of the documentation."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import numpy as np
from learning_cases import OFFLINE, SHOWN, all_cases

Row = dict[str, Any]
BASELINES = {"BC", "DiscreteBC"}
HEAD = ("data", "algorithm", "not the default", "updates", "seeds", "scores on the way", "last", "best", "data mean")


def grouped(rows: list[Row]) -> list[list[Row]]:
    """Rows that differ in the seed alone, by data set and then from the best algorithm to the worst."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[json.dumps([row[key] for key in ("dataset", "algorithm", "n_steps", "params")])].append(row)
    return sorted(groups.values(), key=lambda group: (group[0]["dataset"], -mean(group, "last")))


def mean(group: list[Row], key: str) -> float:
    return float(np.mean([row[key] for row in group]))


def with_error(group: list[Row], key: str) -> str:
    """Mean over seeds and its standard error; a single seed has none."""
    values = [row[key] for row in group]
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.1f}"


def curve(group: list[Row]) -> str:
    """Mean over seeds at each point that all of them reached."""
    points = zip(*([score for _, score in row["scores"]] for row in group), strict=False)
    return ", ".join(f"{np.mean(point):.1f}" for point in points)


def reached(group: list[Row]) -> str:
    """Updates at the last point, and those that were planned if the limit of time came first."""
    planned, made = group[0]["n_steps"], min(row["scores"][-1][0] for row in group)
    return f"{made:,}" if made == planned else f"{made:,} of {planned:,}"


def markdown(rows: list[Row]) -> str:
    lines = [" | ".join(HEAD), " | ".join(["---"] * len(HEAD))]
    for group in grouped(rows):
        row = group[0]
        params = ", ".join(f"{name}={value}" for name, value in row["params"].items())
        cells = (
            row["dataset"],
            row["algorithm"],
            params,
            reached(group),
            str(len(group)),
            curve(group),
            with_error(group, "last"),
            with_error(group, "best"),
            f"{row['data_mean']:.1f}",
        )
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def claims(rows: list[Row]) -> str:
    """What offline algorithms should reach and did not."""
    groups = grouped(rows)
    cloned = {group[0]["dataset"]: mean(group, "last") for group in groups if group[0]["algorithm"] in BASELINES}
    found = []
    for group in groups:
        name, dataset, last = group[0]["algorithm"], group[0]["dataset"], mean(group, "last")
        if name in SHOWN or name in BASELINES:
            continue
        if name in OFFLINE and not dataset.endswith("random") and last <= group[0]["data_mean"]:
            found.append(f"{dataset}: {name} ends at {last:.1f}, the mean of the data is {group[0]['data_mean']:.1f}")
        beside_cloning = dataset.endswith("random") or dataset.startswith("hopper")
        if beside_cloning and last <= cloned.get(dataset, -np.inf):
            found.append(f"{dataset}: {name} ends at {last:.1f}, cloning at {cloned[dataset]:.1f}")
    names = {case.name for case in all_cases()}
    there = len(names & {f"{row['dataset']}/{row['algorithm']}/{row['seed']}" for row in rows})
    verdict = "Not reached:" if found else "No run that is there falls short."
    return "\n".join([f"{there} of {len(names)} runs are there. {verdict}", *(f"- {line}" for line in found)])

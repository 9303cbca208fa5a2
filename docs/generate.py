"""Fill in what pages under ``docs`` take from code and measurements.

Between ``<!-- parameters:Class -->``, ``<!-- scores:Class -->``, ``<!-- index:discrete -->``,
``<!-- online:scratch -->``, ``<!-- offline:hopper -->`` or ``<!-- precision:bf16 -->`` and ``<!-- end -->`` stands
generated text; an end that is missing is added. After a change of a hyper-parameter or new rows in
``benchmarks/results/learning.jsonl`` or ``online_learning.jsonl``::

    python docs/generate.py            # rewrite the pages
    python docs/generate.py --check    # only say which are out of date
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from d3rlpy.algos import ALGORITHMS
from d3rlpy.hyperparameters import fields_of

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "algorithms"
OTHERS = [ROOT / "docs" / name for name in ("online_learning.md", "offline_learning.md", "gpu.md")]
RESULTS = ROOT / "benchmarks" / "results" / "learning.jsonl"
CLONING = {"continuous": "BC", "discrete": "DiscreteBC"}
PART = re.compile(
    r"<!-- (parameters|scores|index|online|offline|precision):([\w-]+) -->\n"
    # up to its own end, never to that of the next
    r"(?:(?:(?!<!-- (?:parameters|scores|index|online|offline|precision):).)*?<!-- end -->\n)?",
    re.DOTALL,
)

sys.path.insert(0, str(ROOT / "benchmarks"))
import online_table  # noqa: E402
import runs  # noqa: E402
from learning_table import grouped, mean, with_error  # noqa: E402

CLASSES = {cls.__name__: cls for cls in ALGORITHMS.values()}
Row = dict[str, Any]


def pages() -> list[Path]:
    """The pages of algorithms."""
    return sorted(page for page in FOLDER.glob("*.md") if page.name != "README.md")


def classes_on(page: Path) -> list[str]:
    """Names of the classes in a page's title."""
    return page.read_text().splitlines()[0].removeprefix("# ").split(", ")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("|", r"\|").replace("``", "`") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def shown(value: Any) -> str:
    """A default value; a factory with those arguments that are not its own defaults."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    given = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if getattr(value, f.name) != f.default}
    return f"{type(value).__name__}({', '.join(f'{name}={argument!r}' for name, argument in given.items())})"


def parameters(cls: type) -> str:
    """The table of ``cls``, or the name of an ancestor that has the same."""
    text = parameter_table(cls)
    same = [a.__name__ for a in cls.__mro__[1:] if a.__name__ in CLASSES and parameter_table(a) == text]
    return f"`{cls.__name__}` has the parameters of `{same[-1]}`." if same else text


def parameter_table(cls: type) -> str:
    """Hyper-parameters, those that the class itself declares first."""
    fields, rows = fields_of(cls), []
    names = [name for ancestor in cls.__mro__ for name in vars(ancestor).get("__annotations__", {}) if name in fields]
    for name in dict.fromkeys(names):
        meta = fields[name].metadata
        limits = [f"at least {meta['low']:g}"] if "low" in meta else []
        limits += [f"at most {meta['high']:g}"] if "high" in meta else []
        limits += ["one of " + ", ".join(f"`{option!r}`" for option in meta["options"])] if "options" in meta else []
        limits += ["fixed"] if meta.get("fixed") else []
        rows.append([f"`{name}`", f"`{shown(fields[name].default)}`", meta.get("help", ""), ", ".join(limits)])
    return table(["name", "default", "meaning", "limits"], rows)


def scores(cls: type, rows: list[Row]) -> str:
    """What ``benchmarks/learning.py`` measured, beside the mean return of the data and the score of cloning."""
    name, cloning = cls.__name__, CLONING[cls.action_space]  # type: ignore[attr-defined]
    groups = grouped([row for row in rows if row["algorithm"] in (name, cloning)])
    lines = []
    for group in groups:
        row = group[0]
        if row["algorithm"] != name:
            continue
        cloned = [g for g in groups if (g[0]["algorithm"], g[0]["dataset"]) == (cloning, row["dataset"])]
        unlike = ", ".join(f"`{key}={value!r}`" for key, value in row["params"].items())
        lines.append(
            [
                row["dataset"],
                f"{row['n_steps']:,}",
                str(len(group)),
                with_error(group, "last"),
                with_error(group, "best"),
                f"{mean(group, 'data_mean'):.1f}",
                ", ".join(with_error(g, "last") for g in cloned) or "-",
                unlike,
            ]
        )
    command = f"`python benchmarks/learning.py --only '/{name}/'`"
    if not lines:
        return f"Not measured by {command} yet."
    head = ["data", "updates", "seeds", "last", "best", "data's mean", cloning, "not the default"]
    units = "Returns (Hopper: D4RL-normalised); ± is the standard error over seeds."
    return f"{table(head, lines)}\n\n{units} Measured by {command}."


KINDS = {"hopper": ("medium-replay", "medium"), "pendulum": ("replay", "random"), "cartpole": ("replay", "random")}
"""Data sets of an environment."""


def offline(env: str, rows: list[Row]) -> str:
    """Scores of all algorithms on the data of one environment, from the best on the first of them to the worst."""
    names = [f"{env}-{kind}" for kind in KINDS[env]]
    ascending = [g for g in reversed(grouped(rows)) if "precision" not in g[0]["params"]]
    groups = {(g[0]["algorithm"], g[0]["dataset"]): g for g in ascending}  # of several settings the best
    found = {algorithm for algorithm, dataset in groups if dataset in names}
    lines = []
    for algorithm in found:
        of = [groups.get((algorithm, name)) for name in names]
        cells = ["-" if g is None else f"{with_error(g, 'last')} ({mean(g, 'best'):.1f})" for g in of]
        one = next(g for g in of if g)
        first = mean(of[0], "last") if of[0] else float("-inf")
        lines.append((first, [algorithm, f"{one[0]['n_steps']:,}", str(max(len(g or []) for g in of)), *cells]))
    data = [f"{mean(next(g for (_, d), g in groups.items() if d == name), 'data_mean'):.1f}" for name in names]
    body = [line for _, line in sorted(lines, key=lambda pair: (-pair[0], pair[1]))]
    return table(["algorithm", "updates", "seeds", *KINDS[env]], [["mean of the data", "", "", *data], *body])


def precision(name: str, rows: list[Row]) -> str:
    """Scores of runs in a lower precision beside those of the same runs in float32."""
    lines = []
    for row in rows:
        if row["params"].get("precision") == name:
            plain = {key: value for key, value in row["params"].items() if key != "precision"}
            keys = ("dataset", "algorithm", "seed", "n_steps")
            same = [r for r in rows if r["params"] == plain and all(r[key] == row[key] for key in keys)]
            plainly = f"{same[0]['last']:.1f}" if same else "-"
            lines.append([row["dataset"], row["algorithm"], f"{row['n_steps']:,}", plainly, f"{row['last']:.1f}"])
    command = f"`python benchmarks/learning.py --only '/{name}'`"
    if not lines:
        return f"Not measured by {command} yet."
    return f"{table(['data', 'algorithm', 'updates', 'float32', name], lines)}\n\nMeasured by {command}."


def index(space: str) -> str:
    """Algorithms for one kind of actions, a line for each file of code, with the idea that its first line names."""
    page_of = {name: page.name for page in pages() for name in classes_on(page)}
    of_module: dict[str, list[str]] = {}
    for name, cls in CLASSES.items():
        if cls.action_space == space:
            of_module.setdefault(cls.__module__, []).append(f"[{name}]({page_of[name]})" if name in page_of else name)
    rows = []
    for module, links in sorted(of_module.items()):
        idea = sys.modules[module].__doc__.strip().splitlines()[0].split(": ", 1)[-1]
        rows.append([", ".join(links), idea.rstrip(".")])
    return table(["algorithm", "idea"], rows)


def filled(page: Path, rows: list[Row]) -> str:
    """Text of a page with its generated parts as they should be."""

    def part(match: re.Match[str]) -> str:
        kind, name = match.groups()
        if kind in ("parameters", "scores") and name not in CLASSES:
            raise ValueError(f"{page}: <!-- {kind}:{name} --> names no algorithm; they are {sorted(CLASSES)}")
        text = {
            "parameters": lambda: parameters(CLASSES[name]),
            "scores": lambda: scores(CLASSES[name], rows),
            "index": lambda: index(name),
            "precision": lambda: precision(name, rows),
            "offline": lambda: offline(name, rows),
            "online": lambda: online_table.table(runs.read(online_table.RESULTS), name),
        }
        return f"<!-- {kind}:{name} -->\n\n{text[kind]()}\n\n<!-- end -->\n"

    return PART.sub(part, page.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check, rows = parser.parse_args().check, runs.read(RESULTS)
    texts = {page: filled(page, rows) for page in [*sorted(FOLDER.glob("*.md")), *OTHERS]}
    old = [page for page, text in texts.items() if text != page.read_text()]
    for page in old:
        print(f"{page.relative_to(ROOT)} {'is out of date' if check else 'rewritten'}")
        if not check:
            page.write_text(texts[page])
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())

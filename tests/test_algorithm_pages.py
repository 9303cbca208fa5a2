"""Every algorithm has one page under docs/algorithms, in the fixed order, with its generated parts up to date."""

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

from d3rlpy.algos import ALGORITHMS

DOCS = Path(__file__).parent.parent / "docs"
HEADINGS = [
    "Idea",
    "When to use",
    "Equations",
    "Update",
    "Parameters",
    "Differences",
    "Scores",
    "References",
]


def load_generator():
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()
PAGES = generate.pages()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)


def prose_of(page):
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_every_algorithm_has_exactly_one_page():
    counts = Counter(name for page in PAGES for name in generate.classes_on(page))
    assert counts == Counter(cls.__name__ for cls in ALGORITHMS.values())


@each_page
def test_headings_have_the_fixed_order(page):
    assert re.findall(r"^## (.*)$", prose_of(page), re.MULTILINE) == HEADINGS


@each_page
def test_parameters_and_scores_of_each_class_stand_under_their_heading(page):
    section = {part.split("\n", 1)[0]: part for part in prose_of(page).split("\n## ")}
    for kind, heading in (("parameters", "Parameters"), ("scores", "Scores")):
        marks = re.findall(rf"<!-- {kind}:(\w+) -->", section[heading])
        assert marks == re.findall(rf"<!-- {kind}:(\w+) -->", page.read_text())
        assert marks == generate.classes_on(page)


@pytest.mark.parametrize("page", [*sorted((DOCS / "algorithms").glob("*.md")), *generate.OTHERS], ids=lambda p: p.stem)
def test_generated_parts_are_up_to_date(page):
    up_to_date = page.read_text() == generate.filled(page, generate.runs.read(generate.RESULTS))
    assert up_to_date, f"{page.name} is out of date, run: python docs/generate.py"


def anchors_of(page):
    """What headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted((DOCS / "algorithms").glob("*.md")), ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    for path, anchor in re.findall(r"\]\(([^)#:\s]*)#?([^)\s:]*)\)", prose_of(page)):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or target.suffix != ".md" or anchor in anchors_of(target), f"{path}#{anchor}"


def test_a_part_without_an_end_gets_one_and_leaves_the_next_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# DQN\n<!-- parameters:DQN -->\n<!-- scores:DQN -->\nold\n<!-- end -->\nafter\n")
    once = generate.filled(page, [])
    assert once.count("<!-- end -->") == 2
    assert "\nold\n" not in once
    assert once.endswith("<!-- end -->\nafter\n")
    page.write_text(once)
    assert generate.filled(page, []) == once


def test_the_table_of_parameters_says_what_the_declaration_says():
    lines = generate.parameters(ALGORITHMS["dqn"]).splitlines()
    cells = {line.split(" | ")[0].strip("| `"): line.split(" | ")[1:] for line in lines[2:]}
    assert cells["n_critics"] == ["`1`", "number of Q functions", "at least 1, fixed |"]
    assert cells["gamma"] == ["`0.99`", "discount factor", "at least 0, at most 1 |"]
    assert next(iter(cells)) == "batch_size"  # what the class declares comes before what it inherits
    assert cells["optim_factory"][0] == "`AdamFactory()`"
    assert generate.parameters(ALGORITHMS["double_dqn"]) == "`DoubleDQN` has the parameters of `DQN`."
    assert list(cells).index("learning_rate") < list(cells).index("gamma") < list(cells).index("random_state")


def test_the_table_of_scores_is_what_the_rows_say():
    def row(algorithm, seed, last, best):
        common = {"dataset": "cartpole-replay", "n_steps": 20000, "params": {}, "unit": "return", "data_mean": 116.2}
        return {"algorithm": algorithm, "seed": seed, "last": last, "best": best, **common}

    rows = [row("DQN", 0, 100.0, 150.0), row("DQN", 1, 110.0, 170.0), row("DiscreteBC", 0, 90.0, 95.0)]
    text = generate.scores(ALGORITHMS["dqn"], rows)
    assert "| cartpole-replay | 20,000 | 2 | 105.0 ± 5.0 | 160.0 ± 10.0 | 116.2 | 90.0 |  |" in text
    assert "--only '/DQN/'" in text
    assert "Not measured" in generate.scores(ALGORITHMS["dqn"], rows[2:])


def test_a_mark_that_names_no_algorithm_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- parameters:DQM -->\n")
    with pytest.raises(ValueError, match="parameters:DQM"):
        generate.filled(page, [])

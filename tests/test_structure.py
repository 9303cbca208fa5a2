"""The shape of the code: rooms import downwards only, files and functions stay small, import stays lazy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import d3rlpy

PACKAGE = Path(d3rlpy.__file__).parent
FILES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))

FLOORS = {
    0: [
        "arrays",
        "registry",
        "hyperparameters",
        "functional",
        "gpu",
        "context",
        "randomness",
        "members",
        "kernels",
        "precision",
        "files",
        "signatures",
        "dataset",
        "envs",
    ],
    1: ["preprocessing", "models", "logger", "augmentation", "columns"],
    2: ["impl", "joint"],
    3: ["training", "online", "export", "metrics", "saving"],
    4: ["base", "families"],
    5: ["algos"],
    6: ["datasets", "testing", "model_selection"],
    7: ["__init__"],
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def room_of(path):
    return path.parts[0].removesuffix(".py")


def imported_rooms(path):
    """Rooms of the package that a file imports when it runs; imports for type checkers don't count."""
    tree = ast.parse((PACKAGE / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = list(path.parts[:-1])
            parts = parts[: len(parts) - (node.level - 1)] + (node.module or "").split(".")
            parts = [p for p in parts if p]
            yield from [parts[0]] if parts else [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("d3rlpy."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_rooms_import_downwards_only(path):
    room = room_of(path)
    upwards = [r for r in imported_rooms(path) if r != room and FLOOR[r] > FLOOR[room]]
    assert upwards == []


@pytest.mark.parametrize("path", [*FILES, *(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.pyx"))], ids=str)
def test_files_are_small(path):
    n_lines = len((PACKAGE / path).read_text().splitlines())
    assert n_lines <= (150 if room_of(path) == "algos" else 400)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_functions_are_short(path):
    tree = ast.parse((PACKAGE / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            doc = node.body[0] if ast.get_docstring(node) else None
            first = doc.end_lineno if doc else node.lineno
            assert node.end_lineno - first <= 60, f"{path}: {node.name}"


def test_import_leaves_heavy_packages_for_later():
    lazy = ("gym", "gymnasium", "tensorboard", "h5py", "onnx", "matplotlib")
    code = f"import sys, d3rlpy; print([m for m in {lazy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_all_public_names_exist():
    for path in PACKAGE.rglob("__init__.py"):
        module = ".".join(["d3rlpy", *path.relative_to(PACKAGE).parts[:-1]])
        __import__(module)
        for name in getattr(sys.modules[module], "__all__", []):
            assert hasattr(sys.modules[module], name), f"{module}.{name}"

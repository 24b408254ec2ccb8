"""Imports point one way: task <- strategies <- {client, server} <- sim.py; kernels know numerical libraries only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "task": {"task"},
    "strategies": {"task", "strategies"},
    "client": {"task", "client"},
    "server": {"task", "strategies", "server"},
    "sim": {"task", "strategies", "client", "server"},
}
OURS = {"task", "strategies", "client", "server", "sim", "tests", "benchmarks"}
NUMERICAL = {"numpy", "scipy", "llvmlite"}


def imported(file: Path) -> set[str]:
    """Top-level names of everything that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part):
    files = [ROOT / "sim.py"] if part == "sim" else sorted((ROOT / part).rglob("*.py"))
    assert files
    for file in files:
        wrong = {name for name in imported(file) if name.split(".")[0] in OURS - ALLOWED[part]}
        assert not wrong, f"{file.relative_to(ROOT)} imports {wrong}"


def test_kernels_import_numerical_libraries_only():
    import sys

    place = ROOT / "strategies" / "kernels"
    for file in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        for name in imported(file):
            top = name.split(".")[0]
            assert name.startswith("strategies.kernels") or top in NUMERICAL or top in sys.stdlib_module_names, (
                f"{file.name} imports {name}"
            )

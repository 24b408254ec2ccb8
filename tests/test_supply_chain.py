"""What is installed is what was locked, and the locks say so by hash and name no place."""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ["requirements.lock", "requirements-dev.lock"]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Requirements of a lock, each with its other words."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    parts = [line.partition(" --hash") for line in lines]
    return [(Requirement(head.strip()), (mark + tail).split()) for head, mark, tail in parts]


def version_of(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    return pin.version


def here(name: str) -> dict[str, str]:
    """Name -> version of what a lock means for this machine."""
    wanted = (item for item, _ in entries(name) if item.marker is None or item.marker.evaluate())
    return {canonicalize_name(item.name): version_of(item) for item in wanted}


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_one_version_and_hashes(name):
    assert len(entries(name)) > 90
    for requirement, words in entries(name):
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert "*" not in pin.version
        assert words, requirement
        assert all(HASH.fullmatch(word) for word in words), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_a_place(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"://|\bfile:|--(index|extra|find|trusted)|^-|(^|\s)\.{0,2}/", text, re.MULTILINE)
    assert all(requirement.url is None for requirement, _ in entries(name))


def test_the_locks_hold_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {"requirements.lock": project["dependencies"]}
    asked["requirements-dev.lock"] = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for name, lines in asked.items():
        locked = here(name)
        for requirement in map(Requirement, lines):
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), (name, requirement)


def test_the_locks_agree():
    run, dev = (here(name) for name in LOCKS)
    assert run.items() <= dev.items()


def test_what_is_installed_is_what_is_locked():
    installed = {canonicalize_name(found.metadata["Name"]): found.version for found in distributions()}
    locked = here("requirements-dev.lock")
    assert {name: installed.get(name) for name in locked} == locked


def test_no_script_runs_what_it_has_just_downloaded():
    scripts = [ROOT / "Makefile", *(path for path in (ROOT / ".ci").rglob("*") if path.is_file())]
    scripts += (ROOT / ".github").rglob("*.y*ml")
    for script in scripts:
        assert not re.search(r"(curl|wget)\b[^\n]*(\||\$\(|-o)", script.read_text()), script
    assert "--require-hashes" in (ROOT / "Makefile").read_text()
    for line in (ROOT / "Makefile").read_text().splitlines():
        assert "pip install" not in line or "--require-hashes" in line, line

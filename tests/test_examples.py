"""Every example of README.md and docs/ is run, or `example_commands` says where; a new one that is neither fails."""

import configparser
import doctest
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import inline_ray
import numpy as np
import pytest
from click import ClickException
from example_commands import (
    CHECK,
    RUN,
    SERVICE,
    SMALL,
    begins,
    check,
    exists,
    need,
    options_in,
    our_options,
    run,
    small_arrays,
)
from examples import PAGES, ROOT, Block, Command, anchors, blocks, commands, each_command, links, spans, text_of

import server.report.page
import sim
import strategies
from task.errors import UserError

# What programs say, by the first line of its block: the tests that read it from the programs.
SAID_ELSEWHERE = {
    "north (client 0), shard": "test_deployment.py::"
    "test_five_enrolled_clients_on_six_hosts_come_to_the_bits_of_the_simulation",
    "0.4 s  listening on": "test_deployment.py::"
    "test_five_enrolled_clients_on_six_hosts_come_to_the_bits_of_the_simulation",
}
PICTURES = ["client north    client south"]
FOREIGN = {"--run-config"}  # options of other programs


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A reader's folder: every example is run there, in the order of the pages."""
    folder = tmp_path_factory.mktemp("reader")
    paths, packed = list(sys.path), server.report.page.pack_plotly
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("FEDARENA_CACHE", str(folder / "cache"))
        monkeypatch.setattr(server.report.page, "pack_plotly", cache(packed))  # a third of a second for each page
        inline_ray.put_in_place(monkeypatch)
        yield folder
    sys.path[:] = paths
    sys.modules.pop("my_models", None)


@pytest.fixture(autouse=True)
def in_scratch(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scratch)


@pytest.mark.parametrize("command", each_command(), ids=lambda command: " ".join(str(command).split()))
def test_command(command: Command):
    run(command)


@pytest.mark.parametrize(
    "words",
    [
        "kubectl apply -f fedarena.yaml",
        "python -m server --no-such-option --listen 127.0.0.1:0",
        "python -m client --identity a.identity",
        "python -m server --listen 127.0.0.1:0 --strategies fedavgg",
        "ray start --head --no-such-option",
        "flwr run . lab --run-config no-such=3",
        "make no-such-target",
    ],
)
def test_an_example_that_nobody_runs_or_takes_is_found(words: str):
    with pytest.raises((AssertionError, UserError, ClickException, subprocess.CalledProcessError)):
        run(Command("new.md", 1, tuple(words.split())))


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python(block: Block, monkeypatch: pytest.MonkeyPatch):
    if block.file:
        compile(block.text, block.file, "exec")  # the commands that name it run it
        return
    compare = sim.compare

    def smaller(**options: Any) -> Any:
        return compare(**options | SMALL | {"seeds": options["seeds"][:2], "model": "mlp"})

    monkeypatch.setattr(sim, "compare", smaller)
    names: dict[str, Any] = {"x": small_arrays()["x_train"], "y": small_arrays()["y_train"], "__name__": "example"}
    with redirect_stdout(io.StringIO()) as said:
        exec(compile(block.text, str(block), "exec"), names)
    expected = re.findall(r"^# (.+)$", block.text.partition("\nprint(")[2], re.MULTILINE)
    assert said.getvalue().splitlines() == expected
    if "fedmax" in names:
        monkeypatch.setattr(strategies, "REGISTRY", {**strategies.REGISTRY, "fedmax": names["FedMax"]})
        updates = [strategies.Update([np.array(model)], 1) for model in ([1.0, 5.0], [3.0, 2.0])]
        assert strategies.aggregate("fedmax", [np.zeros(2)], updates)[0].tolist() == [3.0, 5.0]
    if "result" in names:
        assert names["result"].finished and names["result"].verdict


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if block.file:
        from task.scenario import resolved

        file = tmp_path / block.file
        file.write_text(block.text)
        assert resolved(str(file)) == (
            "factory=label-skew:alpha=0.1,least=10+straggler:slow=2,factor=3.0,spread=0.3,deadline=2.0,partial=true"
        )
        return
    from flwr.cli.flower_config import read_superlink_connection

    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(block.text)
    connection = read_superlink_connection()
    assert (connection.name, connection.address, connection.insecure) == ("lab", "127.0.0.1:8000", True)


UNITS = [block for block in blocks("ini") if block.text.startswith("[Unit]")]
SETTINGS = [block for block in blocks("ini") if block not in UNITS]


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("begun", [False, True], ids=["a new run", "a run that was begun"])
def test_units_start_programs_that_take_these_options(unit: Block, begun: bool, tmp_path: Path):
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(unit.text.replace("\\\n", " "))
    service = parsed["Service"]
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    python.chmod(0o755)
    environment = {}
    if service.get("EnvironmentFile"):
        (given,) = SETTINGS
        environment = {
            name: shlex.split(value)[0].replace(SERVICE, str(tmp_path))
            for name, value in (line.split("=", 1) for line in given.text.splitlines())
        }
        if begun:
            (Path(environment["RUN"])).mkdir(parents=True)
            (Path(environment["RUN"]) / "run.json").touch()
    words = shlex.split(service["ExecStart"].replace(service["WorkingDirectory"], str(tmp_path)))
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=30
    )
    given_words = done.stdout.splitlines()
    assert given_words[0] == "-m"
    check(["python", *given_words])
    assert ("--resume" in given_words) == (begun and bool(environment))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path):
    files = []
    for number, unit in enumerate(UNITS):
        text = unit.text.replace("/opt/fedarena/.venv/bin/python", sys.executable).replace("/opt/fedarena", str(ROOT))
        files.append(tmp_path / f"fedarena-example{number}.service")
        files[-1].write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False, timeout=60
    )
    assert "fedarena-example" not in done.stderr, done.stderr


@pytest.mark.parametrize("block", blocks("text"), ids=str)
def test_what_is_shown_is_what_is_said(block: Block, capsys: pytest.CaptureFixture[str]):
    first = block.text.strip()
    if any(first.startswith(picture) for picture in PICTURES):
        return
    for begin, test in SAID_ELSEWHERE.items():
        if first.startswith(begin):
            exists(test)
            return
    if first.startswith("sim.py "):
        check_house(block.text)
        return
    (command,) = commands(block_before(block))
    need(list(command.words))
    capsys.readouterr()
    run(command)
    said = masked(capsys.readouterr().out)
    at = 0
    for line in masked(block.text):
        if line != "...":
            assert line in said[at:], f"{block}: {line!r} is not said, but\n" + "\n".join(said[at:])
            at = said.index(line, at) + 1


def block_before(block: Block) -> Block:
    """The commands above it."""
    return [one for one in blocks("") if one.page == block.page and one.line < block.line][-1]


def masked(text: str) -> list[str]:
    """Its lines without what is another one each time: fingerprints and dates; nor is it of matter how far they are."""
    text = re.sub(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){7}\b", "FINGERPRINT", text)
    lines = re.sub(r"\b20\d\d-\d\d-\d\d\b", "DATE", text).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip(" ─━")]


def check_house(text: str) -> None:
    """Every file that the plan of the house names is in the folder under which it stands."""
    folder = ""
    for line in text.splitlines():
        if top := re.match(r"(\w+)/ ", line):
            folder = top[1]
        for name in re.findall(r"(?<![\w*.`])(?:\w+/)*\w+\.py\b", line):
            assert list((ROOT / folder).rglob(name)), f"{folder}/: there is no {name}"


def test_every_block_is_of_a_kind_that_is_tested():
    assert {block.language for block in blocks()} == {"", "python", "toml", "ini", "text"}
    assert len(UNITS) == 2
    assert len(SETTINGS) == 1


@pytest.mark.parametrize("page", PAGES)
def test_code_in_the_text_names_what_there_is(page: str):
    for line, text in spans(page):
        text = text.removeprefix(".venv/bin/")
        where = f"{page}:{line} `{text}`"
        if re.match(r"--[a-z]", text):
            assert re.match(r"--[\w-]+", text)[0] in our_options() | FOREIGN, where  # type: ignore[index]
        elif re.fullmatch(r"(tests|server|client|strategies|task|benchmarks|docs)/[\w./-]+", text):
            assert (ROOT / text).exists(), where
        elif re.match(r"python (-m|sim)|make ", text):
            check_span(text, where)


def check_span(text: str, where: str) -> None:
    """A command in the text; one with `...` is a pattern, and some name a program or an option of it only."""
    words = shlex.split(text)
    if text in CHECK or text in RUN:
        return
    if "..." in text or words[-1] in our_options():
        assert any(begins(tuple(words), known) for known in (*CHECK, *RUN)), where
        assert not options_in(text) - our_options(), where
    else:
        check(words)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    for target in links(page):
        if not target.startswith(("https://", "http://")):
            file, _, anchor = target.partition("#")
            path = (ROOT / page).parent / file if file else ROOT / page
            assert path.exists(), f"{page}: {target}"
            if anchor:
                assert anchor in anchors(str(path.resolve().relative_to(ROOT))), f"{page}: {target}"


def test_the_total_of_a_ledger_is_the_one_that_is_told(capsys: pytest.CaptureFixture[str]):
    (command,) = (one for one in each_command() if "Ledger" in one.words[-1])
    run(command)
    assert f"`{capsys.readouterr().out.strip()}`" in text_of(command.page)


def test_docstrings():
    found = [file for file in sorted(ROOT.glob("[a-z]*/**/*.py")) if ".venv" not in file.parts]
    found = [file for file in found if "tests" not in file.parts and re.search(r"^ *>>> ", file.read_text(), re.M)]
    assert found
    for file in found:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert doctest.testmod(importlib.import_module(name)).failed == 0

"""Every example of README.md and docs/ is run, or it is said here where that is done; a new one that is neither fails.

Simulations run as they are written, only smaller, in this process: `inline_ray` stands for Ray. What needs processes of
its own is parsed by the program's own parser, and names the test that runs it.
"""

import configparser
import csv
import doctest
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import inline_ray
import numpy as np
import pytest
from click import ClickException
from examples import PAGES, ROOT, Block, Command, anchors, blocks, commands, each_command, links, spans, text_of
from made_up_runs import made_up_run

import server.report.page
import sim
import strategies
from server.checks import check_strategies
from server.guest import guest, hasty
from task.backend import load
from task.errors import UserError
from task.options import Parser, config_and_folder

# Later options win: a round of one step, on one worker, with few seeds.
SMALL = {"rounds": 1, "epochs": 1, "batch_size": 1024, "workers": inline_ray.WORKERS}
NAMES = ["north", "south", "east", "west", "centre"]
SERVICE = "/var/lib/fedarena"  # where docs/deploy.md keeps what belongs to a service

# Commands that need processes of their own: how they begin, a word that they hold, and the test that runs them.
ELSEWHERE = [
    ("python -m client", "stock", "test_stock.py::test_flowers_supernode_takes_part_beside_resident_clients"),
    ("python -m client", "127.0.0.1:8000", "test_stock.py::test_flwr_run_plays_the_same_on_flowers_superlink"),
    (
        "python -m client",
        "--identity",
        "test_deployment.py::test_five_enrolled_clients_on_six_hosts_come_to_the_bits_of_the_simulation",
    ),
    (
        "python -m server",
        "--listen",
        "test_deployment.py::test_five_enrolled_clients_on_six_hosts_come_to_the_bits_of_the_simulation",
    ),
    ("python -m pytest", "inconsistency", "test_truth.py::test_objective_inconsistency_with_real_clients"),
    ("flower-superlink", "--insecure", "test_stock.py::test_flwr_run_plays_the_same_on_flowers_superlink"),
    ("flower-supernode", "--insecure", "test_stock.py::test_flowers_supernode_takes_part_beside_resident_clients"),
    ("flwr run", "lab", "test_stock.py::test_flwr_run_plays_the_same_on_flowers_superlink"),
    ("ray start", "--head", "test_cluster.py::test_the_settings_told_are_those_that_we_use"),
    ("ray start", "--address=10.0.0.5:6379", "test_cluster.py::test_the_same_bits_on_two_machines_without_the_shards"),
]
NOWHERE = {
    "cd /opt/fedarena": "the reader's own folder",
    "scp -p admin@fed.example.org:": "another machine's file",
}
# What programs say, by the first line of its block: the tests that read it from the programs.
SAID_ELSEWHERE = {
    "north (client 0), shard": "test_deployment.py::"
    "test_five_enrolled_clients_on_six_hosts_come_to_the_bits_of_the_simulation",
    "0.4 s  listening on": "test_deployment.py::"
    "test_five_enrolled_clients_on_six_hosts_come_to_the_bits_of_the_simulation",
}
PICTURES = ["client north    client south"]
FOREIGN = {"--run-config"}  # options of other programs


# Names that the examples use -----------------------------------------------------------------------------------------


def maker_of(word: str) -> Callable[[Path], object] | None:
    """What makes the file or folder that an example takes as given; None: it takes none of that name."""
    if word == "my_models:small":
        return lambda path: path.with_name("my_models.py").write_text(shown_file("my_models.py"))
    if re.fullmatch(r"[abc]\.keras", word):
        return small_model
    return {
        "my.npz": lambda path: np.savez(path, **small_arrays()),
        "mine.toml": lambda path: path.write_text(shown_file("mine.toml")),
        "shards/": lambda path: split(["--out", str(path)]),
        "fashion-mnist-folder/": idx_folder,
        "runs/a": lambda path: made_up_run(path, ["iid"]),
        "runs/b": lambda path: made_up_run(path, ["byzantine"]),
        "test.npz": lambda path: np.savez(path, x=small_arrays()["x_test"], y=small_arrays()["y_test"]),
        "images.npz": lambda path: np.savez(path, x=small_arrays()["x_train"][:20]),
        "shard-0.npz": lambda path: np.savez(path, x=small_arrays()["x_train"], y=small_arrays()["y_train"]),
        "north.identity": lambda path: path.touch(),
        "federation/clients/north.identity": federation,
        "members": federation,
        "north.dp.json": ledger,
    }.get(word)


def shown_file(name: str) -> str:
    """The content of a file that a page shows."""
    (block,) = (block for block in blocks() if block.file == name)
    return block.text


@cache
def small_arrays() -> dict[str, np.ndarray]:
    """Three classes of 8 x 8 images."""
    random = np.random.default_rng(7)
    y = np.tile(np.arange(3), 40)
    x = random.random((len(y), 8, 8)).astype(np.float32) + y[:, None, None].astype(np.float32)
    return {"x_train": x[30:], "y_train": y[30:], "x_test": x[:30], "y_test": y[:30]}


def small_model(path: Path) -> None:
    keras, _ = load()
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4, "relu"), keras.layers.Dense(3)]
    keras.Sequential(layers).save(path)


def idx_folder(path: Path) -> None:
    path.mkdir()
    for part, arrays in (("train", "train"), ("t10k", "test")):
        for kind, values in (("images", "x"), ("labels", "y")):
            array = (small_arrays()[f"{values}_{arrays}"] * 20).astype(np.uint8) // (20 if values == "y" else 1)
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (path / f"{part}-{kind}-idx{array.ndim}-ubyte").write_bytes(header + array.tobytes())


def federation(path: Path) -> None:
    """The one in the working folder, as the examples before enroll it."""
    enroll([*NAMES, "--host", "fed.example.org"])


def ledger(path: Path) -> None:
    from client.budget import Ledger

    for _ in range(79):
        Ledger(path).record(noise=1.0, delta=1e-5)


def cut_off_run(path: Path) -> None:
    """What is left of a run of two rounds that was killed in the second one."""
    words = ["--dataset", "my.npz", "--model", "mlp", "--strategies", "fedavg", "--out", str(path)]
    need(words)
    assert main(sim.main, [*words, *small_words(SMALL)]) == 0
    file = path / "run.json"
    run = json.loads(file.read_text())
    run["config"]["rounds"], run["status"], run["results"], run["exit_status"] = 2, "running", {}, None
    file.write_text(json.dumps(run))


def need(words: list[str]) -> None:
    """Make what these words name and is not there."""
    for word in words:
        named = re.search(r"north\.dp\.json", word)
        word = named[0] if named else word
        if (make := maker_of(word)) and not Path(word).exists():
            make(Path(word))


# How commands are run ------------------------------------------------------------------------------------------------


def program(module: str) -> ModuleType:
    """A program's module; importing it makes the process hasty."""
    with hasty():
        return importlib.import_module(module)


def main(function: Callable[[list[str]], int], words: list[str]) -> int:
    """A program's `main` in this process; the exit status."""
    with guest():
        try:
            return function(words)
        except SystemExit as end:  # of --help, and of argparse's refusals
            return int(end.code or 0)


def small_words(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


_runs = 0


def simulate(words: list[str]) -> None:
    """`python sim.py ...`, all options as they are written and then smaller ones."""
    global _runs
    if "--help" in words:
        assert main(sim.main, words) == 0
        return
    if "--resume" in words:
        (folder,) = (Path(word) for word in words if word.startswith("runs/"))
        if not folder.exists():
            cut_off_run(folder)
        assert main(sim.main, words) == 0
    else:
        _runs += 1
        folder = Path(f"runs/example{_runs}")
        more = small_words(SMALL | ({} if "--model" in words else {"model": "mlp"}) | {"out": folder})
        if "--seeds" in words:
            more += ["--seeds", words[words.index("--seeds") + 1]]
        given = vars(sim._parser().parse_args(words))
        assert main(sim.main, [*words, *more]) == 0
        asked, _ = config_and_folder(given)
        config = json.loads((folder / "run.json").read_text())["config"]
        assert config["strategies"] == list(asked.strategies) and config["scenario"] == list(asked.scenario)
    run = json.loads((folder / "run.json").read_text())
    assert {result["ended"] for result in run["results"].values()} == {"finished"}
    with (folder / "rounds.csv").open() as file:
        played = max(int(row["round"]) for row in csv.DictReader(file))
    assert played == run["config"]["rounds"] > 0
    assert (folder / "report.html").exists()


def one_shot(words: list[str]) -> None:
    more = ["--seeds", "0", "--model", "mlp", "--steps", "1", "--public", "20", "--workers", "1", "--out", "runs/once"]
    assert main(sim.main, ["one-shot", *words, *more]) == 0
    assert (Path("runs/once") / "report.html").exists()


def combine(words: list[str]) -> None:
    assert main(program("server.oneshot.__main__").main, [*words, "--out", "runs/combined"]) == 0
    assert (Path("runs/combined") / "report.html").exists()


def report(words: list[str]) -> None:
    assert main(program("server.report.__main__").main, words) == 0
    page = words[words.index("--out") + 1] if "--out" in words else f"{words[0]}/report.html"
    assert Path(page).exists()


def split(words: list[str]) -> None:
    from task.split import main as split_main

    assert split_main(["split", *words]) == 0


def manage(words: list[str]) -> None:
    """`python -m server enroll` and the like."""
    assert program("server.__main__").main(words) == 0


def enroll(words: list[str]) -> None:
    """A new federation each time: two pages begin with one."""
    shutil.rmtree("federation", ignore_errors=True)
    manage(["enroll", *words])


def evaluate(words: list[str]) -> None:
    exec(compile(words[0], "example", "exec"), {})


def run_here(words: list[str]) -> None:
    """A program of the system, in the scratch folder."""
    subprocess.run(words, check=True)


def as_service(words: list[str]) -> None:
    """What another user shall do with the folders of a service, as this user with those of the examples."""
    need(["members"])
    user, *command = [word.replace(f"{SERVICE}/", "") for word in words]
    assert user == "fedarena"
    run(Command("sudo", 0, (command[0].removeprefix(".venv/bin/"), *command[1:])))


def make(words: list[str]) -> None:
    """`make` says what it would do, and that is looked through: what it really does installs the environment."""
    done = subprocess.run(
        ["make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30
    )
    mine = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith(".venv/bin/python ")]
    assert mine or words == ["env"]
    for _, *command in mine:
        if command[:2] != ["-m", "venv"]:
            check(["python", *command])


RUN: dict[str, Callable[[list[str]], None]] = {  # the longest beginning first
    "python sim.py one-shot": one_shot,
    "python sim.py": simulate,
    "python -m task.data split": split,
    "python -m server.report": report,
    "python -m server.oneshot": combine,
    "python -m server enroll": enroll,
    "python -m server members": lambda words: manage(["members", *words]),
    "python -c": evaluate,
    "sudo -u": as_service,
    "chmod": lambda words: run_here(["chmod", *words]),
    "rm": lambda words: run_here(["rm", *words]),
    "make": make,
}


def begins(words: tuple[str, ...], text: str) -> bool:
    return words[: len(text.split())] == tuple(text.split())


def run(command: Command) -> None:
    """Run a command, or see that it could be and that it is run elsewhere.

    Raises:
        AssertionError: nobody knows how to run it, or it does not do.
    """
    words = command.words
    for text, held, test in ELSEWHERE:
        if begins(words, text) and any(held in word for word in words):
            exists(test)
            check(list(words))
            return
    if any(" ".join(words).startswith(text) for text in NOWHERE):
        return
    for text, way in RUN.items():
        if begins(words, text):
            need(list(words))
            way(list(words[len(text.split()) :]))
            return
    raise AssertionError(f"{command}: nobody runs this example; see RUN, ELSEWHERE and NOWHERE in {__file__}")


# How commands are checked that are not run ---------------------------------------------------------------------------


def check(words: list[str]) -> None:
    """See that the program takes these words, without running it."""
    for text, way in CHECK.items():
        if begins(tuple(words), text):
            try:
                way(words[len(text.split()) :])
            except SystemExit as end:
                assert not end.code, f"{' '.join(words)}: refused"
            return
    raise AssertionError(f"{' '.join(words)}: no parser is known for this program; see CHECK in {__file__}")


def exists(test: str) -> None:
    """See that there is a test of this name."""
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), f"there is no test {test}"


def check_comparison(parser: Any, words: list[str]) -> None:
    config, _ = config_and_folder(vars(parser.parse_args([word for word in words if word != "--help"])))
    if config:
        check_strategies(config)


def check_one_shot(words: list[str]) -> None:
    from task.oneshot import one_shot_config, one_shot_parser

    one_shot_config(vars(one_shot_parser("sim.py one-shot").parse_args(words)))


def check_members(words: list[str]) -> None:
    from server.enroll import add_commands

    parser = Parser()
    add_commands(parser.add_subparsers(required=True))
    parser.parse_args(words)


def check_server(words: list[str]) -> None:
    module = program("server.__main__")
    if words[:1] and words[0] in module.COMMANDS:
        check_members(words)
    else:
        check_comparison(module._parser(), words)


def check_pytest(words: list[str]) -> None:
    if words and not words[0].startswith("-"):
        file, option, word = words
        assert option == "-k" and re.search(rf"^def test\w*{word}", (ROOT / file).read_text(), re.MULTILINE)


def check_split(words: list[str]) -> None:
    from task.split import main as split_main

    with redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit):
        split_main(["split", "--help"])
    unknown = {word for word in words if word.startswith("--")} - options_in(said.getvalue())
    assert words[:1] == ["split"] and not unknown


def check_ray(words: list[str]) -> None:
    from ray.scripts.scripts import start

    start.make_context("start", words)


def check_superlink(words: list[str]) -> None:
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink

    _parse_args_run_superlink().parse_args(words)


def check_supernode(words: list[str]) -> None:
    from flwr.common.config import parse_config_args
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    given = _parse_args_run_supernode().parse_args(words)
    assert parse_config_args([given.node_config]).keys() == {"partition-id", "shard"}


def check_flwr_run(words: list[str]) -> None:
    import typer
    from flwr.cli.app import app
    from flwr.common.config import parse_config_args

    from server.app import config_of

    command: Any = typer.main.get_command(app)
    given = command.commands["run"].make_context("run", words).params
    assert given["app"] == "."
    changed = parse_config_args(list(given["run_config_overrides"]))
    config_of({name: value for name, value in changed.items() if name not in ("test", "out")})


CHECK: dict[str, Callable[[list[str]], object]] = {  # the longest beginning first
    "python sim.py one-shot": check_one_shot,
    "python sim.py": lambda words: check_comparison(sim._parser(), words),
    "python -m task.data": check_split,
    "python -m server.oneshot": lambda words: program("server.oneshot.__main__")._parser().parse_args(words),
    "python -m server": check_server,
    "python -m client": lambda words: program("client.__main__")._parser().parse_args(words),
    "python -m benchmarks": lambda words: program("benchmarks.__main__").parsed(words),
    "python -m pytest": check_pytest,
    "python -m ruff": lambda words: None,
    "python -m mypy": lambda words: None,
    "python -m pip": lambda words: None,
    "make": make,
    "ray start": check_ray,
    "flower-superlink": check_superlink,
    "flower-supernode": check_supernode,
    "flwr run": check_flwr_run,
}


def options_in(help_text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", help_text))


@cache
def our_options() -> set[str]:
    """All options of all our programs, as `--help` tells them."""
    from server.enroll import add_commands
    from task.oneshot import one_shot_parser

    members = Parser()
    of_members = members.add_subparsers()
    add_commands(of_members)
    parsers = [
        sim._parser(),
        one_shot_parser("sim.py one-shot"),
        program("server.__main__")._parser(),
        program("server.oneshot.__main__")._parser(),
        program("client.__main__")._parser(),
        *of_members.choices.values(),
    ]
    return {option for parser in parsers for option in options_in(parser.format_help())}


# Tests ---------------------------------------------------------------------------------------------------------------


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

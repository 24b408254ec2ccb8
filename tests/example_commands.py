"""How the commands of README.md and docs/ are run by a test: here and smaller, or elsewhere and only parsed here.

Simulations run as they are written, with smaller options behind, in this process: `inline_ray` stands for Ray. What
needs processes of its own is parsed by the program's own parser, and names the test that runs it.
"""

import csv
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import inline_ray
import numpy as np
import pytest
from examples import ROOT, Command, blocks
from made_up_runs import made_up_run

import sim
from server.checks import check_strategies
from server.guest import guest, hasty
from task.backend import load
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
    assert mine or words in (["env"], ["audit"])  # these have nothing of ours to check
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

    from server.app import OF_THE_APP, config_of

    command: Any = typer.main.get_command(app)
    given = command.commands["run"].make_context("run", words).params
    assert given["app"] == "."
    changed = parse_config_args(list(given["run_config_overrides"]))
    config_of({name: value for name, value in changed.items() if name.replace("-", "_") not in OF_THE_APP})


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

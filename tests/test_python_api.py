"""`sim.compare` and `sim.load`: the command from Python, in a process that is not the run's own."""

import asyncio
import csv
import gc
import hashlib
import inspect
import json
import logging
import math
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, fields
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from pyarrow import parquet

import server.compare
import sim
from server.comparison_result import ComparisonResult
from server.export import write_parquet
from server.guest import guest
from server.machine import Machine
from server.results import ClientRow, LocalRow, RoundRow, RunFolder
from server.statistics.pairs import Comparison
from server.statistics.targets import Target
from server.statistics.write import COMPARISON, TARGETS, rows_as_csv
from server.tensorboard import SCALARS, write_events
from task.chatter import Chatter
from task.config import RunConfig, Training
from task.errors import UserError
from task.keywords import RaisingParser, words_of
from task.options import config_from

STRATEGIES = ["fedmedian", "fedavg"]


def held() -> dict[str, Any]:
    """What a run uses of its host."""
    return {
        "streams": (sys.stdout, sys.stderr),
        "descriptors": [os.fstat(number).st_ino for number in (1, 2)],
        "collecting": (gc.isenabled(), gc.get_freeze_count() > 0),
        "switch": sys.getswitchinterval(),
        "path": os.environ.get("PYTHONPATH"),
        "umask": (mask := os.umask(0), os.umask(mask))[0],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "threads": {thread.name for thread in threading.enumerate()},
        "random": (random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002 - the host's
    }


@dataclass(frozen=True)
class Case:
    result: ComparisonResult
    options: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def run(self) -> dict[str, Any]:
        return json.loads((self.result.folder / "run.json").read_text())


@pytest.fixture(scope="module")
def case(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A comparison in this process."""
    os.environ["FEDARENA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    options = {
        "strategies": STRATEGIES,
        "seeds": range(2),
        "rounds": np.int64(2),
        "clients": 3,
        "dataset": small_data,
        "model": "mlp",
        "batch_size": 16,
        "learning_rate": 0.1 + 0.2,
        "sample": None,
        "workers": 1,
        "tensorboard": True,
        "out": tmp_path_factory.mktemp("api") / "out",
    }
    before = held()
    result = sim.compare(**options)
    return Case(result, options, before, held())


# Two runs, one process ----------------------------------------------------------------------------------------------


def test_the_process_is_found_as_it_was(case: Case):
    assert case.after == case.before


def test_again_in_the_same_process_under_a_running_loop_gives_the_same_bits(case: Case, tmp_path: Path, capfd):
    before = held()
    again = {**case.options, "strategies": "fedavg", "seeds": 1, "out": str(tmp_path / "out"), "tensorboard": False}

    async def cell() -> ComparisonResult:  # as a notebook's kernel runs one
        return sim.compare(**again, quiet=False)

    result = asyncio.run(cell())
    said = capfd.readouterr()
    assert held() == before
    assert "fedavg finished" in said.out
    assert said.err == ""
    assert result.finished
    assert Case(result, again, {}, {}).run["results"]["iid/fedavg/seed1"] == case.run["results"]["iid/fedavg/seed1"]
    assert not (tmp_path / "out" / "tensorboard").exists()


def test_the_run_records_the_command_that_repeats_it(case: Case):
    python, program, *words = shlex.split(shlex.join(case.run["command"]))
    assert (python, program) == ("python", "sim.py")
    given = vars(sim._parser(RaisingParser).parse_args(words))
    assert given["tensorboard"] is True
    assert "quiet" not in given
    assert config_from(given).model_dump(mode="json") == case.run["config"]
    assert case.run["config"]["training"]["learning_rate"] == 0.1 + 0.2


# The result ---------------------------------------------------------------------------------------------------------


def test_frames_hold_the_rows_of_the_files(case: Case):
    result = case.result
    assert (result.status, result.finished, result.report.name) == ("finished", True, "report.html")
    for name, frame in (("rounds", result.rounds), ("clients", result.clients), ("local", result.local)):
        with (result.folder / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(frame.columns) == list(rows[0])
        assert len(frame) == len(rows) == {"rounds": 2 * 2 * 3}.get(name, 2 * 2 * 2 * 3)
        keys = [key for key in ("scenario", "strategy", "seed", "round", "client") if key in frame]
        number = "test_loss" if name == "rounds" else "train_loss" if name == "clients" else "update_norm"
        written = {tuple(row[key] for key in keys): float(row[number]) for row in rows}  # exact: the csv has repr
        read = {
            tuple(map(str, key)): value
            for *key, value in frame[[*keys, number]].astype({number: object}).itertuples(index=False)
        }
        assert read == written


def test_dtypes_and_order_are_those_of_the_run(case: Case):
    rounds, clients = case.result.rounds, case.result.clients
    assert isinstance(rounds["strategy"].dtype, pd.CategoricalDtype)
    assert list(rounds["strategy"].cat.categories) == STRATEGIES  # as given, not by the alphabet
    assert rounds.dtypes[["seed", "round", "clients_ok", "bytes_up"]].eq("int64").all()
    assert rounds.dtypes[["test_accuracy", "test_loss", "seconds"]].eq("float64").all()
    assert clients.dtypes[["num_examples", "local_steps"]].eq("Int64").all()
    keys = list(zip(rounds["strategy"].cat.codes, rounds["seed"], rounds["round"], strict=True))
    assert keys == sorted(keys)


def test_models_are_those_whose_hashes_the_run_tells(case: Case):
    models = case.result.models
    assert list(models) == [("iid", strategy, seed) for strategy in STRATEGIES for seed in (0, 1)]
    model = models["iid", "fedavg", 1]
    assert models["iid", "fedavg", 1] is model
    total = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in model.get_weights()))
    assert total.hexdigest() == case.run["results"]["iid/fedavg/seed1"]["sha256"]
    for wrong in (("iid", "fednova", 1), ("iid", "fedavg")):
        assert wrong not in models


class Tags(HTMLParser):
    """Raises where an element is closed that is not the innermost one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.styles: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.styles += [value or "" for name, value in attributes if name == "style"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_a_notebook_shows(case: Case, monkeypatch):
    monkeypatch.chdir(case.result.folder.parent)
    page = case.result._repr_html_()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(case.result.verdict) >= 1
    assert case.result.verdict[0].split(":")[0] in page
    assert page.count("<tr") == 1 + 2
    assert 'href="out/report.html"' in page
    # Nothing that is right in the light or in the dark only: the page's own ink, on the page's own paper.
    said = [declaration.partition(":") for style in tags.styles for declaration in style.split(";")]
    inks = {value.strip() for name, _, value in said if name.strip() in ("color", "background", "background-color")}
    assert inks == {"inherit", "none"}
    assert repr(case.result).startswith("<ComparisonResult finished: 1 scenario, 2 strategies, 2 seeds, 3 clients")


def test_a_name_is_text_and_no_markup(tmp_path: Path):
    with RunFolder.create(tmp_path / "run") as folder:
        folder.write_run({"config": {}, "status": "failed", "results": {}})
        folder.write_round(RoundRow("iid", "my.<b>Mean</b>", 0, 0, 0.1, 2.3, 0, 0, 0, 0, 0.0))
    page = sim.load(tmp_path / "run")._repr_html_()
    assert "&lt;b&gt;Mean&lt;/b&gt;" in page
    assert "<b>failed</b>" in page


def test_a_run_that_another_process_writes_can_be_looked_at(case: Case, tmp_path: Path):
    assert sim.load(str(case.result.folder)).rounds.equals(case.result.rounds)
    with RunFolder.create(tmp_path / "run") as folder:  # held
        folder.write_run({"config": {"strategies": ["fednova"]}, "status": "running"})
        folder.write_round(RoundRow("iid", "fednova", 0, 0, 0.1, 2.3, 0, 0, 0, 0, 0.0))
        with (tmp_path / "run" / "rounds.csv").open("a") as file:
            file.write("iid,fednova,0,1,0.9")  # torn by a kill, or half written
        result = sim.load(tmp_path / "run")
        assert (result.status, result.finished) == ("running", False)
        assert list(result.rounds["round"]) == [0]
        assert len(result.clients) == len(result.local) == len(result.comparison) == len(result.models) == 0
        assert list(result.clients.columns) == [field.name for field in fields(ClientRow)]


def test_statistics_are_frames_of_their_rows(tmp_path: Path):
    with RunFolder.create(tmp_path / "run") as folder:
        folder.write_run({"config": {"strategies": ["krum:attackers=1", "fedavg"]}})
    pair = ("krum:attackers=1", "fedavg", "test_accuracy", 3, 0.1 + 0.2, 0.2, 0.1, None, None, None, None, "better")
    compared = [Comparison("iid", number, *pair) for number in (7, 2)]
    reached = [Target("iid", "fedavg", 0.9, 3, 1, 0, None, 2.0, None)]
    (tmp_path / "run" / COMPARISON).write_bytes(rows_as_csv(Comparison, compared))
    (tmp_path / "run" / TARGETS).write_bytes(rows_as_csv(Target, reached))
    result = sim.load(tmp_path / "run")
    assert list(result.comparison.columns) == [field.name for field in fields(Comparison)]
    assert list(result.comparison["round"]) == [7, 2]  # as written
    assert list(result.comparison["mean_a"]) == [0.1 + 0.2] * 2
    assert result.comparison["low"].isna().all()
    assert list(result.comparison["a"].cat.categories) == ["krum:attackers=1"]
    assert result.comparison.dtypes[["seeds", "round"]].eq("int64").all()
    assert result.targets.loc[0, ["reached", "low"]].tolist() == [1, 2.0]
    assert np.isnan(result.targets.loc[0, "median"])


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"^there is no run in .*nowhere: "):
        sim.load(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text('{"kind": "one-shot"}')
    with pytest.raises(UserError, match="holds a one-shot run"):
        sim.load(tmp_path)
    (tmp_path / "run.json").write_text('{"config": {}}')
    (tmp_path / "rounds.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"rounds.csv cannot be read: .*"):
        _ = sim.load(tmp_path).rounds


# Parquet ------------------------------------------------------------------------------------------------------------


def test_parquet_holds_the_same_frames(case: Case):
    for name, frame in (("rounds", case.result.rounds), ("clients", case.result.clients), ("local", case.result.local)):
        read = pd.read_parquet(case.result.folder / f"{name}.parquet")
        pd.testing.assert_frame_equal(read, frame, check_dtype=False, check_categorical=False)


def test_parquet_is_typed_and_tells_nan_from_nothing(tmp_path: Path):
    with RunFolder.create(tmp_path / "run") as folder:
        folder.write_run({"config": {"strategies": ["weighted", "fedavg"], "scenario": ["b=iid", "a=dropout"]}})
        reason = 'raised, "x": 1'
        for scenario, strategy in (("a", "fedavg"), ("b", "fedavg"), ("a", "weighted")):
            folder.write_client(ClientRow(scenario, strategy, 0, 2, 1, 8, 3, None, math.nan, 0.1, "ok", ""))
        folder.write_client(ClientRow("b", "fedavg", 0, 1, 0, None, None, None, None, None, "failed", reason))
        folder.write_client(ClientRow("b", "fedavg", 0, 2, 0, 8, 3, 0.1 + 0.2, math.inf, 1e-320, "ok", ""))
        folder.write_local([LocalRow("b", "fedavg", 0, 2, 0, None, 0.5, 1.0, None)])
        write_parquet(folder)
    table = parquet.read_table(tmp_path / "run" / "clients.parquet")
    assert {name: str(table.schema.field(name).type).split("<")[0] for name in table.column_names} == {
        **dict.fromkeys(["scenario", "strategy", "status", "reason"], "dictionary"),
        **dict.fromkeys(["seed", "round", "client", "num_examples", "local_steps"], "int64"),
        **dict.fromkeys(["local_norm", "train_loss", "seconds"], "double"),
    }
    nullable = {field.name for field in table.schema if field.nullable}
    assert nullable == {"num_examples", "local_steps", "local_norm", "train_loss", "seconds"}
    rows = table.to_pylist()
    told = [(row["scenario"], row["strategy"], row["round"], row["client"]) for row in rows]
    expected = [("b", "fedavg", 1, 0), ("b", "fedavg", 2, 0), ("b", "fedavg", 2, 1)]
    assert told == [*expected, ("a", "weighted", 2, 1), ("a", "fedavg", 2, 1)]
    assert (rows[0]["train_loss"], rows[0]["num_examples"], rows[0]["reason"]) == (None, None, reason)
    assert (rows[1]["local_norm"], rows[1]["train_loss"], rows[1]["seconds"]) == (0.1 + 0.2, math.inf, 1e-320)
    assert math.isnan(rows[2]["train_loss"])
    assert rows[2]["local_norm"] is None
    assert parquet.read_table(tmp_path / "run" / "rounds.parquet").num_rows == 0
    assert parquet.read_table(tmp_path / "run" / "local.parquet").to_pylist()[0]["cosine"] is None


# TensorBoard --------------------------------------------------------------------------------------------------------


def events(folder: Path) -> list[Any]:
    """As TensorBoard finds and reads them."""
    import tensorflow as tf

    (file,) = [path for path in folder.iterdir() if "tfevents" in path.name]
    return [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]


def test_a_run_is_there_for_tensorboard(case: Case):
    import tensorflow as tf

    place = case.result.folder / "tensorboard"
    assert {folder.name for folder in place.iterdir()} == {f"iid-{name}-seed{k}" for name in STRATEGIES for k in (0, 1)}
    version, *rounds = events(place / "iid-fedavg-seed1")
    assert version.file_version == "brain.Event:2"
    rows = case.result.rounds.query("strategy == 'fedavg' and seed == 1")
    assert [event.step for event in rounds] == list(rows["round"]) == [0, 1, 2]
    for event, (_, row) in zip(rounds, rows.iterrows(), strict=True):
        assert [value.tag for value in event.summary.value] == list(SCALARS)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            assert value.metadata.data_class == 1  # DATA_CLASS_SCALAR
            array = tf.make_ndarray(value.tensor)
            assert (array.shape, array.dtype) == ((), np.float32)  # all that TensorBoard's loader takes
            assert array == np.float32(row[SCALARS[value.tag]])
    started = json.loads((case.result.folder / "timing.json").read_text())["started"]
    times = [event.wall_time for event in rounds]
    assert started < times[0] < times[1] < times[2]


def test_wall_times_count_back_from_the_end_and_a_second_writing_replaces_the_first(tmp_path: Path):
    with RunFolder.create(tmp_path / "run") as folder:
        for number, seconds in ((0, 0.0), (2, 3.0), (1, 2.0)):
            folder.write_round(RoundRow("a b", "fedavg", 7, number, 0.5, math.nan, 5, 0, 10, 10, seconds))
        (tmp_path / "run" / "timing.json").write_text('{"finished": 1000.5}')
        write_events(folder)
        assert write_events(folder) == tmp_path / "run" / "tensorboard"
    found = events(tmp_path / "run" / "tensorboard" / "a_b-fedavg-seed7")
    assert [(event.step, event.wall_time) for event in found[1:]] == [(0, 995.5), (1, 997.5), (2, 1000.5)]
    assert math.isnan(found[1].summary.value[1].tensor.float_val[0])


# Keywords -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"round": 3}, "there is no keyword 'round'; did you mean 'rounds'?"),
        ({"learning-rate": 3}, "there is no keyword 'learning-rate'; did you mean 'learning_rate'?"),
        ({"zzz": 1}, "there is no keyword 'zzz'; there are strategies, rounds, "),
        ({"rounds": "ten"}, "rounds: invalid int value: 'ten'"),
        ({"rounds": 2.5}, "rounds: invalid int value: '2.5'"),
        ({"rounds": True}, "rounds: invalid int value: 'True'"),
        ({"rounds": [1, 2]}, "rounds takes one value, not [1, 2]"),
        ({"rounds": -3}, "rounds: Input should be greater than or equal to 1 (got -3)"),
        ({"strategies": []}, "strategies: expected at least one argument"),
        ({"strategies": "fedmedain"}, "unknown strategy 'fedmedain'; did you mean 'fedmedian'?"),
        ({"seeds": [0, -1]}, "seeds.1: Input should be greater than or equal to 0 (got -1)"),
        ({"workers": 0}, "workers: must be a whole number >= 1, not '0'"),
        ({"nesterov": "yes"}, "nesterov is True or False, not 'yes'"),
        ({"quiet": 3}, "quiet is True or False, not 3"),
        ({"sample": 9, "clients": 5}, "sample (9) is more than clients (5)"),
        (
            {"resume": "nowhere", "batch_size": 3},
            "resume goes on with the configuration of nowhere; leave out batch_size",
        ),
        ({"optimizer": "adam"}, "fednova is not defined for the optimizer adam"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_a_mistake_raises_one_line_in_the_words_of_python(options: dict[str, Any], says: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        sim.compare(**options)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value).partition("; use ")[0]
    assert list(tmp_path.iterdir()) == []


def test_the_signature_is_that_of_the_configuration():
    shown = inspect.signature(sim.compare).parameters
    known = {name: field.default for kind in (RunConfig, Training) for name, field in kind.model_fields.items()}
    known |= {field.name: field.default for field in fields(Machine)} | {"quiet": True}
    del known["training"]
    assert shown.keys() - known.keys() == {"out", "resume", "tensorboard"}
    assert {name: shown[name].default for name in known} == known
    assert shown["seeds"].annotation == tuple[int, ...]
    assert shown["clients"].annotation == int | None
    assert shown["tensorboard"].annotation is bool


def test_keywords_become_the_configuration_that_they_say():
    parser = sim._parser(RaisingParser)
    given = {
        "strategies": ("krum:attackers=1", "flwr.serverapp.strategy.FedAdam:eta=0.01"),
        "seeds": np.arange(3),
        "learning_rate": np.float64(1e-7),
        "momentum": 1 / 3,
        "nesterov": True,
        "dataset": Path("mnist"),
        "target": 0.85,
        "clients": None,
    }
    config = config_from(vars(parser.parse_args(words_of(parser, given))))
    training = Training(learning_rate=1e-7, momentum=1 / 3, nesterov=True)
    rest = {name: given[name] for name in ("strategies", "target")}
    assert config == RunConfig(**rest, seeds=(0, 1, 2), dataset="mnist", training=training)
    assert words_of(parser, {"out": "-odd", "nesterov": False}) == ["--out=-odd"]


# The host's process -------------------------------------------------------------------------------------------------


def test_importing_changes_nothing_and_imports_nothing_heavy():
    code = (
        "import gc, os, sys; before = dict(os.environ); import sim; heavy = 'tensorflow keras flwr ray pandas pyarrow';"
        "assert gc.isenabled() and sys.getswitchinterval() == 0.005 and dict(os.environ) == before;"
        "assert not [name for name in heavy.split() if name in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_only_the_main_thread_may_call(monkeypatch):
    caught: list[Exception] = []

    def call() -> None:
        try:
            sim.compare()
        except UserError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert "main thread" in str(caught[0])


def test_a_ray_of_the_hosts_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    with pytest.raises(UserError, match="Ray runs in this process already"):
        sim.compare()


def test_ctrl_c_is_no_result(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(server.compare, "compare", lambda *_, **__: 130)
    with pytest.raises(KeyboardInterrupt, match=r"sim.load\('.*out'\)"):
        sim.compare(out=tmp_path / "out")


def test_a_guest_keeps_what_libraries_say_from_the_host_and_puts_everything_back(tmp_path: Path, capfd, monkeypatch):
    cell = StringIO()  # a notebook's sys.stdout leads to no descriptor
    monkeypatch.setattr(sys, "stdout", cell)
    monkeypatch.setattr(logging.getLogger("flwr"), "handlers", [logging.StreamHandler(cell)])
    before = held()
    with guest(), Chatter(verbose=False) as chatter:
        assert not gc.isenabled()
        chatter.redirect(tmp_path / "log")
        sys.stdout.write("python\n")
        os.write(1, b"library\n")
        logging.getLogger("flwr").error("flower")
        np.random.seed(5)  # noqa: NPY002 - as Keras does
        random.seed(5)
        chatter.err.write("ours\n")
        chatter.err.flush()
    assert held() == before
    os.write(1, b"host\n")
    sys.stdout.write("cell\n")
    logging.getLogger("flwr").error("late")
    assert sorted((tmp_path / "log").read_text().split()) == ["flower", "library", "python"]
    said = capfd.readouterr()
    assert (said.out, said.err) == ("host\n", "ours\nlate\n")
    assert cell.getvalue() == "cell\n"

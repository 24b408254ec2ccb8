"""Files that are damaged, odd or hostile, at every door: it works, or one clear line says what and where.

`FUZZ_SEED=7 FUZZ_TIMES=20 python -m pytest tests/test_fuzz_files.py -s` throws others, and more of them.
"""

import base64
import csv
import gzip
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pytest
from fuzz import Dice, throw
from made_up_runs import made_up_run

import sim
from client.budget import Ledger
from server.certificates import read_certificate
from server.checks import check_strategies
from server.enroll import enroll
from server.oneshot.keras_archive import read_archive
from server.oneshot.keras_config import check_config
from server.oneshot.keras_files import load_models
from server.report.__main__ import main as report
from server.report.pool import pool
from server.report.read import read_run
from server.results import RunFolder
from server.roster import Roster
from server.serve import Service
from server.statistics.write import write_statistics
from server.summary import Outcome, summary_table
from task import data, idx
from task.errors import UserError
from task.identity import Identity
from task.jsontext import read_object
from task.scenario import resolved, scenario_of
from task.shardfile import load_public, load_shard, load_test, read_header
from task.shards import prepare


@pytest.fixture(autouse=True)
def no_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code in a file would leave a canary where it runs."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "canary").exists(), "code out of a file was run"


def npz(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


X = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)
Y = np.arange(12, dtype=np.int32) % 3
WHOLE = npz(x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6], num_classes=np.array(3))
SHARD = npz(
    x=X,
    y=Y,
    client=np.array(0),
    clients=np.array(2),
    num_classes=np.array(3),
    dataset=np.array("d"),
    scale=np.array(9.0),
)


def odd_npz(content: bytes) -> Callable[[Dice], bytes]:
    """Damage of any kind to an .npz file."""

    def make(dice: Dice) -> bytes:
        if (odd := fuzz.odd_archive(dice, content)) is not None:
            return odd
        names = np.load(io.BytesIO(content), allow_pickle=False).files
        arrays = {name: np.load(io.BytesIO(content))[name] for name in names}
        arrays[dice.choice(names)] = odd_array(dice)
        return npz(**arrays)

    return make


def odd_array(dice: Dice) -> np.ndarray:
    """An array that is well made, and hardly ever what is wanted."""
    shape = dice.choice([(), (0,), (1,), (3,), (12,), (12, 0), (12, 1), (12, 4, 4), (12, 2, 2, 2, 2), (0, 4, 4)])
    kind = dice.choice(["u1", "i1", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "?", "S3", "U2", "M8[s]", "V4", "f16"])
    if kind in ("U2", "S3", "V4", "M8[s]"):
        return np.zeros(shape, kind)
    value = dice.choice([0, 1, -1, 255, 1e30, 1e300, np.nan, np.inf, -np.inf, 2**31, -(2**63), 2**64 - 1])
    with np.errstate(all="ignore"):
        return np.full(shape, value).astype(kind)


def test_data_sets(tmp_path: Path) -> None:
    file = tmp_path / "whole.npz"
    assert throw("data set", 600, odd_npz(WHOLE), lambda: data.load(str(file)), file)


def test_shards_are_cut_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "cut.npz"
    scenarios = ["iid", "label-skew:least=1", "feature-skew", "outlier:kind=unscaled"]
    turn = iter(range(10**9))

    def door() -> None:
        prepare(str(file), 2, 0, scenarios[next(turn) % 4], cache=tmp_path / "cache")

    assert throw("cut", 80, odd_npz(WHOLE), door, file)


@pytest.mark.parametrize("classes", [0, -1, 2**20 + 1, 2**31, 2**40, 2**63 - 1])
def test_classes_that_would_fill_the_memory_with_counts(tmp_path: Path, classes: int) -> None:
    file = tmp_path / "whole.npz"
    file.write_bytes(npz(x_train=X, y_train=Y, x_test=X, y_test=Y, num_classes=np.array(classes)))
    with fuzz.bounded():
        assert fuzz.refusal(lambda: prepare(str(file), 2, 0, cache=tmp_path / "cache"), file)


@pytest.mark.parametrize("read", [load_shard, load_test, load_public, read_header])
def test_shards(tmp_path: Path, read: Callable[[Path], object]) -> None:
    file = tmp_path / "shard-0.npz"
    assert throw(read.__name__, 250, odd_npz(SHARD), lambda: read(file), file)


@pytest.mark.parametrize("name", ["shard-1.npz", "test.npz", "public.npz"])
def test_folders_of_ready_shards(tmp_path: Path, name: str) -> None:
    for client, part in enumerate(["shard-0.npz", "shard-1.npz", "test.npz", "public.npz"]):
        y = {} if part == "public.npz" else {"y": Y}
        number = {"client": np.array(client)} if client < 2 else {}
        (tmp_path / part).write_bytes(npz(x=X, **y, **number, num_classes=np.array(3)))
    made = odd_npz((tmp_path / name).read_bytes())

    def door() -> None:
        try:
            prepare(str(tmp_path), None, 0, public=1)
        except UserError as error:  # files at odds with each other: the folder is named
            raise UserError(str(error).replace(f"{tmp_path}:", f"{tmp_path / name}:")) from error

    assert throw(f"ready {name}", 120, made, door, tmp_path / name)


@pytest.mark.parametrize("header", fuzz.ODD_HEADERS, ids=lambda header: repr(header[:60]))
def test_what_an_array_says_of_its_size_is_believed_after_a_look_at_the_file(tmp_path: Path, header: bytes) -> None:
    import tracemalloc

    file = tmp_path / "shard-0.npz"
    tracemalloc.start()
    try:
        for how in (0, 8):
            file.write_bytes(fuzz.zipped([("x.npy", fuzz.odd_npy(Dice(1), header)), ("y.npy", b"")], how))
            assert fuzz.refusal(lambda: load_shard(file), file)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files(tmp_path: Path, end: str) -> None:
    file = tmp_path / f"train-images-idx3-ubyte{end}"
    plain = struct.pack(">BBBBIII", 0, 0, 8, 3, 12, 4, 4) + X.tobytes()

    def make(dice: Dice) -> bytes:
        whole = dice.random() < 0.5
        content = plain if end and whole else fuzz.damaged(dice, plain)
        packed = gzip.compress(content, mtime=0) if end else content
        return fuzz.damaged(dice, packed) if end and whole else packed

    assert throw(f"idx{end}", 300, make, lambda: idx.read(file), file)


TOML = b"""name = "hospitals"

[label-skew]
alpha = 0.1
least = 5

[dropout]
p = 0.3

[byzantine]
attack = "ipm"
attackers = 1
"""

ODD_TOML = (
    *(
        b"[" * 50_000,
        b"a = " + b"[" * 50_000,
        b"a = " + b"{a=" * 20_000,
        b"x." * 8_000 + b"y = 1",
        b"x." * 20_000 + b"y = 1",
        b"\xff",
        b"\0",
    ),
    *(b"[iid]\n[iid]\n", b"name = 1979-05-27\n[iid]\n", b"name = 'a b'\n[iid]\n", b"name = ['x']\n[iid]", b"iid = 1"),
    *(b"[[iid]]\n", b"[iid.more]\n", b"name = '" + b"x" * 9000 + b"'\n[iid]\n", b"['" + b"x" * 9000 + b"']\n"),
)
ODD_TOML_VALUES = (
    *("1e999", "nan", "-inf", "0", "-1", "9" * 5000, "9" * 400, "0x" + "f" * 9000, "true", "[]", "{}", "'x'", "''"),
    *("1979-05-27", "07:32:00", "[[[[1]]]]", "'" + "x" * 5000 + "'", '"\\u202e"', '"\\u0000"', "1.5", "1e-320"),
)


def test_scenario_files(tmp_path: Path) -> None:
    file = tmp_path / "hospitals.toml"

    def make(dice: Dice) -> bytes:
        if dice.random() < 0.5:
            return fuzz.damaged(dice, TOML)
        if dice.random() < 0.1:
            return dice.choice(ODD_TOML)
        lines = TOML.decode().splitlines()
        at = dice.choice([n for n, line in enumerate(lines) if "=" in line])
        lines[at] = f"{lines[at].split(' ')[0]} = {dice.choice(ODD_TOML_VALUES)}"
        return "\n".join(lines).encode()

    # What is let in is a text that reads back to itself.
    def door() -> None:
        text = resolved(str(file))
        assert resolved(text) == text and scenario_of(text).written

    assert throw("toml", 700, make, door, file)


def test_the_index_of_cached_shards(tmp_path: Path) -> None:
    whole, cache = tmp_path / "whole.npz", tmp_path / "cache"
    whole.write_bytes(WHOLE)
    made = prepare(str(whole), 2, 0, cache=cache)
    file = made.folder / "shards.json"
    index = json.loads(file.read_bytes())

    def door() -> None:
        assert prepare(str(whole), 2, 0, cache=cache) == made  # made anew where it was damaged

    assert throw("shards.json", 200, lambda dice: fuzz.odd_json(dice, index), door, file) == 0


def test_ledgers(tmp_path: Path) -> None:
    file = tmp_path / "north.dp.json"
    known = {"format": 1, "spent": [{"noise": 0.5, "updates": 3}, {"noise": 1.5, "updates": 20}]}

    def door() -> None:
        spent = Ledger(file).spent(1e-5)
        assert spent.epsilon >= 0 and isinstance(spent.updates, int)

    assert throw("ledger", 400, lambda dice: fuzz.odd_json(dice, known), door, file)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation") / "federation"
    enroll(folder, ["north", "south"], ["fed.example.org"])
    return folder


def test_identities(federation: Path, tmp_path: Path) -> None:
    file = tmp_path / "north.identity"
    file.touch(0o600)
    content = (federation / "clients" / "north.identity").read_bytes()
    known = json.loads(content)

    def make(dice: Dice) -> bytes:
        if dice.random() < 0.5:
            return fuzz.odd_json(dice, known)
        name = dice.choice(["ca", "private_key"])
        if dice.random() < 0.5:  # below the armour
            head, *_, foot = known[name].splitlines()
            inside = fuzz.damaged(dice, base64.b64decode("".join(known[name].splitlines()[1:-1])))
            return json.dumps(known | {name: f"{head}\n{base64.encodebytes(inside).decode()}{foot}\n"}).encode()
        return json.dumps(known | {name: fuzz.damaged(dice, known[name].encode()).decode("latin1")}).encode()

    assert throw("identity", 400, make, lambda: Identity.read(file), file)


def test_rosters(federation: Path, tmp_path: Path) -> None:
    file = tmp_path / "roster.json"
    known = json.loads((federation / "roster.json").read_bytes())

    def door() -> None:
        for member in Roster.open(tmp_path).members:
            assert member.fingerprint and member.client >= 0

    assert throw("roster", 400, lambda dice: fuzz.odd_json(dice, known), door, file)


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "server.pem", "server.key"])
def test_certificates_and_keys(federation: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "federation"
    shutil.copytree(federation, folder)
    content = (folder / name).read_bytes()
    der = base64.b64decode(b"".join(content.splitlines()[1:-1]))
    head, *_, foot = content.splitlines()

    def make(dice: Dice) -> bytes:
        if dice.random() < 0.3:
            return fuzz.damaged(dice, content)
        return b"\n".join([head, base64.encodebytes(fuzz.damaged(dice, der)).strip(), foot, b""])

    def door() -> None:
        roster = Roster.open(folder)
        roster.check_certificate("fed.example.org")
        roster.warning()
        roster.certify(roster.hosts, datetime.now(UTC))

    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def anew() -> None:
        for other, was in kept.items():
            if other != name:
                (folder / other).write_bytes(was)
        try:
            door()
        except UserError as error:  # of two that do not belong together the other one may be named, in this folder
            raise UserError(str(error).replace(f"{folder}/", f"{folder / name} in ", 1)) from error

    assert throw(name, 60, make, anew, folder / name)


# Folders of runs ------------------------------------------------------------------------------------------------------

TABLES = ("rounds.csv", "clients.csv", "local.csv")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_up_run(
        tmp_path / "run", ["iid", "byzantine"], ["fedavg", "weighted", "fedmedian"], (0, 1), rounds=3, clients=2
    )


def odd_csv(content: bytes) -> Callable[[Dice], bytes]:
    """Damage to a table: to its bytes, its cells, or the order and number of its rows."""
    head, *rows = list(csv.reader(io.StringIO(content.decode())))

    def make(dice: Dice) -> bytes:
        kind = dice.randrange(4)
        if kind == 0:
            return fuzz.damaged(dice, content)
        table = [list(row) for row in rows]
        k = dice.randrange(len(table))
        if kind < 3:
            for _ in range(dice.choice([1, 1, 3])):
                table[dice.randrange(len(table))][dice.randrange(len(head))] = dice.choice(ODD_CELLS)
        elif dice.random() < 0.2:
            dice.shuffle(table)
        elif dice.random() < 0.5:
            table.insert(dice.randrange(len(table)), table[k])
        else:
            del table[k : k + dice.choice([1, 2, 9])]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([head, *table])
        return text.getvalue().encode(errors="surrogateescape")

    return make


ODD_CELLS = (
    *("", "0", "-1", "1", "7", "1.5", "1e999", "nan", "-inf", "inf", "1e308", "-1e308", "1e-320", "1_0", "0x10", "+5"),
    *("9" * 18, "9" * 19, "9" * 5000, "2147483648", "x", "x" * 5000, " 1", "true", "ok", "None", '"', "a\nb", "\0"),
    *("\x1b[2J", "</script>", "\u202e", "iid", "fedavg", "flwr..x", ":", "=cmd|'/c calc'!A0", "\udc80"),
)


def look(folder: Path) -> None:
    """What everyone who looks at a run makes of it, but for the page."""
    from server.report.client_rows import client_lines
    from server.report.embedded import embed
    from server.report.roles import parts_of

    outcome = Outcome.read(pool([read_run(folder)]))
    json.dumps(embed(outcome, parts_of(outcome.run), client_lines(outcome.clients, outcome.local)), allow_nan=False)
    summary_table(outcome.summaries).text()
    write_statistics(folder, outcome)


def test_run_json_of_a_run_that_is_looked_at(run: Path) -> None:
    known = json.loads((run / "run.json").read_bytes())
    assert throw("run.json", 300, lambda dice: fuzz.odd_json(dice, known), lambda: look(run), run / "run.json")


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_a_run_that_is_looked_at(run: Path, name: str) -> None:
    assert throw(name, 200, odd_csv((run / name).read_bytes()), lambda: look(run), run / name)


def go_on(folder: Path) -> None:
    """What `--resume` reads before anything starts."""
    with RunFolder.resume(folder) as opened:
        config = opened.read_config()
        opened.keep_rounds({})
    try:
        check_strategies(config)
    except UserError as error:  # says what strategy there is not, wherever it was asked for
        raise UserError(f"{folder / 'run.json'}: {error}") from error


def test_run_json_of_a_run_that_goes_on(run: Path) -> None:
    known = json.loads((run / "run.json").read_bytes())
    assert throw("resume", 300, lambda dice: fuzz.odd_json(dice, known), lambda: go_on(run), run / "run.json")


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_a_run_that_goes_on(run: Path, name: str) -> None:
    assert throw(f"resume {name}", 200, odd_csv((run / name).read_bytes()), lambda: go_on(run), run / name)


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from task.backend import load

    keras, _ = load()
    layers = keras.layers
    file = tmp_path_factory.mktemp("model") / "good.keras"
    stack = [keras.Input((6,)), layers.Dense(4, activation="relu"), layers.BatchNormalization(), layers.Dense(3)]
    keras.Sequential(stack).save(file)
    return file


def parts_of_archive(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_archives_of_models(model: Path, tmp_path: Path) -> None:
    file, content = tmp_path / "theirs.keras", model.read_bytes()
    parts = parts_of_archive(content)

    def make(dice: Dice) -> bytes:
        if (odd := fuzz.odd_archive(dice, content)) is not None:
            return odd
        return fuzz.zipped([*(parts | {"config.json": fuzz.odd_json(dice, json.loads(parts["config.json"]))}).items()])

    def door() -> None:
        check_config(read_archive(file))

    assert throw("keras archive", 300, make, door, file)


EVIL = (
    {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"function": {"class_name": "__lambda__", "config": 1}},
    },
    {"module": "canary_module", "class_name": "Layer", "config": {}, "registered_name": None},
    {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gASVAAAA"}},
    {"module": "os", "class_name": "function", "config": "mkdir", "registered_name": "mkdir"},
    {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "exec"},
    {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "get_file"},
    {"module": ["keras"], "class_name": {"a": 1}, "config": ["relu"]},
    {"module": "builtins", "class_name": "function", "config": ["relu"], "registered_name": ["relu"]},
)


def test_configurations_of_models(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of plain layers with odd values go to Keras, others do not; each loads, or is refused."""
    (tmp_path / "canary_module.py").write_text("import pathlib; pathlib.Path('canary').touch()")
    monkeypatch.syspath_prepend(tmp_path)
    file, parts = tmp_path / "theirs.keras", parts_of_archive(model.read_bytes())
    known = json.loads(parts["config.json"])
    known = {**known, "compile_config": None, "build_config": None}

    def make(dice: Dice) -> bytes:
        config = json.loads(json.dumps(known))
        layer = dice.choice(config["config"]["layers"][1:])
        if dice.random() < 0.2:
            evil = dice.choice(EVIL)
            place = dice.choice(["layers", "activation", "kernel_initializer", "dtype"])
            if place == "layers":
                config["config"]["layers"].append(evil)
            else:
                layer["config"][place] = evil
            content = json.dumps(config).encode()
        else:
            layer["config"][dice.choice(list(layer["config"]))] = dice.choice(fuzz.ODD_VALUES)
            content = json.dumps(config).encode()
        return fuzz.zipped([*(parts | {"config.json": content}).items()])

    assert throw("keras config", 60, make, lambda: load_models([model, file]), file)


def test_models_of_a_run_bring_no_code(run: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the module that run.json names nor what a model's file names is imported to look at a run."""
    (tmp_path / "canary_module.py").write_text("import pathlib; pathlib.Path('canary').touch()")
    monkeypatch.syspath_prepend(tmp_path)
    facts = json.loads((run / "run.json").read_bytes())
    facts["config"]["model"] = "canary_module:small"
    (run / "run.json").write_text(json.dumps(facts))
    file, parts = run / "models" / "iid-fedavg-seed0.keras", parts_of_archive(model.read_bytes())
    file.write_bytes(model.read_bytes())
    assert sim.load(run).models["iid", "fedavg", 0].count_params() > 0
    for evil in EVIL[:6]:
        config = json.loads(parts["config.json"])
        config["config"]["layers"].append(evil)
        file.write_bytes(fuzz.zipped([*(parts | {"config.json": json.dumps(config).encode()}).items()]))
        told = fuzz.refusal(lambda: sim.load(run).models["iid", "fedavg", 0], file)
        assert told and "canary_module" in told


def test_weights_of_models(model: Path, tmp_path: Path) -> None:
    file, parts = tmp_path / "theirs.keras", parts_of_archive(model.read_bytes())

    def make(dice: Dice) -> bytes:
        weights = fuzz.damaged(dice, parts["model.weights.h5"])
        return fuzz.zipped([*(parts | {"model.weights.h5": weights}).items()])

    assert throw("keras weights", 60, make, lambda: load_models([file]), file)


# Other things in a file's place, and the commands ---------------------------------------------------------------------


def test_what_is_no_file_is_refused_everywhere(federation: Path, run: Path, model: Path, tmp_path: Path) -> None:
    doors: list[tuple[Path, Callable[[Path], object]]] = [
        (tmp_path / "whole.npz", lambda file: data.load(str(file))),
        (tmp_path / "whole.npz", lambda file: prepare(str(file), 2, 0, cache=tmp_path / "cache")),
        (tmp_path / "shard-0.npz", load_shard),
        (tmp_path / "public.npz", lambda file: load_public(file)),
        (tmp_path / "labels-idx1-ubyte", idx.read),
        (tmp_path / "labels-idx1-ubyte.gz", idx.read),
        (tmp_path / "hospitals.toml", lambda file: resolved(str(file))),
        (tmp_path / "north.identity", Identity.read),
        (tmp_path / "roster.json", lambda file: Roster.open(file.parent)),
        (tmp_path / "ca.pem", lambda file: read_certificate(file, "mend it")),
        (tmp_path / "theirs.keras", read_archive),
        (run / "run.json", lambda file: read_run(file.parent)),
        (tmp_path / "north.dp.json", lambda file: Ledger(file).spent(1e-5)),
    ]
    let_in = []
    with fuzz.bounded():
        for file, door in doors:
            for kind in fuzz.in_its_place(file):
                named = file.parent if kind == "folder" or file.name == "roster.json" else file
                if fuzz.refusal(lambda door=door, file=file: door(file), named) is None:  # type: ignore[misc]
                    let_in.append((file.name, kind))
    # A ledger that nobody made yet is empty; so is one whose folder is not there yet.
    assert {name for name, _ in let_in} == {"north.dp.json"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", b"[" * 99_999), ("run.json", b'{"config": 5}'), *((name, b"\xff\n\0\n") for name in TABLES)],
)
def test_the_commands_end_with_status_2_and_one_line(
    run: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).write_bytes(content)
    for main, words in ((report, [str(run)]), (sim.main, ["--resume", str(run)])):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and str(run / name) in told


def test_the_service_of_a_run_that_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    known = asdict(Service(round_deadline=5.0, patience=2.0))

    def door() -> None:
        try:
            saved = read_object(file.read_bytes())
        except ValueError:
            return
        assert Service.read(saved, {}).patience > 0

    assert throw("service", 300, lambda dice: fuzz.odd_json(dice, known), door, Path("run.json"))

"""What is private is for its owner alone, from the moment it exists, whatever the umask."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.budget import Ledger
from client.stock import _command
from server.enroll import enroll
from server.files import open_new
from server.parcel import labelled
from task import cache, split
from task.chatter import Chatter
from task.identity import Identity
from task.logfile import log_to
from task.shardfile import Header, write_shard


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The umask that hides nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def born(monkeypatch) -> dict[str, int]:
    """Mode of every file at the moment it is opened to be made, by name."""
    modes: dict[str, int] = {}
    real = os.open

    def opened(path, flags, mode=0o777, **more):
        new = bool(flags & os.O_CREAT) and not os.path.exists(path)  # noqa: PTH110
        number = real(path, flags, mode, **more)
        if new:
            modes[Path(os.fsdecode(path)).name] = stat.S_IMODE(os.fstat(number).st_mode)
        return number

    monkeypatch.setattr(os, "open", opened)
    return modes


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_shards_and_the_folders_that_hold_them(small_data, tmp_path, monkeypatch, born):
    monkeypatch.setenv("FEDARENA_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    assert split.main(["split", "--dataset", str(small_data), "--clients", "2", "--out", str(out)]) == 0
    (kept,) = (path for path in (tmp_path / "cache" / "shards").iterdir() if path.is_dir())
    for folder in (tmp_path / "cache", kept.parent, kept, out):
        assert mode(folder) == 0o700, folder
    for folder in (kept, out):
        assert [mode(folder / f"shard-{k}.npz") for k in range(2)] == [0o600] * 2
    private = {name: bits for name, bits in born.items() if name.startswith(".shard-")}  # the parts, before the rename
    assert len(private) == 4
    assert set(private.values()) == {0o600}


def test_a_shard_that_was_sent_to_another_machine(tmp_path, monkeypatch, born):
    shard = tmp_path / "shard-0.npz"
    write_shard(shard, np.zeros((2, 2)), np.zeros(2), Header(client=0))
    sent = labelled(shard).filled()
    shard.unlink()
    monkeypatch.setenv("FEDARENA_CACHE", str(tmp_path / "cache"))
    kept = sent.file()
    assert kept is not None
    assert [mode(folder) for folder in (kept.parent, kept.parent.parent, kept.parent.parent.parent)] == [0o700] * 3
    assert mode(kept) == 0o600
    assert {bits for name, bits in born.items() if "shard-0" in name} == {0o600}


def test_keys_of_a_federation(tmp_path, born):
    enroll(tmp_path / "federation", ["a"], ["fl.example.org"])
    folder = tmp_path / "federation"
    assert mode(folder) == mode(folder / "clients") == 0o700
    private = [folder / "ca.key", folder / "server.key", folder / "clients" / "a.identity"]
    assert [mode(path) for path in private] == [0o600] * 3
    parts = {name: bits for name, bits in born.items() if any(f".{path.name}." in name for path in private)}
    assert len(parts) == 3
    assert set(parts.values()) == {0o600}


def test_the_key_that_flowers_own_supernode_reads(tmp_path, born):
    identity = Identity.new("a", 0, None, b"ca")
    _command("127.0.0.1:1", identity, {}, tmp_path)
    assert mode(tmp_path / "key") == 0o600
    assert {bits for name, bits in born.items() if "key" in name} == {0o600}


def test_the_ledger(tmp_path, born):
    Ledger(tmp_path / "a.dp.json").record(1.0, 1e-5)
    assert mode(tmp_path / "a.dp.json") == 0o600
    assert {bits for name, bits in born.items() if name.startswith(".a.dp.json.") and "lock" not in name} == {0o600}


def test_logs_which_can_quote_data(tmp_path):
    file = tmp_path / "logs" / "client-0.jsonl"
    logger = log_to(file)
    try:
        logger.info("a line")
        (handler,) = logger.handlers
        handler.doRollover()  # type: ignore[attr-defined]
        logger.info("another")
        assert mode(file.parent) == 0o700
        assert [mode(path) for path in sorted(file.parent.iterdir())] == [0o600] * 2
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers = [logging.NullHandler()]


def test_what_libraries_say(tmp_path):
    kept = os.dup(1), os.dup(2)
    try:
        with Chatter(verbose=False) as chatter:
            chatter.redirect(tmp_path / "run.log")
    finally:
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
    assert mode(tmp_path / "run.log") == 0o600


def test_the_folder_of_a_run_whose_facts_are_about_clients(tmp_path):
    folder = tmp_path / "runs" / "first"
    open_new(folder, lambda path: path)
    assert mode(folder) == 0o700


def test_a_folder_that_is_there_keeps_its_mode(tmp_path):
    """Its owner decided who may look into it."""
    (tmp_path / "cache").mkdir(mode=0o755)
    assert mode(cache.folder(tmp_path / "cache")) == 0o755

"""A run's folder: rows survive kills and read back to the bit, one process at a time, every mistake is one line."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.results import ClientRow, Entry, RoundRow, RunFolder
from task.errors import UserError, printable
from task.limits import LIMITS

ROUND = RoundRow("iid", "fedavg", 0, 1, 0.1 + 0.2, 1 / 3, 5, 0, 10**12, 7, 1e-300)
CLIENT = ClientRow("iid", "fedavg", 0, 1, 2, 800, 25, 25.0, 0.25, 0.5, "ok", "")
FAILED = ClientRow("iid", "fedavg", 0, 1, 3, None, None, None, None, None, "failed", 'ValueError: "a", b')


def rounds_of(*numbers: int, entry: Entry = ROUND.entry) -> list[RoundRow]:
    return [RoundRow(*entry, number, *list(vars(ROUND).values())[4:]) for number in numbers]


def test_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as folder:
        assert (folder.path / "rounds.csv").read_text() == (
            "scenario,strategy,seed,round,test_accuracy,test_loss,clients_ok,clients_rejected,"
            "bytes_up,bytes_down,seconds\n"
        )
        assert (folder.path / "clients.csv").read_text() == (
            "scenario,strategy,seed,round,client,num_examples,local_steps,local_norm,train_loss,seconds,status,reason\n"
        )


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


def cells(column: str) -> st.SearchStrategy[float]:
    """Every number that a column can hold."""
    limits = LIMITS[column]
    if limits.whole:
        return st.integers(int(limits.low), int(limits.high))
    beside = st.sampled_from([math.nan, math.inf, -math.inf]) if limits.diverges else st.nothing()
    return st.floats(limits.low, limits.high) | beside


@given(
    st.lists(st.builds(RoundRow, names, names, *(cells(field.name) for field in fields(RoundRow)[2:]))),
    st.lists(
        st.builds(
            ClientRow,
            *(names, names, cells("seed"), cells("round"), cells("client")),
            *(st.none() | cells(field.name) for field in fields(ClientRow)[5:10]),
            st.sampled_from(["ok", "rejected", "failed"]),
            st.text(st.characters(codec="utf-8")),
        )
    ),
)
def test_rows_read_back_to_the_bit(rounds: list[RoundRow], clients: list[ClientRow]) -> None:
    with tempfile.TemporaryDirectory() as path, RunFolder.create(Path(path)) as folder:
        for row in rounds:
            folder.write_round(row)
        for client in clients:
            folder.write_client(client)
        one_line = [replace(client, reason=printable(" ".join(client.reason.split()))) for client in clients]
        assert repr(folder.read_rounds()) == repr(rounds)
        assert repr(folder.read_clients()) == repr(one_line)
        assert (folder.path / "clients.csv").read_bytes().count(b"\n") == 1 + len(clients)


def test_no_number_is_written_that_a_reader_would_refuse(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_client(CLIENT)
        for wrong in ({"num_examples": -5}, {"local_norm": 1e300}, {"seconds": math.nan}, {"local_steps": 2.0}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                folder.write_client(replace(CLIENT, **wrong))
        assert folder.read_clients() == [CLIENT]
        for loss, written in ((1e200, math.inf), (-1e200, -math.inf), (1e100, 1e100)):
            folder.write_round(replace(ROUND, test_loss=loss))
            assert folder.read_rounds()[-1].test_loss == written  # beyond the range: as what it is, diverged


def test_a_reason_that_is_no_unicode_is_kept_in_words(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_client(replace(FAILED, reason="file \udcff is bad"))
        assert folder.read_clients()[0].reason == "file ? is bad"


def test_a_killed_process_keeps_its_rows_and_frees_the_folder(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from server.results import *
from tests.test_results import ROUND, FAILED
folder = RunFolder.create(Path({str(tmp_path)!r}))
folder.write_round(ROUND); folder.write_client(FAILED)
print("written", flush=True); input()
"""
    root = Path(__file__).parents[1]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], cwd=root, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout and process.stdout.readline() == "written\n"
        with pytest.raises(UserError, match="another process"):
            RunFolder.resume(tmp_path)
        process.send_signal(signal.SIGKILL)
    with RunFolder.resume(tmp_path) as folder:
        assert folder.read_rounds() == [ROUND]
        assert folder.read_clients() == [FAILED]


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        for row in rounds_of(0, 1, 2):
            folder.write_round(row)
    file = tmp_path / "rounds.csv"
    content = file.read_bytes()
    last = content.rfind(b"\n", 0, -1) + 1
    for end in range(last, len(content)):
        file.write_bytes(content[:end])
        with RunFolder.resume(tmp_path) as folder:
            assert folder.read_rounds() == rounds_of(0, 1)
            folder.write_round(rounds_of(9)[0])
            assert folder.read_rounds() == rounds_of(0, 1, 9)


def test_a_torn_header_is_written_anew(tmp_path: Path) -> None:
    RunFolder.create(tmp_path).close()
    (tmp_path / "rounds.csv").write_text("scenario,str")
    with RunFolder.resume(tmp_path) as folder:
        folder.write_round(ROUND)
        assert folder.read_rounds() == [ROUND]


@pytest.mark.parametrize("line", ["iid,fedavg,0,x,1,1,1,1,1,1,1", "iid,fedavg,0", ""])
def test_a_row_changed_by_hand_is_named(tmp_path: Path, line: str) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_round(ROUND)
        file = tmp_path / "rounds.csv"
        file.write_text(file.read_text() + line + "\n")
        with pytest.raises(UserError, match=r"rounds\.csv: line 3 ") as error:
            folder.read_rounds()
        assert "\n" not in str(error.value)


def test_resume_keeps_only_finished_rounds(tmp_path: Path) -> None:
    kept, dropped = ROUND.entry, Entry("iid", "fednova", 0)
    with RunFolder.create(tmp_path) as folder:
        for row in rounds_of(0, 1, 2, 3) + rounds_of(0, 1, entry=dropped):
            folder.write_round(row)
        for number in (1, 2, 3):
            folder.write_client(replace(CLIENT, round=number))
        folder.write_client(replace(CLIENT, strategy="fednova"))
        folder.keep_rounds({kept: 2})
        folder.write_round(rounds_of(3)[0])
        assert folder.read_rounds() == rounds_of(0, 1, 2, 3)
        assert [row.round for row in folder.read_clients()] == [1, 2]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:

        def contestant(seed: int) -> None:
            for number in range(100):
                folder.write_round(rounds_of(number, entry=Entry("iid", "fedavg", seed))[0])
                folder.write_client(replace(FAILED, seed=seed, round=number))

        threads = [threading.Thread(target=contestant, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        by_seed = [[row.round for row in folder.read_rounds() if row.seed == seed] for seed in range(8)]
        assert by_seed == [list(range(100))] * 8
        assert len(folder.read_clients()) == 800


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path), pytest.raises(UserError, match="another process"):
        RunFolder.resume(tmp_path)
    RunFolder.resume(tmp_path).close()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_round(ROUND)
    before = (tmp_path / "rounds.csv").read_bytes()
    with pytest.raises(UserError, match=r"--out.*--resume"):
        RunFolder.create(tmp_path)
    assert (tmp_path / "rounds.csv").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text("{}")
    with pytest.raises(UserError, match="already holds a run"):
        RunFolder.create(other)


def test_a_refused_folder_is_free_again(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_run({})
    with pytest.raises(UserError):
        RunFolder.create(tmp_path)
    RunFolder.resume(tmp_path).close()


def test_unusable_places_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path, word in ((file, "is a file"), (file / "below", "Not a directory"), (tmp_path / ("x" * 300), "too long")):
        with pytest.raises(UserError, match=word) as error:
            RunFolder.create(path)
        assert "--out" in str(error.value) and "\n" not in str(error.value)
    for path in (tmp_path, file, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no run to resume"):
            RunFolder.resume(path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"cannot write results to .*Permission denied.*--out"):
        RunFolder.create(tmp_path)


def test_run_json_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_run({"status": "running", "name": "é"})
        with pytest.raises(ValueError, match="nan"):
            folder.write_run({"p_value": float("nan")})

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                folder.write_run({"status": "finished"})
        assert folder.read_run() == {"status": "running", "name": "é"}
        folder.write_run({"status": "finished"})
        assert json.loads((tmp_path / "run.json").read_text()) == {"status": "finished"}


@pytest.mark.parametrize("content", ["", "[]", '{"a": '])
def test_a_broken_run_json_is_one_line(tmp_path: Path, content: str) -> None:
    with RunFolder.create(tmp_path) as folder:
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(UserError, match=r"run\.json"):
            folder.read_run()


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (Entry("iid", "fedavg", 3), "iid-fedavg-seed3.keras"),
        (Entry("iid", "flwr.serverapp.strategy.FedAdam", 0), "iid-flwr.serverapp.strategy.FedAdam-seed0.keras"),
        (Entry("dirichlet:alpha=0.3", "krum:f=1,m=2", 0), "dirichlet_alpha_0.3-krum_f_1_m_2-seed0.keras"),
        (Entry("iid", "../../etc/x", 0), "iid-.._.._etc_x-seed0.keras"),
    ],
)
def test_model_names_are_safe_file_names(tmp_path: Path, entry: Entry, name: str) -> None:
    with RunFolder.create(tmp_path) as folder:
        assert folder.model_path(entry) == tmp_path / "models" / name
        assert folder.model_path(entry).parent.is_dir() and folder.checkpoints.is_dir()

"""Checkpoints: whole or passed over, of this run or refused; a full disk or a power cut takes no finished round."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline_grid import InlineGrid, mover
from test_rounds import contestant

from server.checkpoint import Checkpoints, Saved
from server.contest import Contest
from server.files import WriteError
from server.record import RunRecord
from server.recorder import Recorder
from server.results import Entry, RunFolder
from server.rounds import Contestant
from server.screen_plain import Plain
from server.starts import find_starts
from server.stop import Stop
from task.config import RunConfig, parse
from task.errors import UserError

ENTRY = Entry("iid", "scaffold", 3)
BELONGS = {"fedarena": "1", "versions": {"keras": "3"}, "config": {"training": {"learning_rate": 0.1}}, "data": {}}
X = [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(0.5).reshape(()), np.zeros(0, np.float16)]
DAMAGED = "is damaged (its checksum is another one)"
MEMORY = {"c": [np.arange(4.0), np.array(3, np.int64)], "client-3": X, "none": []}


def bits(arrays: list[np.ndarray]) -> list[tuple[Any, ...]]:
    return [(a.shape, a.dtype, a.tobytes()) for a in arrays]


def saved(folder: Path, *rounds: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, BELONGS)
    for number in rounds:
        checkpoints.save(ENTRY, Saved(number, [a + a.dtype.type(number) for a in X], MEMORY))
    return checkpoints


def test_what_is_saved_comes_back_to_the_bit_and_the_last_two_are_kept(tmp_path: Path):
    checkpoints = saved(tmp_path, *range(12))
    checkpoints.save(ENTRY._replace(seed=33), Saved(99, X, {}))
    assert len(list(tmp_path.iterdir())) == 3
    told: list[str] = []
    found = checkpoints.latest(ENTRY, 11, told.append)
    assert found is not None and told == []
    assert (found.round, bits(found.arrays)) == (11, bits([a + a.dtype.type(11) for a in X]))
    assert [(name, bits(arrays)) for name, arrays in found.memory.items()] == [(n, bits(a)) for n, a in MEMORY.items()]
    assert checkpoints.latest(Entry("iid", "fedmedian", 3), 11, told.append) is None
    assert all(array.flags.writeable for array in found.arrays)


def test_any_bit_that_is_flipped_and_any_byte_that_is_missing_is_found(tmp_path: Path):
    checkpoints = saved(tmp_path, 4, 5)
    newest = max(tmp_path.iterdir())
    whole = newest.read_bytes()
    random = np.random.default_rng(0)

    def passed_over(content: bytes) -> None:
        newest.write_bytes(content)
        told: list[str] = []
        found = checkpoints.latest(ENTRY, 5, told.append)
        assert found is not None and found.round == 4
        assert told == [
            f"iid/scaffold/seed3: {newest.name} is damaged (its checksum is another one); going on from round 4"
        ]

    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        passed_over(bytes(damaged))
    for length in range(len(whole)):
        passed_over(whole[:length])
    passed_over(whole + b"\0")
    passed_over(bytes(len(whole)))


def test_where_none_is_whole_the_contestant_begins_anew_and_it_is_said(tmp_path: Path):
    checkpoints = saved(tmp_path, 1, 2)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    told: list[str] = []
    assert checkpoints.latest(ENTRY, 2, told.append) is None
    assert len(told) == 1 and told[0].endswith("; beginning anew") and told[0].count("is damaged") == 2


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"versions": {"keras": "4"}}, "versions.keras '3', here it is '4'"),
        ({"fedarena": "2"}, "fedarena '1', here it is '2'"),
        ({"config": {"training": {"learning_rate": 0.2}}}, "config.training.learning_rate 0.1, here it is 0.2"),
        ({"config": {"training": {"learning_rate": 0.1}, "more": 1}}, "config.more None, here it is 1"),
        ({"data": {"iid/seed3": "ff"}}, "data.iid/seed3 None, here it is 'ff'"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path: Path, other: dict[str, Any], says: str):
    saved(tmp_path, 2)
    checkpoints = Checkpoints(tmp_path, {**BELONGS, **other})
    for look in (lambda: checkpoints.check(ENTRY), lambda: checkpoints.latest(ENTRY, 2, print)):
        with pytest.raises(UserError) as caught:
            look()
        assert says in str(caught.value) and "--out" in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_of_another_contestant_or_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = saved(tmp_path, 2)
    (file,) = tmp_path.iterdir()
    shutil.copy(file, tmp_path / file.name.replace("scaffold", "fedavg"))
    with pytest.raises(UserError, match=r"contestant 'iid/scaffold/seed3', here it is 'iid/fedavg/seed3'"):
        checkpoints.check(Entry("iid", "fedavg", 3))
    monkeypatch.setattr("server.checkpoint._FORMAT", 2)
    with pytest.raises(UserError, match="is of format 1, this version reads 2"):
        checkpoints.latest(ENTRY, 2, print)


# -- a run on a disk


CONFIG = RunConfig(strategies=("fedavg", "scaffold", "fedavgm", "fedmedian"), rounds=5, clients=3)


class Run:
    """A comparison in a folder, with everything that a real one writes while it plays, and neither Ray nor a model."""

    def __init__(self, path: Path, config: RunConfig = CONFIG) -> None:
        self.path, self.config = path, config
        self.lines: list[str] = []

    def play(self, *, resume: bool, data: str = "ab") -> dict[str, str]:
        """The final hashes.

        Raises:
            WriteError: the folder cannot be written.
        """
        folder = RunFolder.resume(self.path) if resume else RunFolder.create(self.path)
        with folder, closing(Plain(self)) as screen:
            config = folder.read_config() if resume else self.config
            record = RunRecord(folder, config, {"shards": {"iid/seed0": data}}, ["play"], resumed=resume)
            record.begin()
            contestants = [self.contestant(name) for name in config.strategies]
            entries = [one.entry for one in contestants]
            recorder = Recorder(folder, record.checkpoints, screen, entries, 0.0)
            starts = find_starts(entries, {0: [np.zeros((40, 25), np.float32)]}, folder, recorder)
            contest = Contest(contestants, starts, config.rounds, recorder, Stop())
            contest.run()
            recorder.write_timing()
            return {entry.strategy: ending.sha256 for entry, ending in contest.endings.items()}

    def contestant(self, name: str) -> Contestant:
        return contestant(InlineGrid({k: drifting(k) for k in range(3)}), name)

    def write(self, text: str) -> int:
        self.lines.append(text)
        return len(text)

    def flush(self) -> None: ...

    def rows(self, name: str) -> list[str]:
        """Rows without their seconds, in order of contestants and rounds."""
        lines = (self.path / name).read_text().splitlines()
        return sorted(line.rsplit(",", 1)[0] if name == "rounds.csv" else line for line in lines)


def drifting(k: int):
    def fit(arrays, config):
        pull = 1.0 / (k + 2)
        return mover(pull * (config["server-round"] - float(arrays[0][0, 0])), 10 * (k + 1), number=k)(arrays, config)

    return fit


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, str]]:
    run = Run(tmp_path_factory.mktemp("run") / "out")
    return run, run.play(resume=False)


def assert_same(run: Run, hashes: dict[str, str], undisturbed: tuple[Run, dict[str, str]]) -> None:
    whole, expected = undisturbed
    assert hashes == expected, "".join(run.lines)
    for name in ("rounds.csv", "clients.csv", "local.csv"):
        assert run.rows(name) == whole.rows(name)


def test_a_disk_that_takes_no_more_at_any_moment_loses_nothing(tmp_path, undisturbed, monkeypatch):
    """The n-th time that something is to reach the disk it does not, for every n."""
    real, calls, broken = os.fsync, 0, 1
    while True:

        def fsync(file: int, broken: int = broken) -> None:
            nonlocal calls
            calls += 1
            if calls >= broken:
                raise OSError(28, "No space left on device")
            real(file)

        run, calls = Run(tmp_path / str(broken)), 0
        try:
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", fsync)
                hashes = run.play(resume=False)
        except WriteError as error:
            assert f"(No space left on device): make room, then go on with --resume {run.path}" in str(error)
        except UserError as error:  # before there is anything to go on with
            assert "cannot write results to" in str(error)
            shutil.rmtree(run.path)
        else:
            assert_same(run, hashes, undisturbed)
            break
        assert not list(tmp_path.glob("**/.*.part"))
        assert_same(run, run.play(resume=(run.path / "run.json").exists()), undisturbed)
        broken += 1
    assert broken > 4 * 6 * 2  # four contestants, six rounds, a file and its folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, whose size can be set by mounting it again."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a disk of its own needs the right to mount one")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_disk_that_is_really_full_loses_nothing(disk: Path, undisturbed):
    full = 0
    for number, kib in enumerate(range(20, 400, 12)):
        subprocess.run(["mount", "-o", f"remount,size={kib}k", disk], check=True)
        run = Run(disk / str(number))
        try:
            hashes = run.play(resume=False)
        except UserError as error:
            full += isinstance(error, WriteError)
            subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
            hashes = run.play(resume=(run.path / "run.json").exists())
        assert_same(run, hashes, undisturbed)
        shutil.rmtree(run.path)
    assert full > 5


def test_rows_that_a_power_cut_took_are_played_again(tmp_path, undisturbed):
    """Checkpoints are flushed to the disk, rows are not: they may be the older ones then."""
    for name, left in (("rounds.csv", 12), ("clients.csv", 30), ("local.csv", 3), ("rounds.csv", 1)):
        run = Run(tmp_path / f"{name}-{left}")
        shutil.copytree(undisturbed[0].path, run.path)
        file = run.path / name
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:left]))
        assert_same(run, run.play(resume=True), undisturbed)
        assert any("newer than the rows in the tables" in line for line in run.lines)


def test_a_damaged_checkpoint_is_told_of_and_the_run_comes_to_the_same_bits(tmp_path, undisturbed):
    run = Run(tmp_path / "out")
    shutil.copytree(undisturbed[0].path, run.path)
    newest = max((run.path / "checkpoints").glob("iid-scaffold-*"))
    newest.write_bytes(newest.read_bytes()[:100])
    assert_same(run, run.play(resume=True), undisturbed)
    assert (
        f"iid/scaffold/seed0: {newest.name} is damaged (its checksum is another one); going on from round 4"
        in "".join(run.lines)
    )


def test_a_changed_configuration_is_refused_before_anything_is_changed(tmp_path, undisturbed):
    run = Run(tmp_path / "out")
    shutil.copytree(undisturbed[0].path, run.path)
    file = run.path / "run.json"
    changed = file.read_text().replace('"learning_rate": 0.1', '"learning_rate": 0.2')
    file.write_text(changed)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"config\.training\.learning_rate 0\.1, here it is 0\.2"):
        run.play(resume=True)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_changed_data_are_refused_with_what_differs(tmp_path, undisturbed):
    run = Run(tmp_path / "out")
    shutil.copytree(undisturbed[0].path, run.path)
    with pytest.raises(UserError, match=r"iid/seed0 had SHA-256 ab, now it has cd; .*--out"):
        run.play(resume=True, data="cd")


def test_a_run_that_came_to_rows_is_never_discarded(tmp_path, undisturbed):
    """A mistake can be met when it is over, as a table that somebody changed meanwhile: all was deleted then."""
    run = Run(tmp_path / "out")
    shutil.copytree(undisturbed[0].path, run.path)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    folder = RunFolder.resume(run.path)
    RunRecord(folder, CONFIG, {"shards": {"iid/seed0": "ab"}}, ["play"], resumed=False).discard()
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert_same(run, run.play(resume=True), undisturbed)


def test_a_run_that_was_killed_before_it_began_is_no_run(tmp_path):
    RunFolder.create(tmp_path).close()
    (tmp_path / "checkpoints" / ".half.part").write_text("")
    with pytest.raises(UserError, match=r"no run to resume.*it was ended before it began; give its command again"):
        RunFolder.resume(tmp_path).read_config()
    assert Run(tmp_path).play(resume=False)
    assert not list(tmp_path.glob("**/.*.part"))


def test_more_rounds_are_no_other_configuration(tmp_path, undisturbed):
    run = Run(tmp_path / "out", parse({**CONFIG.model_dump(), "rounds": 3}))
    run.play(resume=False)
    file = run.path / "run.json"
    file.write_text(file.read_text().replace('"rounds": 3', '"rounds": 5'))
    assert_same(run, run.play(resume=True), undisturbed)

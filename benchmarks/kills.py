"""Kills: a run that is killed at random moments, and resumed, against the same run undisturbed.

SIGKILL goes in turn to the driver, a worker, Ray's raylet, Ray's gcs_server and the whole process group, at moments
drawn over the whole life of the run, and to some of the resumed runs again. What counts is that the final weights have
the same hashes and that the tables hold the same rows, each once.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.command import QUIET, ROOT, CommandFailedError
from benchmarks.table import Table

SEED, TIMES, QUICK_TIMES = 20261127, 50, 5
TARGETS = ("driver", "worker", "raylet", "gcs_server", "process group")
AGAIN = 0.25  # of the resumed runs that are killed, too
LONGEST = 180.0  # seconds; a run that takes longer hangs
OPTIONS = (
    *("--dataset", "digits", "--model", "mlp", "--clients", "5", "--sample", "4", "--rounds", "60"),
    *("--learning-rate", "0.05", "--scenario", "dropout:p=0.2+uneven-work+straggler", "--client-eval", "5"),
    *("--strategies", "fedavg", "fedmedian", "fednova", "scaffold", "fedadam"),
)
TABLES = ("rounds.csv", "clients.csv", "local.csv")
ENTRIES, ROUNDS = 5, 60

Rows = dict[str, list[tuple[str, ...]]]


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        target: what was killed.
        phase: when: in the start-up, in the rounds, or while the report was written.
        resumes: how often it was resumed or, where nothing was there yet, begun again.
        hashes: whether the final weights are those of the undisturbed run.
        rows: whether the tables are.
    """

    target: str
    phase: str
    resumes: int
    hashes: bool
    rows: bool


def measure(*, quick: bool) -> list[Table]:
    """Kill so many runs, print each, and count.

    Raises:
        CommandFailedError: a run hangs, cannot be resumed, or does not come to the undisturbed run's bits and rows.
    """
    times, random = QUICK_TIMES if quick else TIMES, np.random.default_rng(SEED)
    print(f"seed {SEED}, {times} kills", flush=True)
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "whole")
        begun = time.monotonic()
        session = _Session(_new(whole))
        while not _read(whole / "rounds.csv") and time.monotonic() < begun + LONGEST:
            time.sleep(0.02)
        _Session.start_up = time.monotonic() - begun
        if not session.finished("the undisturbed run"):
            raise CommandFailedError(f"the undisturbed run does not finish: {session.said}")
        life = time.monotonic() - begun
        for number in range(times):
            folder, moment = Path(scratch, str(number)), float(random.uniform(0, life))
            outcome = _disturbed(folder, TARGETS[number % len(TARGETS)], moment, life, random, whole)
            outcomes.append(outcome)
            print(f"{number + 1:3} {moment:5.1f} s {outcome}", flush=True)
    if not all(outcome.hashes and outcome.rows for outcome in outcomes):
        raise CommandFailedError("not every run came to the bits and the rows of the undisturbed one; see above")
    return [_table(outcomes, life)]


def _disturbed(
    folder: Path, target: str, moment: float, life: float, random: np.random.Generator, whole: Path
) -> Outcome:
    """One run, from its start to the end of the last resume."""
    session, resumes = _Session(_new(folder)), 0
    phase = session.kill(target, moment, folder)
    what = f"{target} killed after {moment:.2f} s ({phase})"
    while not session.finished(what):
        resumes += 1
        if resumes > 10:
            raise CommandFailedError(f"{what}: not through after ten resumes: {session.said}")
        begun = (folder / "run.json").exists()
        session = _Session(["--resume", str(folder)] if begun else _new(folder))
        if random.random() < AGAIN:
            session.kill("process group", float(random.uniform(0, life)), folder)
    return Outcome(target, phase, resumes, _hashes(folder) == _hashes(whole), _rows(folder) == _rows(whole))


class _Session:
    """`sim.py` in a session of its own, so that all of its processes are found."""

    start_up = 5.0
    """Seconds that the undisturbed run took until its first row."""

    def __init__(self, options: Sequence[str]) -> None:
        command = [sys.executable, "sim.py", "--quiet", "--workers", "2", *options]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | QUIET,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said = ""

    def wait(self, what: str) -> int:
        """The exit status; nothing of the session is left then."""
        try:
            _, self.said = self._process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired as error:
            raise CommandFailedError(f"{what}: it hangs") from error
        finally:
            self._end("process group")
        return self._process.returncode

    def finished(self, what: str) -> bool:
        """Whether it has come to its end by itself; a traceback is no way to end."""
        status = self.wait(what)
        if "Traceback" in self.said:
            raise CommandFailedError(f"{what}: {self.said}")
        return status == 0

    def kill(self, target: str, moment: float, folder: Path) -> str:
        """Kill at that many seconds of an undisturbed run's life, or as soon as the target is there; the phase.

        A busy machine starts more slowly: what is later than the start-up is counted from the first row.
        """
        begins = time.monotonic() + min(moment, self.start_up)
        while time.monotonic() < begins or (moment > self.start_up and not _read(folder / "rounds.csv")):
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        time.sleep(max(0.0, moment - self.start_up))
        while not self._end(target) and self._process.poll() is None:
            time.sleep(0.02)
        rows = len(_read(folder / "rounds.csv"))
        return "start-up" if not rows else "rounds" if rows < ENTRIES * (ROUNDS + 1) else "report"

    def _end(self, target: str) -> bool:
        """Kill one process, or all of them; whether there was one."""
        found = False
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self._process.pid and self._is(target, process):
                    process.send_signal(signal.SIGKILL)
                    found = True
                    if target == "worker":
                        break
        return found

    def _is(self, target: str, process: psutil.Process) -> bool:
        if target == "process group":
            return True
        if target == "driver":
            return process.pid == self._process.pid
        if target == "worker":
            return "ray::Worker" in " ".join(process.cmdline())
        return process.name() == target


def _new(folder: Path) -> list[str]:
    return [*OPTIONS, "--out", str(folder)]


def _hashes(folder: Path) -> dict[str, str]:
    results = json.loads((folder / "run.json").read_text())["results"]
    return {name: result["sha256"] for name, result in results.items()}


def _rows(folder: Path) -> Rows:
    """All rows without their seconds, sorted: contestants write in any order."""
    return {
        name: sorted(tuple(cell for column, cell in row.items() if column != "seconds") for row in _read(folder / name))
        for name in TABLES
    }


def _read(file: Path) -> list[dict[str, str]]:
    with suppress(FileNotFoundError), file.open(newline="") as opened:
        return list(csv.DictReader(opened))
    return []


def _table(outcomes: list[Outcome], life: float) -> Table:
    by_target: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_target[outcome.target].append(outcome)
    rows = [_line(target, some) for target, some in by_target.items()]
    return Table(
        f"{len(outcomes)} kills (seed {SEED}), each resumed until it was through",
        ("killed", "kills", "start-up", "rounds", "report", "by itself", "resumes", "equal hashes", "equal rows"),
        (*rows, _line("all", outcomes)),
        (
            f"`sim.py {' '.join(OPTIONS)}` on two workers; undisturbed it takes {life:.1f} s.",
            f"Moments are drawn over all of that; {AGAIN:.0%} of the resumed runs are killed again.",
            "Equal rows: rounds.csv, clients.csv and local.csv hold the same rows, each once, seconds apart.",
            "By itself: the run went on and finished without a resume.",
        ),
    )


def _line(target: str, some: list[Outcome]) -> tuple[str, ...]:
    phases = [sum(one.phase == phase for one in some) for phase in ("start-up", "rounds", "report")]
    counts = [
        *(len(some), *phases, sum(not one.resumes for one in some), sum(one.resumes for one in some)),
        *(sum(one.hashes for one in some), sum(one.rows for one in some)),
    ]
    return (target, *map(str, counts))

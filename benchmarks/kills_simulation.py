"""Simulations that are killed: the driver, a worker, Ray's raylet and gcs_server, or the whole process group."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from benchmarks.command import QUIET, ROOT, CommandFailedError
from benchmarks.kill_outcomes import AGAIN, LONGEST, RESUMES, phase_of, read

OPTIONS = (
    *("--dataset", "digits", "--model", "mlp", "--clients", "5", "--sample", "4", "--rounds", "60"),
    *("--learning-rate", "0.05", "--scenario", "dropout:p=0.2+uneven-work+straggler", "--client-eval", "5"),
    *("--strategies", "fedavg", "fedmedian", "fednova", "scaffold", "fedadam"),
)
ENTRIES, ROUNDS = 5, 60


class SimulatedRuns:
    """See `benchmarks.kill_outcomes.Runs`."""

    targets: Sequence[str] = ("driver", "worker", "raylet", "gcs_server", "process group")
    notes: Sequence[str] = (f"`sim.py {' '.join(OPTIONS)}` on two workers.",)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def undisturbed(self, folder: Path) -> float:
        """See `Runs`."""
        begun = time.monotonic()
        session = _Session(_new(folder))
        while not read(folder / "rounds.csv") and time.monotonic() < begun + LONGEST:
            time.sleep(0.02)
        _Session.start_up = time.monotonic() - begun
        if not session.finished("the undisturbed run"):
            raise CommandFailedError(f"the undisturbed run does not finish: {session.said}")
        return time.monotonic() - begun

    def disturbed(
        self, folder: Path, target: str, moment: float, life: float, random: np.random.Generator
    ) -> tuple[str, int] | None:
        """See `Runs`."""
        session, resumes = _Session(_new(folder)), 0
        phase = session.kill(target, moment, folder)
        what = f"{target} killed after {moment:.2f} s ({phase})"
        while not session.finished(what):
            resumes += 1
            if resumes > RESUMES:
                raise CommandFailedError(f"{what}: not through after {RESUMES} resumes: {session.said}")
            begun = (folder / "run.json").exists()
            session = _Session(["--resume", str(folder)] if begun else _new(folder))
            if random.random() < AGAIN:
                session.kill("process group", float(random.uniform(0, life)), folder)
        return (phase, resumes) if phase else None


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

        A busy machine starts more slowly: what is later than the start-up is counted from the first row. Without a
        phase, the run ended first.
        """
        begins = time.monotonic() + min(moment, self.start_up)
        while time.monotonic() < begins or (moment > self.start_up and not read(folder / "rounds.csv")):
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        time.sleep(max(0.0, moment - self.start_up))
        while self._process.poll() is None:
            if self._end(target):
                return phase_of(folder, ENTRIES * (ROUNDS + 1))
            time.sleep(0.02)
        return ""

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

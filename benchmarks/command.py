"""Run commands as a user would, and see how long they take and how much memory they need."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from task.offline import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
SHARDS = ROOT / "runs" / "benchmarks" / "shards"
QUIET = {**SETTINGS, "TF_CPP_MIN_LOG_LEVEL": "3"}
WATCH_SECONDS = 0.02


class CommandFailedError(RuntimeError):
    """A measured command that did not end well; the message holds the end of its output."""


@dataclass(frozen=True)
class Done:
    """A finished command.

    Attributes:
        launched: unix time just before the process was started.
        seconds: wall seconds until it had exited.
        peak_bytes: the largest resident memory seen, of the process itself without its children; 0 if not watched.
    """

    launched: float
    seconds: float
    peak_bytes: int


def run(*arguments: str, log: Path, watch: bool = False, look: Callable[[int], None] | None = None) -> Done:
    """Run this Python with `arguments` in the project's folder and wait for it.

    Args:
        arguments: the command line after the interpreter.
        log: where its output goes.
        watch: look at its memory every `WATCH_SECONDS`.
        look: called with its process id as often; it raises nothing for a process that is gone.

    Raises:
        CommandFailedError: for an exit status other than 0.
    """
    peak = 0
    with log.open("wb") as output:
        launched = time.time()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=os.environ | QUIET, stdout=output, stderr=subprocess.STDOUT
        )
        while (watch or look) and process.poll() is None:
            if watch:
                peak = max(peak, resident_bytes(process.pid))
            if look:
                look(process.pid)
            time.sleep(WATCH_SECONDS)
        status = process.wait()
    seconds = time.time() - launched
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise CommandFailedError(f"status {status} from python {' '.join(arguments)}\n{tail}")
    return Done(launched, seconds, peak)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, 0 if it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def simulate(
    out: Path, *options: str, watch: bool = False, look: Callable[[int], None] | None = None, by: Sequence[str] = ()
) -> Done:
    """Run the product, `python sim.py --quiet --out OUT ...`; its output goes beside `out`.

    Args:
        out: the run's folder.
        options: more of its options.
        watch: see `run`.
        look: see `run`.
        by: what is run instead of `sim.py`, and takes its options.
    """
    command = [*(by or ["sim.py"]), "--quiet", "--out", str(out), *options]
    return run(*command, log=out.with_suffix(".log"), watch=watch, look=look)


def busy_cpu_seconds(sums: dict[str, float]) -> float:
    """CPU seconds of training and evaluation out of a part of timing.json."""
    return sums["client_cpu_seconds"] + sums["evaluate_cpu_seconds"]


def make_shards() -> None:
    """Write the five shards of mnist-5k, as the product cuts them with seed 0, for the opponents."""
    shutil.rmtree(SHARDS, ignore_errors=True)
    SHARDS.mkdir(parents=True)
    run("-m", "task.data", "split", "--out", str(SHARDS), log=SHARDS.with_suffix(".log"))


def ensure_shards() -> None:
    """`make_shards`, unless they are there."""
    if not (SHARDS / "test.npz").exists():
        make_shards()

"""What became of runs that were killed: compared with the undisturbed run, and counted in a table."""

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from benchmarks.table import Table

TABLES = ("rounds.csv", "clients.csv", "local.csv")
PHASES = ("start-up", "rounds", "report")
AGAIN = 0.25  # of the resumed runs that are killed, too
LONGEST = 180.0  # seconds; a run that takes longer hangs
RESUMES = 10  # a run that needs more is not getting anywhere

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


class Runs(Protocol):
    """Runs of one kind, which can be killed and resumed. A context manager: leaving it ends what it started.

    Attributes:
        targets: what can be killed, in the order in which they take turns.
        notes: sentences below the table: the command, and what is special in this kind.
    """

    targets: Sequence[str]
    notes: Sequence[str]

    def __enter__(self) -> Self:
        """Start what all runs share."""

    def __exit__(self, *raised: object) -> None:
        """End it."""

    def undisturbed(self, folder: Path) -> float:
        """Make one run without a kill; the seconds that it took.

        Raises:
            CommandFailedError: it does not finish.
        """

    def disturbed(
        self, folder: Path, target: str, moment: float, life: float, random: np.random.Generator
    ) -> tuple[str, int] | None:
        """Make one run, kill the target at this moment of its life, and resume it until it is through.

        Returns:
            The phase and the number of resumes; None if the run had ended before its moment came.

        Raises:
            CommandFailedError: it hangs, or cannot be resumed.
        """


def compare(folder: Path, whole: Path, target: str, phase: str, resumes: int) -> Outcome:
    """Compare a run that came to its end with the undisturbed one."""
    return Outcome(target, phase, resumes, _hashes(folder) == _hashes(whole), _rows(folder) == _rows(whole))


def phase_of(folder: Path, rows: int) -> str:
    """Tell from the rows that are written in which phase a run is; `rows`: of rounds.csv when all rounds are over."""
    written = len(read(folder / "rounds.csv"))
    return PHASES[0] if not written else PHASES[1] if written < rows else PHASES[2]


def read(file: Path) -> list[dict[str, str]]:
    """Read a table; no rows if it is not there yet."""
    with suppress(FileNotFoundError), file.open(newline="") as opened:
        return list(csv.DictReader(opened))
    return []


def count(title: str, outcomes: Sequence[Outcome], notes: Sequence[str]) -> Table:
    """Count outcomes by what was killed."""
    by_target: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_target[outcome.target].append(outcome)
    rows = [_line(target, some) for target, some in by_target.items()]
    return Table(
        title,
        ("killed", "kills", *PHASES, "by itself", "resumes", "equal hashes", "equal rows"),
        (*rows, _line("all", outcomes)),
        (
            *notes,
            f"Moments are drawn over all of that; {AGAIN:.0%} of the resumed runs are killed again.",
            "Equal rows: rounds.csv, clients.csv and local.csv hold the same rows, each once, seconds apart.",
            "By itself: the run went on and finished without a resume.",
        ),
    )


def _hashes(folder: Path) -> dict[str, str]:
    results = json.loads((folder / "run.json").read_text())["results"]
    return {name: result["sha256"] for name, result in results.items()}


def _rows(folder: Path) -> Rows:
    """All rows without their seconds, sorted: contestants write in any order."""
    return {
        name: sorted(tuple(cell for column, cell in row.items() if column != "seconds") for row in read(folder / name))
        for name in TABLES
    }


def _line(target: str, some: Sequence[Outcome]) -> tuple[str, ...]:
    phases = [sum(one.phase == phase for one in some) for phase in PHASES]
    counts = [
        *(len(some), *phases, sum(not one.resumes for one in some), sum(one.resumes for one in some)),
        *(sum(one.hashes for one in some), sum(one.rows for one in some)),
    ]
    return (target, *map(str, counts))

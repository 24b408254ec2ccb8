"""What hundreds of rounds leave behind: memory, open files, threads, messages, objects, and the time of a round.

A long comparison may hold in its last round what it held in an early one, and nothing more. `sim.py` runs as a user
runs it. Its processes are looked at from outside after the last rounds of every window, and so is the inside of its
driver when a contestant has finished a window (`benchmarks.inside`).
"""

import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.census import DRIVER, GCS, RAYLET, WORKER, Held, census
from benchmarks.command import simulate
from benchmarks.rounds import STRATEGIES
from benchmarks.table import Table

SHAPES = {
    "MLP on digits": ("--dataset", "digits", "--model", "mlp"),
    "CNN on mnist-5k": ("--dataset", "mnist-5k", "--model", "cnn"),
}
ROUNDS, WINDOW = 300, 30
LOOKS = 5  # rounds at the end of each window after which everything is looked at
AFTER = 2  # rounds after the last look: a run that ends writes its report, which takes memory of its own
MIB = 2**20

Census = dict[str, list[Held]]


@dataclass(frozen=True)
class Window:
    """What was held at the end of a window of rounds.

    Attributes:
        resident: by kind of process the resident bytes, of the largest; median of the looks.
        own: of these, what no other process shares.
        files: by kind the open files of all its processes; the fewest of the looks, so that a checkpoint that is being
            written does not count.
        threads: by kind the same of threads.
        seconds: median wall seconds of the rounds in the window.
        inside: the most at any look inside, see `benchmarks.inside`.
    """

    resident: dict[str, float]
    own: dict[str, float]
    files: dict[str, int]
    threads: dict[str, int]
    seconds: float
    inside: dict[str, int]


class Observer:
    """Follows a run's rounds.csv and takes a census at the end of every window.

    Args:
        rounds_csv: the file; it need not exist yet.
        window: rounds in a window.
        contestants: how many write into it.
    """

    def __init__(self, rounds_csv: Path, window: int, contestants: int) -> None:
        self._file, self._window, self._contestants = rounds_csv, window, contestants
        self._read = self._reached = 0
        self._last: dict[str, int] = {}
        self._seconds: defaultdict[int, list[float]] = defaultdict(list)
        self._looks: defaultdict[int, list[Census]] = defaultdict(list)

    def look(self, pid: int) -> None:
        """Read what is new; take a census when all contestants have finished one of a window's last rounds."""
        self._follow()
        reached = min(self._last.values()) if len(self._last) == self._contestants else 0
        if reached > self._reached:
            self._reached = reached
            window, rest = divmod(reached - 1, self._window)
            if rest >= self._window - LOOKS:
                self._looks[window].append(census(pid))

    def windows(self, count: int, inside: dict[int, dict[str, int]]) -> list[Window]:
        """The first windows, with what was seen inside at their ends."""
        return [_window(self._looks[i], self._seconds[i], inside.get((i + 1) * self._window, {})) for i in range(count)]

    def _follow(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]  # a line that is being written comes with the next look
        self._read += len(new)
        for cells in csv.reader(new.decode().splitlines()):
            scenario, strategy, seed, number, *_, seconds = cells
            if number.isdigit():  # not the head
                self._last[f"{scenario}/{strategy}/{seed}"] = int(number)
                if int(number):
                    self._seconds[(int(number) - 1) // self._window].append(float(seconds))


def _window(looks: Sequence[Census], seconds: Sequence[float], inside: dict[str, int]) -> Window:
    kinds = [kind for kind in (DRIVER, WORKER, RAYLET, GCS) if any(look[kind] for look in looks)]
    return Window(
        {kind: median(max(held.resident for held in look[kind]) for look in looks) for kind in kinds},
        {kind: median(max(held.own for held in look[kind]) for look in looks) for kind in kinds},
        {kind: min(sum(held.files for held in look[kind]) for look in looks) for kind in kinds},
        {kind: min(sum(held.threads for held in look[kind]) for look in looks) for kind in kinds},
        median(seconds),
        inside,
    )


def measure(quick: bool = False) -> list[Table]:
    """Soak both shapes; `quick`: the small one over few rounds."""
    rounds, window = (20, 10) if quick else (ROUNDS, WINDOW)
    tables = []
    with tempfile.TemporaryDirectory(prefix="fedarena-benchmark-") as name:
        for shape, options in list(SHAPES.items())[: 1 if quick else None]:
            windows = soak(options, rounds, window, Path(name, shape.split()[0]))
            tables += [_course(shape, windows, window), _verdict(shape, windows, rounds, window)]
    return tables


def soak(options: Sequence[str], rounds: int, window: int, folder: Path) -> list[Window]:
    """Run the product with these options; what it held at the end of each window."""
    folder.mkdir()
    options = ("--strategies", *STRATEGIES, *options, "--rounds", str(rounds + AFTER))
    observer = Observer(folder / "run" / "rounds.csv", window, len(STRATEGIES))
    notes = folder / "inside.jsonl"
    by = ("-m", "benchmarks.inside", str(notes), str(window))
    simulate(folder / "run", *options, look=observer.look, by=by)
    return observer.windows(rounds // window, _most(notes))


def _most(notes: Path) -> dict[int, dict[str, int]]:
    """By round the largest of each figure that any contestant met."""
    most: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for line in notes.read_text().splitlines():
        look = json.loads(line)
        there = most[look.pop("round")]
        there |= {name: max(value, there.get(name, 0)) for name, value in look.items()}
    return most


def _course(shape: str, windows: Sequence[Window], window: int) -> Table:
    head = (
        "round",
        "driver (MiB)",
        "worker (MiB)",
        "raylet (MiB)",
        "gcs_server (MiB)",
        "files",
        "threads",
        "messages",
        "Ray objects",
        "Python objects",
        "round (s)",
    )
    rows = tuple(
        (
            str((i + 1) * window),
            *(f"{w.resident[kind] / MIB:.1f} ({w.own[kind] / MIB:.1f})" for kind in (DRIVER, WORKER, RAYLET, GCS)),
            f"{w.files[DRIVER]} + {w.files[WORKER]}",
            f"{w.threads[DRIVER]} + {w.threads[WORKER]}",
            str(w.inside["messages"] + w.inside["contents"]),
            str(w.inside["objects"]),
            str(w.inside["python"]),
            f"{w.seconds:.3f}",
        )
        for i, w in enumerate(windows)
    )
    return Table(
        f"{len(STRATEGIES)} strategies x {window * len(windows)} rounds, 5 clients, {shape}",
        head,
        rows,
        (
            "Memory: resident, and in brackets what no other process shares; of the workers the larger. "
            f"Medians of looks after each of the last {LOOKS} rounds of a window.",
            "Files and threads: driver + all workers, the fewest of these looks.",
            "Messages: in Flower's message store and its object store; Ray objects: references that the driver counts; "
            "both while all strategies play, so those of the rounds that go on are there. Python objects: those that "
            "the driver's garbage collector tracks.",
            "Round: median wall seconds of a strategy's round within the window, beside the three others.",
        ),
    )


def _verdict(shape: str, windows: Sequence[Window], rounds: int, window: int) -> Table:
    first, last = windows[0], windows[-1]

    def ratio(label: str, value: Callable[[Window], float], unit: str, target: str = "") -> tuple[str, ...]:
        a, b = value(first), value(last)
        return (label, f"{a:{unit}}", f"{b:{unit}}", f"{b / a:.3f}", target)

    def growth(label: str, value: Callable[[Window], int], target: str = "0") -> tuple[str, ...]:
        return (label, str(value(first)), str(value(last)), f"{value(last) - value(first):+d}", target)

    return Table(
        f"Round {rounds} against round {window}, {shape}",
        ("measure", f"round {window}", f"round {rounds}", "ratio or growth", "target"),
        (
            ratio("memory of the driver (MiB)", lambda w: w.resident[DRIVER] / MIB, ".1f", "<= 1.05"),
            ratio("memory of the larger worker (MiB)", lambda w: w.resident[WORKER] / MIB, ".1f", "<= 1.05"),
            ratio(
                "of Ray's raylet and gcs_server (MiB)", lambda w: (w.resident[RAYLET] + w.resident[GCS]) / MIB, ".1f"
            ),
            *(
                growth(f"{what} of {whose}", partial(_count, what, kind))
                for what in ("files", "threads")
                for kind, whose in ((DRIVER, "the driver"), (WORKER, "the workers"), (RAYLET, "raylet"))
            ),
            growth("messages and their contents kept", lambda w: w.inside["messages"] + w.inside["contents"]),
            growth("Ray objects", lambda w: w.inside["objects"]),
            ratio("seconds of a round", lambda w: w.seconds, ".3f", "<= 1.10"),
        ),
        (
            "Messages and Ray objects are those of the rounds that go on at that moment, at most a message and a reply "
            "for each of the 5 clients of each strategy.",
        ),
    )


def _count(what: str, kind: str, window: Window) -> int:
    counts: dict[str, int] = getattr(window, what)
    return counts[kind]

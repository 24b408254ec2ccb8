"""Attacks: a server with TLS and three clients that train, attacked, against the same run undisturbed.

A fourth client is enrolled. It either lies in every reply (`benchmarks.attack.client`), or answers every message with
an error while strangers attack the open port (`benchmarks.attack.strangers`). What counts is that the run ends with
status 0, that the final weights have the hashes of the run in which the fourth client only failed, and that the folder
reads and reports. All addresses are on the loopback interface; every attack is bounded in time and count.
"""

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attack.strangers import ATTACKS, Port
from benchmarks.command import QUIET, ROOT, CommandFailedError, run
from benchmarks.deployment import Processes, free_port
from benchmarks.table import Table

HONEST = ("north", "south", "east")
LIAR = "mallory"
LIES = {  # what the fourth client claims, and the strategies that take an interest in it
    "num-examples = -5": ("examples", ("fedavg", "fednova")),
    "local-steps = -3": ("steps", ("fedavg", "fednova")),
    "local-norm = 1e300": ("large-norm", ("fedavg", "fednova")),
    "dp-epsilon = inf in a rejected reply": ("epsilon", ("fedavg", "fednova")),
    "local-norm = 1e-300": ("small-norm", ("fednova",)),
    "an update of 1e30": ("far", ("fedavg", "fednova")),
}
STRATEGIES = ("fedavg", "fednova")
ROUNDS, QUICK_ROUNDS = 12, 3
OPTIONS = ("--model", "mlp", "--batch-size", "16", "--steps", "1500", "--patience", "10", "--quorum", "3")
LONGEST = 180.0  # seconds; a run that takes longer hangs
DESCRIPTORS = 1024  # of the server's process
MORE_BYTES, MORE_LINES = 128 * 10**6, 40  # that an attack may cost the server beyond the undisturbed run
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Outcome:
    """What became of one attacked run.

    Attributes:
        attack: what was done.
        status: the server's exit status.
        hashes: whether the final weights are those of the undisturbed run.
        reported: whether the report was written, and can be written again.
        longest: seconds of the longest round after the first.
        peak: largest resident memory of the server, bytes.
        lines: lines that the server showed.
        trouble: what else is wrong; "": nothing.
    """

    attack: str
    status: int
    hashes: bool
    reported: bool
    longest: float
    peak: int
    lines: int
    trouble: str

    @property
    def holds(self) -> bool:
        """Whether the run came through as if undisturbed."""
        return self.status == 0 and self.hashes and self.reported and not self.trouble


def measure(*, quick: bool) -> list[Table]:
    """Attack so many runs, print each, and compare.

    Raises:
        CommandFailedError: a run does not come to the undisturbed run's hashes and a full report.
    """
    with tempfile.TemporaryDirectory() as scratch:
        field = _Field(Path(scratch), QUICK_ROUNDS if quick else ROUNDS)
        with Processes(field.folder) as processes:
            field.prepare(processes)
            undisturbed = field.attacked(processes, "undisturbed", "failure", STRATEGIES)
            outcomes = [undisturbed]
            print(undisturbed, flush=True)
            for attack, (lie, strategies) in LIES.items():
                outcomes.append(field.attacked(processes, attack, lie, strategies))
                print(outcomes[-1], flush=True)
            for attack, act in ATTACKS.items():
                outcomes.append(field.attacked(processes, attack, "failure", STRATEGIES, act))
                print(outcomes[-1], flush=True)
    if failed := [outcome.attack for outcome in outcomes if not outcome.holds]:
        raise CommandFailedError(f"not as if undisturbed: {'; '.join(failed)}; see above")
    return [_table(outcomes, field.rounds)]


class _Field:
    """A federation, its shards, and the runs in its folder.

    Args:
        folder: where everything goes.
        rounds: of each run.
    """

    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder, self.rounds, self._port = folder, rounds, free_port()
        self._undisturbed: tuple[dict[str, str], int, int] | None = None  # hashes, peak memory, lines shown

    def prepare(self, processes: Processes) -> None:
        """Enroll four, cut the data, start the three honest clients; they stay for every run."""
        members = (*HONEST, LIAR)
        run("-m", "server", "enroll", *members, "--host", "127.0.0.1", "--port", str(self._port), "--federation",
            str(self.folder / "federation"), log=self.folder / "enroll.log")  # fmt: skip
        run("-m", "task.data", "split", "--dataset", "digits", "--clients", str(len(members)), "--out",
            str(self.folder / "shards"), log=self.folder / "split.log")  # fmt: skip
        for number, name in enumerate(HONEST):
            processes.start(name, "python", "-m", "client", *self._client(number, name))

    def attacked(
        self,
        processes: Processes,
        attack: str,
        lie: str,
        strategies: Sequence[str],
        act: Callable[[Port], None] | None = None,
    ) -> Outcome:
        """Play one run under an attack.

        Args:
            processes: where the processes live.
            attack: what it is called.
            lie: what the fourth client does; see `benchmarks.attack.client`.
            strategies: of the run.
            act: what strangers do from the second round on; None: nothing.
        """
        name = re.sub(r"\W+", "-", attack)
        out = self.folder / name
        liar = processes.start(
            f"{name}-{LIAR}", "python", "-m", "benchmarks.attack.client", lie, *self._client(len(HONEST), LIAR)
        )
        server = processes.start(
            name, "sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh", sys.executable, "-m", "server",
            "--listen", f"127.0.0.1:{self._port}", "--clients", str(len(HONEST) + 1), "--out", str(out),
            "--test", str(self.folder / "shards" / "test.npz"), "--federation", str(self.folder / "federation"),
            "--rounds", str(self.rounds), "--strategies", *strategies, *OPTIONS,
        )  # fmt: skip
        trouble: list[str] = []
        attacker = threading.Thread(target=self._strike, args=(act, out, server, trouble), daemon=True)
        attacker.start()
        try:
            status = processes.wait_for(name)
        finally:
            attacker.join(LONGEST)
            liar.terminate()
            liar.wait()
        shown = (self.folder / f"{name}.log").read_text(errors="replace")
        if found := _CONTROL.findall(shown):
            trouble.append(f"its terminal shows {found[:5]!r}")
        if re.search(r"^(Traceback|refused: a forged line)", shown, re.MULTILINE):
            trouble.append("its terminal shows a traceback or a forged line")
        hashes, lines, peak = _hashes(out), shown.count("\n"), processes.peaks[name]
        first, peak_before, lines_before = self._undisturbed = self._undisturbed or (hashes, peak, lines)
        if peak > peak_before + MORE_BYTES:
            trouble.append(f"its memory grew by {(peak - peak_before) / 1e6:.0f} MB")
        if lines > lines_before + MORE_LINES:
            trouble.append(f"it shows {lines - lines_before} lines more")
        equal = bool(hashes) and all(first[key] == value for key, value in hashes.items())
        longest = max((float(row["seconds"]) for row in _rows(out / "rounds.csv") if int(row["round"]) > 1), default=0)
        return Outcome(attack, status, equal, self._reports(out), longest, peak, lines, "; ".join(trouble))

    def _strike(
        self, act: Callable[[Port], None] | None, out: Path, server: "subprocess.Popen[bytes]", trouble: list[str]
    ) -> None:
        """Attack as soon as the first round is over."""
        while act and server.poll() is None:
            if any(int(row["round"]) >= 1 for row in _rows(out / "rounds.csv")):
                try:
                    act(Port(self._port, lambda: server.poll() is None))
                except Exception as error:  # noqa: BLE001 - told with the outcome
                    trouble.append(str(error))
                return
            time.sleep(0.05)

    def _reports(self, out: Path) -> bool:
        """Whether the report is there, and `python -m server.report` can write it again."""
        if not (out / "report.html").exists() or not (out / "curves.png").exists():
            return False
        again = subprocess.run(
            [sys.executable, "-m", "server.report", str(out)], cwd=ROOT, env=os.environ | QUIET, capture_output=True
        )
        return again.returncode == 0

    def _client(self, number: int, name: str) -> list[str]:
        identity = self.folder / "federation" / "clients" / f"{name}.identity"
        return ["--identity", str(identity), "--shard", str(self.folder / "shards" / f"shard-{number}.npz")]


def _hashes(out: Path) -> dict[str, str]:
    results = json.loads((out / "run.json").read_text())["results"] if (out / "run.json").exists() else {}
    return {name: result.get("sha256", "") for name, result in results.items()}


def _rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        return [row for row in csv.DictReader(opened) if row.get("seconds")]


def _table(outcomes: list[Outcome], rounds: int) -> Table:
    undisturbed = outcomes[0]
    rows = [
        (
            one.attack,
            str(one.status),
            "equal" if one.hashes else "different",
            "full" if one.reported else "missing",
            f"{one.longest:.2f}",
            f"{(one.peak - undisturbed.peak) / 1e6:+.0f}",
            str(one.lines),
        )
        for one in outcomes
    ]
    usual = statistics.median(one.longest for one in outcomes)
    return Table(
        f"A server with TLS and three clients, {rounds} rounds of {' and '.join(STRATEGIES)}, attacked",
        ("attack", "status", "hashes", "report", "longest round s", "server MB", "lines shown"),
        tuple(rows),
        (
            "Hashes: of the final weights, against the run in which the fourth client only fails.",
            "Server MB: peak resident memory, against the undisturbed run. "
            f"The median of the longest rounds is {usual:.2f} s.",
            f"The server may have {DESCRIPTORS} descriptors; strangers attack from round 2 on.",
        ),
    )

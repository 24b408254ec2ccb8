"""Takes down everything that happens in a comparison: rows, checkpoints, the live view, and where the seconds went."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from server.checkpoint import Checkpoints, Saved
from server.files import write_atomic, writing
from server.results import ClientRow, Entry, LocalRow, RoundRow, RunFolder
from server.screen import Screen
from strategies.gate import Verdict
from task.system_limits import cores
from task.update import Arrays, Memory


@dataclass
class Sums:
    """What was spent so far, over all contestants: the whole run, and since those that play at once were warm."""

    client_seconds: float = 0.0  # wall seconds of local training, summed over clients
    client_cpu_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    evaluate_cpu_seconds: float = 0.0
    messages: int = 0
    at: float = 0.0  # Unix time of the reading


class Recorder:
    """The journal of all contestants; each of them calls it from its own thread.

    Args:
        folder: where rows go.
        checkpoints: where checkpoints go.
        screen: what the user sees.
        entries: everyone who competes.
        started: Unix time of the start of the command.
        at_once: how many play at the same time; None: all.

    Raises:
        WriteError: of its methods: what they take down cannot be written; nothing that was there is lost.

    Attributes:
        checkpoints: as given.
        epsilons: what clients that add noise say that it has cost them so far, by client.
    """

    def __init__(
        self,
        folder: RunFolder,
        checkpoints: Checkpoints,
        screen: Screen,
        entries: list[Entry],
        started: float,
        at_once: int | None = None,
    ) -> None:
        self._folder, self._screen, self._started = folder, screen, started
        self.checkpoints = checkpoints
        self._lock = threading.Lock()
        self.epsilons: dict[int, float] = {}
        self._sums = Sums()
        self._no_first_round = set(entries)
        self._not_begun = max(0, len(entries) - at_once) if at_once else 0  # while all places are taken
        self._milestones: dict[str, float] = {}
        self._first: Sums | None = None

    def reached(self, milestone: str) -> None:
        """A step of the start-up is through."""
        self._milestones[milestone] = time.time() - self._started

    def client(self, row: ClientRow, verdict: Verdict) -> None:
        """One client's part in a round."""
        with self._lock:
            self._sums.messages += 1
            self._sums.client_seconds += verdict.facts.seconds or 0.0
            self._sums.client_cpu_seconds += verdict.facts.cpu_seconds or 0.0
            if verdict.facts.dp_epsilon is not None:
                self.epsilons[row.client] = max(verdict.facts.dp_epsilon, self.epsilons.get(row.client, 0.0))
        with writing(self._folder.path):
            self._folder.write_client(row)
        if not verdict.expected:
            self._screen.client(row)

    def again(self, entry: Entry, server_round: int, reason: str) -> None:
        """A round is played once more; only its last try has rows."""
        with writing(self._folder.path):
            self._folder.drop_rounds(entry, server_round)
        self._screen.note(f"{entry.key}: {reason}")

    def back(self, entry: Entry, server_round: int, reason: str) -> Saved | None:
        """A finished round and what followed are played again: go back to the checkpoint before it, as a resume does.

        The checkpoint goes first, so that a kill at any moment leaves what `server.starts` goes on from.
        """
        saved = self.checkpoints.at(entry, server_round - 1)
        if saved is None:
            return None
        with writing(self._folder.path):
            self.checkpoints.drop(entry, server_round)
            self._folder.drop_rounds(entry, server_round)
        self._screen.note(f"{entry.key}: {reason}")
        return saved

    def note(self, text: str) -> None:
        """Something that the user should know, in one line."""
        self._screen.note(text)

    def evaluated(self, seconds: float, cpu_seconds: float) -> None:
        """An evaluation of a global model took so long."""
        with self._lock:
            self._sums.evaluate_seconds += seconds
            self._sums.evaluate_cpu_seconds += cpu_seconds

    def round(self, row: RoundRow, arrays: Arrays, memory: Memory, local: Sequence[LocalRow]) -> None:
        """A finished round: its rows first, then its checkpoint, so that a resume never misses a row."""
        entry = row.entry
        with writing(self._folder.path):
            self._folder.write_local(local)
            self._folder.write_round(row)
            self.checkpoints.save(entry, Saved(row.round, arrays, memory))
        if row.round >= 1:
            with self._lock:
                self._no_first_round.discard(entry)
                if len(self._no_first_round) <= self._not_begun and self._first is None:
                    self._first = replace(self._sums, at=time.time())
        self._screen.round(row)

    def ended(self, entry: Entry, reason: str | None) -> None:
        """A contestant is through (None) or cannot go on."""
        with self._lock:
            self._no_first_round.discard(entry)
        self._screen.ended(entry, reason)

    def write_timing(self) -> None:
        """Write timing.json: Unix times, milestones of the start-up in seconds since its begin, and what was spent."""
        total, first = replace(self._sums, at=time.time()), self._first
        timing = {
            "started": self._started,
            "milestones": self._milestones,
            "first_round_all": first.at if first else None,
            "finished": total.at,
            "cores": cores(),
            **_without_time(total),
            "after_first": {k: v - asdict(first)[k] for k, v in _without_time(total).items()} if first else None,
        }
        with writing(self._folder.path):
            write_atomic(self._folder.path / "timing.json", f"{json.dumps(timing, indent=1)}\n".encode())


def _without_time(sums: Sums) -> dict[str, float]:
    return {name: value for name, value in asdict(sums).items() if name != "at"}

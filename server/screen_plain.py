"""The screen for logs and pipes: one line per event, with the seconds since the start in front."""

import time
from collections.abc import Mapping, Sequence
from typing import IO

from server.names import percent
from server.results import Entry, RoundRow
from server.screen import Silent


class Plain(Silent):
    """Writes one line per event, and one per contestant and round."""

    def __init__(self, out: IO[str]) -> None:
        super().__init__(out)
        self._start = time.monotonic()

    def step(self, text: str) -> None:
        """A line when the step begins; the next line's seconds tell how long it took."""
        with self._lock:
            self._write(f"{text} ...")

    def progress(self, text: str) -> None:
        """A line."""
        self.note(text)

    def note(self, text: str) -> None:
        """The line."""
        with self._lock:
            self._write(text)

    def begin(self, entries: Sequence[Entry], rounds: int, start: Mapping[Entry, int]) -> None:
        """A line with the contestants."""
        with self._lock:
            super().begin(entries, rounds, start)
            names = (
                self._name(entry) + (f" (from round {self._done[entry] + 1})" if self._done[entry] else "")
                for entry in entries
            )
            self._write(f"training {rounds} rounds: {', '.join(names)}")

    def round(self, row: RoundRow) -> None:
        """A line with the test of the global model."""
        with self._lock:
            super().round(row)
            clients = f"  clients {row.clients_ok} of {row.clients_ok + row.clients_rejected}" if row.round else ""
            width = max(map(len, self._names.values()), default=0)
            self._write(
                f"{self._name(row.entry):{width}}  round {row.round:{len(str(self._rounds))}}/{self._rounds}"
                f"  accuracy {percent(row.test_accuracy):>8}  loss {row.test_loss:.4f}{clients}  {row.seconds:.1f} s"
            )

    def ended(self, entry: Entry, reason: str | None) -> None:
        """A line."""
        with self._lock:
            super().ended(entry, reason)
            if not reason:
                self._write(f"{self._name(entry)} finished")

    def _write(self, line: str) -> None:
        super()._warn(f"{time.monotonic() - self._start:7.1f} s  {line}")

    def _warn(self, line: str) -> None:
        self._write(line)

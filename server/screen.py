"""What the user sees while a run goes on: a live view on a terminal, lines in a log, or next to nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Protocol

from server.names import labels
from server.results import ClientRow, Entry, RoundRow
from task.errors import printable

if TYPE_CHECKING:
    import rich.console

_SHOWN = 5  # failures of one contestant's round that are shown one by one


class Screen(Protocol):
    """The events of a run, in the order in which they come; safe to call from several threads."""

    def step(self, text: str) -> None:
        """A step of the start-up (or of the end) begins, such as "starting Ray"; the one before it is done."""

    def progress(self, text: str) -> None:
        """The step that runs now has come further, and goes by this text from now on."""

    def note(self, text: str) -> None:
        """One line that the user should know."""

    def warn(self, text: str) -> None:
        """One line that the user must not miss; a quiet screen shows it, too."""

    def begin(self, entries: Sequence[Entry], rounds: int, start: Mapping[Entry, int]) -> None:
        """Training begins.

        Args:
            entries: the contestants, in the order in which they are shown.
            rounds: how many rounds each of them trains.
            start: the round after which a resumed contestant goes on; it may lack, or give 0 or less for, new ones.
        """

    def round(self, row: RoundRow) -> None:
        """A contestant's round is finished and evaluated; round 0 is the initial model."""

    def client(self, row: ClientRow) -> None:
        """A client's result came in; shown if it failed or was rejected."""

    def ended(self, entry: Entry, reason: str | None) -> None:
        """A contestant ended: None when it finished, else the reason why it stopped early."""

    def close(self) -> None:
        """Nothing more comes; the terminal is left as it was found. Closing twice is harmless."""


def open_screen(quiet: bool, console: rich.console.Console | None = None, errors: IO[str] | None = None) -> Screen:
    """The screen that fits the output: live on a terminal, else one line per event.

    Args:
        quiet: show failures only, on stderr.
        console: where to draw instead of on stdout.
        errors: where a quiet screen tells of failures instead of on stderr.
    """
    if quiet:
        return Silent(errors or sys.stderr)
    terminal = console.is_terminal if console else sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if terminal:
        from server.screen_live import Live

        return Live(console)
    from server.screen_plain import Plain

    return Plain(console.file if console else sys.stdout)


class Silent:
    """A screen that shows failures only, of many in one round the first few. What the others show comes on top."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lock = threading.RLock()
        self._names: dict[Entry, str] = {}
        self._rounds = 0
        self._done: dict[Entry, int] = {}  # the last finished round
        self._failures: Counter[tuple[Entry, int]] = Counter()

    def step(self, text: str) -> None:
        """See Screen."""

    def progress(self, text: str) -> None:
        """See Screen."""

    def note(self, text: str) -> None:
        """See Screen."""

    def warn(self, text: str) -> None:
        """See Screen."""
        with self._lock:
            self._warn(text)

    def begin(self, entries: Sequence[Entry], rounds: int, start: Mapping[Entry, int]) -> None:
        """See Screen."""
        with self._lock:
            self._names = labels(entries)
            self._rounds = rounds
            self._done = {entry: max(0, start.get(entry, 0)) for entry in entries}

    def round(self, row: RoundRow) -> None:
        """See Screen."""
        with self._lock:
            self._done[row.entry] = max(row.round, self._done.get(row.entry, 0))
            more = self._failures.pop((row.entry, row.round), 0) - _SHOWN
            if more > 0:
                self._warn(f"{self._name(row.entry)} round {row.round}: {more} more failed or rejected (clients.csv)")

    def client(self, row: ClientRow) -> None:
        """See Screen."""
        if row.status == "ok":
            return
        with self._lock:
            self._failures[row.entry, row.round] += 1
            if self._failures[row.entry, row.round] <= _SHOWN:
                reason = " ".join(row.reason.split())
                self._warn(f"{self._name(row.entry)} round {row.round}: client {row.client} {row.status}: {reason}")

    def ended(self, entry: Entry, reason: str | None) -> None:
        """See Screen."""
        if reason:
            with self._lock:
                self._warn(f"{self._name(entry)} stopped: {reason}")

    def close(self) -> None:
        """See Screen."""

    def _name(self, entry: Entry) -> str:
        return self._names.get(entry, entry.key)

    def _warn(self, line: str) -> None:
        """Show a line about something that went wrong."""
        with contextlib.suppress(OSError):  # a reader that left, as `head` does, does not stop the run
            self._out.write(f"{printable(line)}\n")
            self._out.flush()

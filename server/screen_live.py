"""The live view on a terminal: start-up steps with their seconds, then a progress bar per contestant."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import rich.live
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from server.names import labels, percent
from server.results import Entry, RoundRow
from server.screen import Silent
from task.errors import printable

_MOST_ROWS = 12  # more contestants are shown by strategy
_MOST_WIDTH = 100  # a longer bar tells no more
_FRAME_LINES = 6  # lines of the view around the contestants' rows
_TRAINING_SECONDS = 1.0  # between two looks at the clock while training: the view costs next to no computing time
_STARTING_SECONDS = 0.125  # the same while a step's spinner turns, and the least between two drawings


class Live(Silent):
    """Draws at the bottom of the terminal; what is over scrolls up above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        super().__init__(self._console.file)
        self._step: tuple[str, float] | None = None  # what runs now, and since when
        self._notes: list[Text] = []  # of the step that runs now: they scroll up below it
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots", style="cyan")
        self._scores: dict[Entry, RoundRow] = {}  # the last row
        self._reasons: dict[Entry, str | None] = {}  # of those that ended
        self._start: dict[Entry, int] = {}
        self._finished: list[float] = []  # when each training round was finished
        self._began = 0.0
        self._changed = threading.Event()
        self._closing = threading.Event()
        shared = self._console.file is sys.stdout  # then lines that libraries print scroll up above the view
        self._live = rich.live.Live(
            get_renderable=self._frame,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=shared,
            redirect_stderr=shared,
        )
        self._live.start()
        self._clock = threading.Thread(target=self._tick, name="screen", daemon=True)
        self._clock.start()

    def step(self, text: str) -> None:
        """A spinner with seconds; the step before it scrolls up with the seconds that it took."""
        with self._lock:
            self._finish_step()
            self._step = (printable(text), time.monotonic())
            self._changed.set()

    def progress(self, text: str) -> None:
        """Another text beside the spinner; the seconds count on."""
        with self._lock:
            self._step = (printable(text), self._step[1] if self._step else time.monotonic())
            self._changed.set()

    def note(self, text: str) -> None:
        """A line below the step that it belongs to."""
        with self._lock:
            self._notes.append(Text(printable(text)))
            if self._step:
                self._changed.set()
            else:
                self._print_notes()

    def begin(self, entries: Sequence[Entry], rounds: int, start: Mapping[Entry, int]) -> None:
        """The bars appear."""
        with self._lock:
            super().begin(entries, rounds, start)
            self._finish_step()
            self._start = dict(self._done)
            self._began = time.monotonic()
            self._changed.set()

    def round(self, row: RoundRow) -> None:
        """A bar grows."""
        with self._lock:
            if row.round > self._done.get(row.entry, 0):  # a round that is played again counts once
                self._finished.append(time.monotonic())
            super().round(row)
            self._scores[row.entry] = row
            self._changed.set()

    def ended(self, entry: Entry, reason: str | None) -> None:
        """A bar is full, or stops where it is."""
        with self._lock:
            super().ended(entry, reason)
            self._reasons[entry] = reason
            self._changed.set()

    def close(self) -> None:
        """The view gives way to one line: how many rounds in what time."""
        with self._lock:
            if self._closing.is_set():
                return
            self._finish_step()
            self._closing.set()
            self._changed.set()
        self._clock.join()
        with self._lock:
            self._live.stop()
            if self._done:
                took = _clock_face((self._finished[-1] if self._finished else time.monotonic()) - self._began)
                of = f" of {self._total()}" if len(self._finished) < self._total() else ""
                self._console.print(Text(f"{len(self._finished)}{of} rounds trained in {took}"))

    def _total(self) -> int:
        return sum(self._rounds - first for first in self._start.values())

    def _tick(self) -> None:
        """Draw, on a thread of its own: who reports an event does not wait for it."""
        while not self._closing.is_set():
            self._changed.wait(_STARTING_SECONDS if self._step else _TRAINING_SECONDS)
            self._changed.clear()
            with self._lock:
                self._live.refresh()
            self._closing.wait(_STARTING_SECONDS)

    def _finish_step(self) -> None:
        if self._step:
            text, since = self._step
            self._step = None
            self._console.print(Text.assemble((f"{time.monotonic() - since:7.1f} s", "dim"), f"  {text}"))
            self._print_notes()

    def _print_notes(self) -> None:
        for note in self._notes:
            self._console.print(Padding(note, (0, 0, 0, 11)))
        self._notes.clear()

    def _warn(self, line: str) -> None:
        self._console.print(Text(printable(line), style="red"))

    def _frame(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = []
            if self._done and not self._closing.is_set():
                parts += [Padding(self._table(), (1, 0, 0, 1)), Padding(Text(self._forecast(), "dim"), (1, 0, 1, 1))]
            if self._step:
                text, since = self._step
                line = Table.grid(padding=(0, 1))
                line.add_row("", self._spinner, f"{time.monotonic() - since:4.1f} s ", Text(text))
                parts += [line, *(Padding(note, (0, 0, 0, 11)) for note in self._notes)]
            return Group(*parts)

    def _table(self) -> Table:
        width = min(self._console.width - 1, _MOST_WIDTH)
        table = Table(box=None, width=width, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        groups = self._groups()
        means = "means" if len(groups) < len(self._done) else ""
        widest = max(12, self._console.width // 3)
        table.add_column(means, no_wrap=True, overflow="ellipsis", max_width=widest)
        table.add_column("", ratio=1)
        for header in ("round", "accuracy", "loss"):
            table.add_column(header, justify="right", no_wrap=True)
        room = max(1, self._console.height - _FRAME_LINES)
        hidden = len(groups) - room + 1 if len(groups) > room else 0
        for name, entries in list(groups.items())[: len(groups) - hidden]:
            table.add_row(Text(printable(_shortened(name, widest))), self._bar(entries), *self._figures(entries))
        if hidden:
            table.add_row(f"and {hidden} more", "", "", "", "")
        return table

    def _groups(self) -> dict[str, list[Entry]]:
        """The rows: contestants if they fit, else strategies in scenarios, else strategies."""
        ways: list[Callable[[Entry], Entry]] = [
            lambda entry: entry,
            lambda entry: entry._replace(seed=0),
            lambda entry: Entry("", entry.strategy, 0),
        ]
        groups: dict[str, list[Entry]] = {}
        for way in ways:
            names = labels({way(entry): None for entry in self._done}.keys())
            groups = defaultdict(list)
            for entry in self._done:
                groups[names[way(entry)]].append(entry)
            if len(groups) <= min(_MOST_ROWS, self._console.height - _FRAME_LINES):
                break
        return groups

    def _bar(self, entries: Sequence[Entry]) -> ProgressBar:
        reasons = [self._reasons.get(entry, "") for entry in entries]
        style = "red" if any(reasons) else "green" if all(reason is None for reason in reasons) else "cyan"
        return ProgressBar(
            total=self._rounds * len(entries),
            completed=sum(self._done[entry] for entry in entries),
            complete_style=style,
            finished_style=style,
        )

    def _figures(self, entries: Sequence[Entry]) -> tuple[str, str, str]:
        """Rounds, accuracy and loss; means over the entries that have been tested."""
        rows = [self._scores[entry] for entry in entries if entry in self._scores]
        done = f"{sum(self._done[entry] for entry in entries)}/{self._rounds * len(entries)}"
        if not rows:
            return done, "", ""
        return done, percent(fmean(row.test_accuracy for row in rows)), f"{fmean(row.test_loss for row in rows):.4f}"

    def _forecast(self) -> str:
        """How long it took so far and will take still.

        The first lap of all contestants is slower than the rest (workers trace their functions), so it counts only
        until there is another.
        """
        now = time.monotonic()
        text = f"{len(self._finished)} of {self._total()} rounds, {_clock_face(now - self._began)}"
        left = sum(self._rounds - self._done[entry] for entry in self._done if entry not in self._reasons)
        lap = len(self._done) if len(self._finished) >= 2 * len(self._done) else 0
        if not left or not self._finished:
            return text
        since = self._finished[lap - 1] if lap else self._began
        seconds = (self._finished[-1] - since) / (len(self._finished) - lap) * left - (now - self._finished[-1])
        return f"{text}, about {_clock_face(max(0.0, seconds))} left"


def _shortened(name: str, width: int) -> str:
    """A name that fits: of a long `scenario: strategy` the scenario is cut, as several strategies share it."""
    scenario, colon, strategy = name.rpartition(": ")
    room = width - len(colon) - len(strategy)
    return name if len(name) <= width or not colon or room < 2 else f"{scenario[: room - 1]}…{colon}{strategy}"


def _clock_face(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

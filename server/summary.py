"""What a run showed: one summary per contestant, the table at its end, and all of it together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from server.coincidences import Coincidence, coincidences
from server.names import labels
from server.results import ClientRow, Entry, RoundRow, RunFolder
from server.verdict import stops, verdict

if TYPE_CHECKING:
    import rich.console


@dataclass(frozen=True)
class EntrySummary:
    """One contestant over all its rounds."""

    entry: Entry
    rounds: int  # the last finished round
    final_accuracy: float  # after that round, 0..1
    final_loss: float  # nats
    best_accuracy: float
    best_round: int  # the first round that reached it
    to_90: int | None  # the first round with a test accuracy of 90 % or more
    to_95: int | None
    seconds: float  # sum of its rounds' wall seconds; contestants share the machine, so these overlap
    bytes_up: int
    bytes_down: int
    rejected: int  # client-rounds that were rejected or failed


@dataclass(frozen=True)
class Table:
    """A table of ready texts: the first column is left-aligned, the others are numbers."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    def text(self) -> str:
        """The table as plain lines."""
        widths = [max(map(len, column)) for column in zip(self.headers, *self.rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in (self.headers, tuple("-" * width for width in widths), *self.rows)
        ]
        return "\n".join([*lines, self.note])

    def rich(self) -> rich.console.Group:
        """The table for a terminal; fits 80 columns: long names wrap."""
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, header_style="bold")
        table.add_column(self.headers[0], overflow="fold")
        for header in self.headers[1:]:
            table.add_column(header, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return Group(table, Text(self.note, "dim"))


@dataclass(frozen=True)
class Outcome:
    """All that is known about a run, in one order: scenarios and strategies as configured, then seeds and rounds."""

    run: Mapping[str, Any]  # run.json
    rounds: tuple[RoundRow, ...]
    clients: tuple[ClientRow, ...]
    summaries: tuple[EntrySummary, ...]
    same: tuple[Coincidence, ...]
    verdict: tuple[str, ...]

    @classmethod
    def read(cls, folder: RunFolder) -> Outcome:
        """Read the folder's files.

        Raises:
            UserError: a file of the folder is broken.
        """
        run = folder.read_run()
        rounds, clients = folder.read_rounds(), folder.read_clients()
        config = run.get("config", {})
        entries = [*(row.entry for row in rounds), *(row.entry for row in clients)]
        strategies = [*config.get("strategies", ()), *dict.fromkeys(entry.strategy for entry in entries)]
        scenarios = list(dict.fromkeys(entry.scenario for entry in entries))
        rounds = sorted(
            rounds,
            key=lambda r: (scenarios.index(r.scenario), strategies.index(r.strategy), r.seed, r.round),
        )
        clients = sorted(
            clients,
            key=lambda r: (scenarios.index(r.scenario), strategies.index(r.strategy), r.seed, r.round, r.client),
        )
        results = {row.entry: run.get("results", {}).get(row.entry.key, {}) for row in rounds}
        hashes = {entry: result["sha256"] for entry, result in results.items() if result.get("sha256")}
        ended = {entry: result.get("ended", "finished") for entry, result in results.items()}
        summaries = summarise(rounds)
        return cls(
            run=run,
            rounds=tuple(rounds),
            clients=tuple(clients),
            summaries=tuple(summaries),
            same=tuple(coincidences(rounds, clients, hashes)),
            verdict=tuple(verdict(rounds) + stops(rounds, ended)),
        )


def summarise(rounds: Iterable[RoundRow]) -> list[EntrySummary]:
    """One summary per contestant that has a row, in order of appearance."""
    rows: dict[Entry, list[RoundRow]] = defaultdict(list)
    for row in rounds:
        rows[row.entry].append(row)
    return [_summarise(entry, sorted(some, key=lambda row: row.round)) for entry, some in rows.items()]


def _summarise(entry: Entry, rows: Sequence[RoundRow]) -> EntrySummary:
    best = max(rows, key=lambda row: row.test_accuracy)

    def reached(accuracy: float) -> int | None:
        return next((row.round for row in rows if row.test_accuracy >= accuracy), None)

    return EntrySummary(
        entry=entry,
        rounds=rows[-1].round,
        final_accuracy=rows[-1].test_accuracy,
        final_loss=rows[-1].test_loss,
        best_accuracy=best.test_accuracy,
        best_round=best.round,
        to_90=reached(0.90),
        to_95=reached(0.95),
        seconds=sum(row.seconds for row in rows),
        bytes_up=sum(row.bytes_up for row in rows),
        bytes_down=sum(row.bytes_down for row in rows),
        rejected=sum(row.clients_rejected for row in rows),
    )


def summary_table(summaries: Sequence[EntrySummary]) -> Table:
    """One row per scenario and strategy; over several seeds the means, with the sd of the final accuracy."""
    groups: dict[Entry, list[EntrySummary]] = defaultdict(list)
    for summary in summaries:
        groups[summary.entry._replace(seed=0)].append(summary)
    names = labels(groups.keys())
    seeds = max(map(len, groups.values()), default=0)
    unit, size = _unit(max((max(s.bytes_up, s.bytes_down) for s in summaries), default=0))
    rows = []
    for entry, some in groups.items():
        finals = [s.final_accuracy for s in some]
        rows.append(
            (
                names[entry],
                f"{100 * fmean(finals):.2f}",
                *([f"{100 * stdev(finals):.2f}" if len(finals) > 1 else "-"] if seeds > 1 else []),
                f"{100 * fmean(s.best_accuracy for s in some):.2f}",
                _round([s.best_round for s in some]),
                _round([s.to_90 for s in some]),
                _round([s.to_95 for s in some]),
                f"{fmean(s.seconds for s in some):.1f}",
                f"{fmean(s.bytes_up for s in some) / size:.1f}",
                f"{fmean(s.bytes_down for s in some) / size:.1f}",
                str(sum(s.rejected for s in some)),
            )
        )
    sd = ("sd",) if seeds > 1 else ()
    headers = ("strategy", "final %", *sd, "best %", "in", "to 90", "to 95", "sec", f"{unit} up", f"{unit} dn", "rej.")
    note = "in, to 90, to 95: the round of the best accuracy, the first round with 90 % and with 95 %."
    if seeds > 1:
        note = f"Means over {seeds} seeds (rounds: medians; rejected clients: sum). {note}"
    return Table(headers, tuple(rows), note)


def _round(numbers: Sequence[int | None]) -> str:
    """The median over seeds; a seed that never got there counts as infinitely late."""
    middle = median(math.inf if number is None else number for number in numbers)
    return f"{middle:g}" if math.isfinite(middle) else "-"


def _unit(most: int) -> tuple[str, float]:
    return next(((unit, size) for unit, size in (("GB", 1e9), ("MB", 1e6)) if most >= size), ("kB", 1e3))

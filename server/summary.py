"""What a run showed: one summary per contestant, the table at its end, and all of it together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from server.coincidences import Coincidence, coincidences
from server.names import labels, short_names
from server.results import ClientRow, Entry, LocalRow, Readable, RoundRow, entries_of
from server.statistics.diverged import diverged, gave_up
from server.statistics.estimate import estimate
from server.statistics.pairs import Comparison, compare
from server.statistics.panel import ROUNDS_TO_TARGET, Panel, panels_of
from server.statistics.targets import Target, Time, median_time, targets, times
from server.verdict import stops, verdict
from server.weighting import weighting
from task.config import RunConfig, parse
from task.errors import UserError, printable_tree

if TYPE_CHECKING:
    import rich.console
    from rich.table import Table as Grid


@dataclass(frozen=True)
class EntrySummary:
    """One contestant over all its rounds."""

    entry: Entry
    rounds: int  # the last finished round
    final_accuracy: float  # after that round, 0..1
    final_loss: float  # nats
    best_accuracy: float
    best_round: int  # the first round that reached it
    target: float  # test accuracy to reach, 0..1
    to_target: Time  # the first round that had it
    to_95: Time
    seconds: float  # sum of its rounds' wall seconds; contestants share the machine, so these overlap
    bytes_up: int
    bytes_down: int
    rejected: int  # client-rounds that were rejected or failed
    diverged: bool  # or gave up


@dataclass(frozen=True)
class Table:
    """A table of ready texts: the first column is left-aligned, the others are numbers."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    def text(self, widths: Sequence[int] = ()) -> str:
        """The table as plain lines; `widths`: of the columns, else as wide as their longest cells."""
        widths = widths or [max(map(len, column)) for column in zip(self.headers, *self.rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in (self.headers, tuple("-" * width for width in widths), *self.rows)
        ]
        return "\n".join([*lines, *filter(None, [self.note])])

    def rich(self) -> rich.console.Group:
        """The table and its note for a terminal."""
        from rich.console import Group
        from rich.text import Text

        return Group(self.grid(), Text(self.note, "dim"))

    def grid(self, widths: Sequence[int] = ()) -> Grid:
        """The table for a terminal; fits 80 columns: long names wrap. `widths`: of the columns, where there is room."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, header_style="bold")
        table.add_column(self.headers[0], overflow="fold", width=widths[0] if widths else None)
        for i, header in enumerate(self.headers[1:], 1):
            table.add_column(header, justify="right", no_wrap=True, min_width=widths[i] if widths else None)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


@dataclass(frozen=True)
class Outcome:
    """All that is known about a run, in one order: scenarios and strategies as configured, then seeds and rounds."""

    run: Mapping[str, Any]  # run.json
    rounds: tuple[RoundRow, ...]
    clients: tuple[ClientRow, ...]
    summaries: tuple[EntrySummary, ...]
    same: tuple[Coincidence, ...]
    verdict: tuple[str, ...]
    local: tuple[LocalRow, ...]
    panels: tuple[Panel, ...]
    comparisons: tuple[Comparison, ...]
    targets: tuple[Target, ...]
    diverged: tuple[Entry, ...]  # or gave up

    @classmethod
    def read(cls, folder: Readable) -> Outcome:
        """Read the folder's files and compute everything that is told of them.

        Raises:
            UserError: a file of the folder is broken.
        """
        run = printable_tree(folder.read_run())
        rounds, clients, local = folder.read_rounds(), folder.read_clients(), folder.read_local()
        config = RunConfig()
        with suppress(UserError):  # of another version: the order of the rows and the default target, then
            config = parse(run.get("config", {}))
        seen = dict.fromkeys([*(row.entry for row in rounds), *(row.entry for row in clients)])
        scenarios = _places([*(one.name for one in config.scenarios), *(entry.scenario for entry in seen)])
        strategies = _places([*config.strategies, *(entry.strategy for entry in seen)])

        def place(entry: Entry) -> tuple[int, int, int]:
            return scenarios[entry.scenario], strategies[entry.strategy], entry.seed

        rounds.sort(key=lambda row: (place(row.entry), row.round))
        clients.sort(key=lambda row: (place(row.entry), row.round, row.client))
        local = [row for row in local if row.entry in seen]
        local.sort(key=lambda row: (place(row.entry), row.round, row.client))
        results = run.get("results", {})
        known = {
            entry: results[entry.key] for entry in {**seen, **dict.fromkeys(entries_of(config))} if entry.key in results
        }
        hashes = {entry: result["sha256"] for entry, result in known.items() if result.get("sha256")}
        ended = {entry: result.get("ended", "finished") for entry, result in known.items()}
        stopped, lost = gave_up(ended), diverged(rounds, ended)
        panels, comparisons = panels_of(rounds, stopped), []
        for panel in panels:
            comparisons += compare(panel, {ROUNDS_TO_TARGET: panel.rounds_to(config.target)})
        return cls(
            run=run,
            rounds=tuple(rounds),
            clients=tuple(clients),
            summaries=tuple(summarise(rounds, config.target, stopped, set(lost))),
            same=tuple(coincidences(rounds, clients, hashes)),
            verdict=(
                *verdict(panels, comparisons, lost),
                *weighting(panels, clients, run.get("weights_by", {})),
                *stops(rounds, ended),
            ),
            local=tuple(local),
            panels=tuple(panels),
            comparisons=tuple(comparisons),
            targets=tuple(targets(rounds, config.target, stopped, lost)),
            diverged=tuple(lost),
        )


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def summarise(
    rounds: Iterable[RoundRow], target: float = 0.9, stopped: Collection[Entry] = (), lost: Collection[Entry] = ()
) -> list[EntrySummary]:
    """One summary per contestant that has a row, in order of appearance.

    Args:
        rounds: all rows.
        target: test accuracy to reach, 0..1.
        stopped: contestants that gave up.
        lost: contestants that diverged or gave up.
    """
    rounds = tuple(rounds)
    rows: dict[Entry, list[RoundRow]] = defaultdict(list)
    for row in rounds:
        rows[row.entry].append(row)
    to_target, to_95 = times(rounds, target, stopped), times(rounds, 0.95, stopped)
    found = []
    for entry, some in rows.items():
        some.sort(key=lambda row: row.round)
        best = max(some, key=lambda row: row.test_accuracy)
        found.append(
            EntrySummary(
                entry=entry,
                rounds=some[-1].round,
                final_accuracy=some[-1].test_accuracy,
                final_loss=some[-1].test_loss,
                best_accuracy=best.test_accuracy,
                best_round=best.round,
                target=target,
                to_target=to_target[entry],
                to_95=to_95[entry],
                seconds=sum(row.seconds for row in some),
                bytes_up=sum(row.bytes_up for row in some),
                bytes_down=sum(row.bytes_down for row in some),
                rejected=sum(row.clients_rejected for row in some),
                diverged=entry in lost,
            )
        )
    return found


def summary_table(summaries: Sequence[EntrySummary], weights_by: Mapping[str, str] | None = None) -> Table:
    """One row per scenario and strategy; over several seeds the means, with half of the final accuracy's interval.

    Args:
        summaries: of all contestants.
        weights_by: what each strategy weighs by, where that is known; with any there is a column for it.
    """
    weights_by = weights_by or {}
    groups: dict[Entry, list[EntrySummary]] = defaultdict(list)
    for summary in summaries:
        groups[summary.entry._replace(seed=0)].append(summary)
    names = labels(groups.keys())
    seeds = max(map(len, groups.values()), default=0)
    lost = any(summary.diverged for summary in summaries)
    unit, size = _unit(max((max(s.bytes_up, s.bytes_down) for s in summaries), default=0))
    rows = []
    for entry, some in groups.items():
        final = estimate([s.final_accuracy for s in some])
        half = "-" if final.half is None else f"{100 * final.half:.2f}"
        rows.append(
            (
                names[entry],
                f"{100 * final.mean:.2f}",
                *([half] if seeds > 1 else []),
                f"{100 * fmean(s.best_accuracy for s in some):.2f}",
                _round([Time(s.best_round, True) for s in some]),
                _round([s.to_target for s in some]),
                _round([s.to_95 for s in some]),
                f"{fmean(s.seconds for s in some):.1f}",
                f"{fmean(s.bytes_up for s in some) / size:.1f}",
                f"{fmean(s.bytes_down for s in some) / size:.1f}",
                *([str(sum(s.diverged for s in some))] if lost else []),
                str(sum(s.rejected for s in some)),
                *([weights_by.get(entry.strategy, "-")] if weights_by else []),
            )
        )
    share = f"{100 * next((s.target for s in summaries), 0.9):g}"
    between = ("±",) if seeds > 1 else ()
    headers = (
        "strategy",
        "final %",
        *between,
        "best %",
        "in",
        f"to {share}",
        "to 95",
        "sec",
        f"{unit} up",
        f"{unit} dn",
    )
    note = f"in, to {share}, to 95: the round of the best accuracy, the first round with {share} % and with 95 %."
    if seeds > 1:
        note = (
            f"Means over {seeds} seeds, ±: half of the 95 % interval (rounds: medians, of all runs; rejected clients:"
            f" sum). {note}"
        )
    if lost:
        note = f"{note} div.: runs that diverged or gave up."
    last = (*(("div.",) if lost else ()), "rej.", *(("weights by",) if weights_by else ()))
    return Table((*headers, *last), tuple(rows), note)


def summary_by_scenario(summaries: Sequence[EntrySummary], *, for_terminal: bool) -> str | rich.console.Group:
    """`summary_table` for the screen: the rows of several scenarios each below the scenario's name.

    Args:
        summaries: of all contestants.
        for_terminal: with colours; else plain lines.
    """
    from rich.console import Group
    from rich.text import Text

    whole = summary_table(summaries)
    entries = list(dict.fromkeys(summary.entry._replace(seed=0) for summary in summaries))
    scenarios = list(dict.fromkeys(entry.scenario for entry in entries))
    if len(scenarios) <= 1:
        return whole.rich() if for_terminal else whole.text()
    names = short_names(entry.strategy for entry in entries)
    named = [(names[entry.strategy], *row[1:]) for entry, row in zip(entries, whole.rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(whole.headers, *named, strict=True)]
    parts: list[Any] = []
    for scenario in scenarios:
        rows = tuple(row for entry, row in zip(entries, named, strict=True) if entry.scenario == scenario)
        table = replace(whole, rows=rows, note="")
        heading = f"\n{scenario}"
        parts += [Text(heading, "bold"), table.grid(widths)] if for_terminal else [heading, table.text(widths)]
    return Group(*parts, Text(whole.note, "dim")) if for_terminal else "\n".join([*parts, whole.note])


def _round(runs: Sequence[Time]) -> str:
    """The median over seeds."""
    middle = median_time(runs, interval=False).median
    return "-" if middle is None else f"{middle:g}"


def _unit(most: int) -> tuple[str, float]:
    return next(((unit, size) for unit, size in (("GB", 1e9), ("MB", 1e6)) if most >= size), ("kB", 1e3))

"""The table of a one-shot aggregation, in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.oneshot.combination import LOCAL, METHODS, Combination
from server.oneshot.estimates import MethodSummary, by_method, summarise
from server.oneshot.verdict import verdict
from server.oneshot.words import LOCALS, alone, hundredths, length, points, what_it_is
from server.summary import Table

if TYPE_CHECKING:
    import rich.console

_MOST_LOCALS = 8  # lines of single local models
_HEADERS = ("method", "accuracy %", "loss", "from first", "to mean local")
_NOTE = (
    "loss: cross-entropy, nats. from first: L2 distance to local-0. to mean local: difference of the accuracies to the"
    " mean local model's, in points, paired."
)


def method_table(combinations: Sequence[Combination]) -> Table:
    """A line for each method: mean accuracy, loss, distance to the first model, difference to the mean local model.

    With several seeds accuracies have 95 % t-intervals, and the local models, each of which is another model with each
    seed, share one line with their range; so do more than eight with one seed.

    Args:
        combinations: one for each seed, at least one.
    """
    summaries = summarise(combinations)
    local = [method for method in summaries if method.startswith(LOCAL)]
    folded = len(combinations) > 1 or len(local) > _MOST_LOCALS
    rows = [_folded([summaries[method] for method in local])] if folded and local else []
    rows += [_line(one) for method, one in summaries.items() if not (folded and method in local)]
    seeds = len(combinations)
    intervals = f"Means over {seeds} seeds with 95 % t-intervals; the local models' line is their range. "
    return Table(_HEADERS, tuple(rows), (intervals if seeds > 1 else f"{alone(combinations)}: no intervals. ") + _NOTE)


def seed_table(combinations: Sequence[Combination]) -> Table:
    """The test accuracy in % of every method with every seed."""
    known = [by_method(combination) for combination in combinations]
    return Table(
        headers=("method", *(f"seed {combination.material.seed}" for combination in combinations)),
        rows=tuple(
            (method, *(f"{100 * rows[method].test_accuracy:.2f}" if method in rows else "-" for rows in known))
            for method in summarise(combinations)
        ),
        note="Test accuracy in %.",
    )


def undefined(combinations: Sequence[Combination]) -> dict[str, str]:
    """Methods that some seed has no row of, each with the reason, in the order of METHODS."""
    reasons = {method: why for combination in combinations for method, why in combination.undefined.items()}
    return {method: reasons[method] for method in sorted(reasons, key=_order)}


def summary_table(combinations: Sequence[Combination]) -> rich.console.RenderableType:
    """Verdict, table, and a line on every method, for a terminal of 80 columns or more.

    Args:
        combinations: one for each seed, at least one.
    """
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    models = len(combinations[0].material.locals)
    words = RichTable.grid(padding=(0, 2, 0, 0))
    words.add_column(no_wrap=True, style="dim")
    words.add_column(style="dim", overflow="fold")
    files = _files(combinations)
    for method, name in files:
        words.add_row(Text(method), Text(name))
    defined = [
        *([] if files else [LOCALS]),
        *(method for method in summarise(combinations) if not method.startswith(LOCAL)),
    ]
    reasons = undefined(combinations)
    for method in sorted({*defined, *reasons}, key=_order):
        missing = f"not defined here. {reasons[method]}" if method in reasons else ""
        words.add_row(Text(method), Text(missing or what_it_is(method, models)))
    lines = [Text(line) for line in verdict(combinations)]
    lines[0].stylize("bold")
    return Group(*lines, Text(), method_table(combinations).rich(), Text(), words)


def _files(combinations: Sequence[Combination]) -> list[tuple[str, str]]:
    """Which file each local model is; nothing where they are no files, or too many to list."""
    names = combinations[0].material.names
    if combinations[0].material.init != "files" or len(names) > _MOST_LOCALS:
        return []
    return [(f"{LOCAL}{index}", name) for index, name in enumerate(names)]


def _order(method: str) -> int:
    return METHODS.index(method) if method in METHODS else -1


def _line(one: MethodSummary) -> tuple[str, ...]:
    return (
        one.method,
        hundredths(one.accuracy),
        f"{one.loss:.3f}",
        length(one.distance),
        points(one.to_mean_local) if one.to_mean_local else "-",
    )


def _folded(local: Sequence[MethodSummary]) -> tuple[str, ...]:
    """All local models of all seeds: from the worst to the best."""
    accuracies = [100 * accuracy for one in local for accuracy in one.accuracies]
    distances = [one.distance for one in local if one.distance is not None]
    name = local[0].method if len(local) == 1 else f"{local[0].method} to {local[-1].method.removeprefix(LOCAL)}"
    return (
        name,
        f"{min(accuracies):.2f} to {max(accuracies):.2f}",
        f"{min(one.loss for one in local):.2f} to {max(one.loss for one in local):.2f}",
        f"{length(min(distances))} to {length(max(distances))}" if distances else "-",
        "-",
    )

"""Which contestants diverged or gave up: they are counted and shown, never averaged away."""

import math
from collections.abc import Iterable, Mapping, Sequence

from server.results import Entry, RoundRow

_FROM_OUTSIDE = ("finished", "interrupted", "the simulation ended:")  # what begins so is no fault of the contestant


def gave_up(ended: Mapping[Entry, str]) -> dict[Entry, str]:
    """Contestants that stopped early because of their own updates or values, not because the run was ended; and why.

    Args:
        ended: how each contestant ended, `finished` or the reason; those that are missing are still running.
    """
    return {entry: reason for entry, reason in ended.items() if not reason.startswith(_FROM_OUTSIDE)}


def diverged(rounds: Iterable[RoundRow], ended: Mapping[Entry, str]) -> list[Entry]:
    """The contestants that ended worse than they began, in order of appearance.

    These are those whose test loss is not finite in their last round or above that of their initial model, and those
    that gave up.
    """
    rows: dict[Entry, list[RoundRow]] = {}
    for row in rounds:
        rows.setdefault(row.entry, []).append(row)
    stopped = gave_up(ended)
    found = [entry for entry, some in rows.items() if entry in stopped or _lost(some)]
    return found + [entry for entry in ended if entry in stopped and entry not in rows]


def _lost(rows: Sequence[RoundRow]) -> bool:
    first, last = min(rows, key=lambda row: row.round), max(rows, key=lambda row: row.round)
    return not math.isfinite(last.test_loss) or (first.round == 0 and last.test_loss > first.test_loss)

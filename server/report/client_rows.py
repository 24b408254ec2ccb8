"""One line for each client of each contestant: the model beside it, how far it went, how often it was turned away."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.results import ClientRow, Entry, LocalRow


@dataclass
class ClientLine:
    """A client of one contestant.

    Attributes:
        client: its number.
        examples: on which it trains; None: it never said.
        measured: the round of the following four, the last one in which it tested if it ever did; 0: none.
        before: accuracy of the global model of that round on its training data, 0..1; None for clients that did not
            test in the last round that was measured: accuracies of different models are not shown side by side.
        after: that of its own model after training.
        norm: L2 norm of its update.
        cosine: between its update and the global step.
        refused: rounds in which it was rejected or failed.
    """

    client: int
    examples: int | None = None
    measured: int = 0
    before: float | None = None
    after: float | None = None
    norm: float | None = None
    cosine: float | None = None
    refused: int = 0


def client_lines(clients: Iterable[ClientRow], local: Iterable[LocalRow]) -> dict[Entry, list[ClientLine]]:
    """The lines of each contestant, by client.

    Args:
        clients: rows of clients.csv.
        local: rows of local.csv.
    """
    found: dict[Entry, dict[int, ClientLine]] = {}

    def line(row: ClientRow | LocalRow) -> ClientLine:
        lines = found.setdefault(row.entry, {})
        return lines.setdefault(row.client, ClientLine(row.client))

    for row in clients:
        one = line(row)
        one.refused += row.status != "ok"
        one.examples = one.examples if row.num_examples is None else row.num_examples
    for update in local:
        one = line(update)
        # A round in which clients test tells more than a later one in which they do not.
        if (update.accuracy_before is not None, update.round) >= (one.before is not None, one.measured):
            one.measured, one.before, one.after = update.round, update.accuracy_before, update.accuracy_after
            one.norm, one.cosine = update.update_norm, update.cosine
    for lines in found.values():
        last = max((one.measured for one in lines.values() if one.before is not None), default=0)
        for one in lines.values():
            if one.measured < last:
                one.before = one.after = None
    return {entry: [lines[client] for client in sorted(lines)] for entry, lines in found.items()}


def fit(
    lines: Mapping[Entry, Sequence[ClientLine]], seeds: Sequence[int], most: int
) -> dict[Entry, Sequence[ClientLine]]:
    """As many of these lines as a page has room for: those of fewer seeds first, then those of the worst clients.

    Args:
        lines: of all contestants.
        seeds: in the order in which they are kept.
        most: lines that there may be.
    """
    kept = dict(lines)
    for seed in reversed(seeds[1:]):
        if sum(map(len, kept.values())) <= most:
            return kept
        kept = {entry: some for entry, some in kept.items() if entry.seed != seed}
    room = max(1, most // max(1, len(kept)))
    return {
        entry: some if len(some) <= room else sorted(sorted(some, key=_worst_first)[:room], key=lambda one: one.client)
        for entry, some in kept.items()
    }


def _worst_first(line: ClientLine) -> tuple[float, int]:
    return (2.0 if line.before is None else line.before), -line.refused

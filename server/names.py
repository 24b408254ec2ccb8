"""How contestants are called on screen, in tables and in plots: as short as stays unambiguous."""

from collections import Counter
from collections.abc import Collection, Iterable

from server.results import Entry


def short_names(strategies: Iterable[str]) -> dict[str, str]:
    """A strategy given by its dotted path goes by the last part, or the first and the last, while that is unambiguous.

    `flwr.serverapp.strategy.FedAdam` is `FedAdam`; `flwr.serverapp.strategy.FedAvg` is `flwr..FedAvg` beside `fedavg`.
    """
    unique = list(dict.fromkeys(strategies))
    names = dict(zip(unique, unique, strict=True))
    for shorten in (_ends, _tail):
        shorter = {name: shorten(name) for name in unique}
        count = Counter(word.casefold() for word in shorter.values())
        names.update({name: word for name, word in shorter.items() if count[word.casefold()] == 1})
    return names


def labels(entries: Collection[Entry]) -> dict[Entry, str]:
    """A label per contestant that says only what tells it from the others: scenario and seed if there are several."""
    names = short_names(entry.strategy for entry in entries)
    scenarios = len({entry.scenario for entry in entries}) > 1
    seeds = len({entry.seed for entry in entries}) > 1
    return {
        entry: (f"{entry.scenario}: " if scenarios else "")
        + names[entry.strategy]
        + (f" seed {entry.seed}" if seeds else "")
        for entry in entries
    }


def enumerate_words(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def percent(share: float) -> str:
    """A share of 0..1 for people: `93.40 %`."""
    return f"{100 * share:.2f} %"


def _tail(name: str) -> str:
    path, colon, options = name.partition(":")
    return path.rsplit(".", 1)[-1] + colon + options


def _ends(name: str) -> str:
    path, colon, options = name.partition(":")
    parts = path.split(".")
    return (f"{parts[0]}..{parts[-1]}" if len(parts) > 1 else path) + colon + options

"""A sentence that names the strategies whose difference may be their weighting alone, where shards are unequal."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from server.names import enumerate_words, short_names
from server.results import ClientRow
from server.statistics.panel import Panel

_PARTNER = "weighted"  # the mean by examples and nothing else
_DEALT = 1  # examples by which shards differ that were dealt as evenly as possible


def weighting(panels: Sequence[Panel], clients: Iterable[ClientRow], weights_by: Mapping[str, str]) -> list[str]:
    """Name the strategies that count clients alike beside those that weigh by examples, if their shards are unequal.

    Args:
        panels: the scenarios.
        clients: rows of clients.csv; those of used updates say how many examples each client has.
        weights_by: `clients` or `examples` by strategy, as run.json says it; who is not there is not named.

    Returns:
        One text about all scenarios; nothing where shards are equal or all strategies weigh alike.
    """
    sizes = _unequal_sizes(clients)
    mixed = [
        panel
        for panel in panels
        if panel.last
        and panel.scenario in sizes
        and {weights_by.get(name) for name in panel.strategies} >= {"clients", "examples"}
    ]
    if not mixed:
        return []
    names = short_names(name for panel in panels for name in panel.strategies)
    concerned = dict.fromkeys(name for panel in mixed for name in panel.strategies)
    alike, by_examples = (
        [name for name in concerned if weights_by.get(name) == kind] for kind in ("clients", "examples")
    )
    ranges = {panel.scenario: "{:,} to {:,} examples".format(*sizes[panel.scenario]) for panel in mixed}
    if len(panels) == 1:
        shards = f"these unequal shards ({ranges[panels[0].scenario]})"
    else:
        shards = f"the unequal shards of {enumerate_words(f'{name} ({told})' for name, told in ranges.items())}"
    sentence = (
        f"{enumerate_words(names[name] for name in alike)} count{'s' * (len(alike) == 1)} clients alike; "
        f"{enumerate_words(names[name] for name in by_examples)} weigh{'s' * (len(by_examples) == 1)} by examples. "
        f"With {shards} a difference between the two kinds may be the weighting alone"
    )
    partners = [names[name] for name in by_examples if _rule(name) == _PARTNER]
    others = [names[name] for name in by_examples if _rule(name) != _PARTNER]
    if others:
        partner = enumerate_words(partners) if partners else f"{_PARTNER}, which this run does not have"
        sentence += f": compare {enumerate_words(others)} with {partner}"
    return [f"{sentence}."]


def _unequal_sizes(clients: Iterable[ClientRow]) -> dict[str, tuple[int, int]]:
    """The smallest and the largest shard of each scenario whose shards differ with some seed."""
    found: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in clients:
        if row.status == "ok" and row.num_examples is not None:
            found[row.scenario][row.seed].add(row.num_examples)
    return {
        scenario: (min(map(min, by_seed.values())), max(map(max, by_seed.values())))
        for scenario, by_seed in found.items()
        if any(max(some) - min(some) > _DEALT for some in by_seed.values())
    }


def _rule(specification: str) -> str:
    return specification.partition(":")[0]

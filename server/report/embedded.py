"""The numbers that report.html carries for its pictures: aggregated over seeds, rounded, once."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from server.coincidences import Coincidence
from server.names import short_names
from server.plot import ACCURACY_TICKS, COLOURS, DARK, LIGHT
from server.report.client_rows import ClientLine
from server.report.measures import NOT_JUDGED, ON_TRAINING_DATA, costs_of, metrics_of
from server.report.over_seeds import over_seeds
from server.report.roles import Parts
from server.results import Entry
from server.statistics.pairs import Comparison
from server.statistics.panel import ACCURACY, LOSS, ROUNDS_TO_TARGET, Floats, Panel
from server.summary import Outcome

_DIGITS: Final = 5  # significant; all are in the .csv files
_MOST_CELLS: Final = 60_000  # of counts by client and class; beyond, one seed a scenario, then the first clients
_DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS: Final = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "pentagon")


def embed(
    outcome: Outcome,
    parts: Mapping[str, Mapping[int, Parts]],
    lines: Mapping[Entry, Sequence[ClientLine]],
) -> dict[str, Any]:
    """What the page's scripts draw, ready for JSON: None for a number that does not exist or is not finite.

    Args:
        outcome: of the run.
        parts: who had which part, by scenario and seed.
        lines: the clients of each contestant that the page has room for.
    """
    panels = outcome.panels
    strategies = list(dict.fromkeys(name for panel in panels for name in panel.strategies))
    place = {name: i for i, name in enumerate(strategies)}
    names = short_names(strategies)
    clients: dict[tuple[str, int], dict[int, list[Any]]] = defaultdict(dict)
    for entry, some in lines.items():
        if entry.strategy in place:
            clients[entry.scenario, entry.seed][place[entry.strategy]] = list(map(_line, some))
    scenarios = []
    for panel in panels:
        of_scenario = parts.get(panel.scenario, {})
        here = {seed: clients[panel.scenario, seed] for seed in panel.seeds if (panel.scenario, seed) in clients}
        scenarios.append(
            {
                "name": panel.scenario,
                "seeds": panel.seeds,
                "last": panel.last,
                "same": _groups(outcome.same, panel.scenario, place),
                "series": _series_of(outcome, panel, of_scenario, place),
                "pairs": [
                    _pair(row, place)
                    for row in outcome.comparisons
                    if row.scenario == panel.scenario and row.round == panel.last
                ],
                "partition": _partition(of_scenario, _MOST_CELLS // len(panels)),
                "roles": {seed: dict(one.words) for seed, one in of_scenario.items() if one.words},
                "clients": here,
            }
        )
    return {
        "strategies": [
            {
                "name": names[name],
                "colour": COLOURS[i % len(COLOURS)],
                "dash": _DASHES[i % len(_DASHES)],
                "symbol": _SYMBOLS[i % len(_SYMBOLS)],
            }
            for i, name in enumerate(strategies)
        ],
        "scenarios": scenarios,
        "margins": {metric.name: metric.margin for metric in (ACCURACY, LOSS, ROUNDS_TO_TARGET)},
        "measured": ON_TRAINING_DATA,
        "not_judged": NOT_JUDGED,
        "ticks": ACCURACY_TICKS,
        "ink": {"light": asdict(LIGHT), "dark": asdict(DARK)},
    }


def _series_of(
    outcome: Outcome, panel: Panel, of_scenario: Mapping[int, Parts], place: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Everything of each strategy that has a value for each round."""
    ignored = {seed: one.ignored for seed, one in of_scenario.items()}
    metrics = metrics_of(panel, (row for row in outcome.local if row.scenario == panel.scenario), ignored)
    costs = costs_of(panel, (row for row in outcome.rounds if row.scenario == panel.scenario))
    lost = Counter(entry.strategy for entry in outcome.diverged if entry.scenario == panel.scenario)
    return [
        {
            "strategy": place[name],
            "diverged": lost[name],
            "metrics": {metric: _series(values[i : i + 1]) for metric, values in metrics.items()},
            "cost": {cost: _numbers(over_seeds(values[i : i + 1]).mean[0]) for cost, values in costs.items()},
        }
        for i, name in enumerate(panel.strategies)
    ]


def _groups(same: Iterable[Coincidence], scenario: str, place: Mapping[str, int]) -> list[list[int]]:
    """The strategies that coincide here, by their places."""
    here = (one for one in same if not one.scenarios or scenario in one.scenarios)
    return [[place[name] for name in one.strategies if name in place] for one in here]


def _series(values: Floats) -> dict[str, Any]:
    """One strategy's metric by round, from values of [1, seeds, rounds]."""
    found = over_seeds(values)
    return {"mean": _numbers(found.mean[0]), "half": _numbers(found.half[0]), "n": found.seeds[0].tolist()}


def _pair(row: Comparison, place: Mapping[str, int]) -> dict[str, Any]:
    return {
        "a": place[row.a],
        "b": place[row.b],
        "metric": row.metric,
        "seeds": row.seeds,
        **{
            name: _number(getattr(row, name))
            for name in ("mean_a", "mean_b", "difference", "low", "high", "effect", "p_adjusted")
        },
        "verdict": row.verdict,
    }


def _partition(of_scenario: Mapping[int, Parts], room: int) -> dict[str, Any]:
    """Counts by seed, and how many clients are left out: first other seeds are, then the last clients."""
    known = {seed: one.counts for seed, one in of_scenario.items() if one.counts}
    if sum(len(row) for counts in known.values() for row in counts) > room:
        known = dict(list(known.items())[:1])
    shown: dict[str, Any] = {}
    for seed, counts in known.items():
        most = max(1, room // max(1, len(counts[0])))
        shown[str(seed)] = {"counts": counts[:most], "left": max(0, len(counts) - most), "p": of_scenario[seed].p_value}
    return shown


def _line(line: ClientLine) -> list[Any]:
    numbers = (line.before, line.after, line.norm, line.cosine)
    return [line.client, line.examples, line.measured, *map(_number, numbers), line.refused]


def _numbers(values: Floats) -> list[float | None]:
    return [_number(value) for value in np.asarray(values).tolist()]


def _number(value: float | None) -> float | None:
    """Rounded; None where JSON has no word for it."""
    return float(f"{value:.{_DIGITS}g}") if value is not None and math.isfinite(value) else None

"""What is drawn over rounds and against cost: arrays of [strategies, seeds, rounds from 0] for one scenario."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from server.results import LocalRow, RoundRow
from server.statistics.panel import Floats, Panel

ON_TRAINING_DATA = "on the training data of the clients of that round"
"""What clients measure themselves, in every place that shows it: only who was drawn into a round tests in it."""
NOT_JUDGED = "These are no held-out data: they make no strategy better or worse."
"""Why nothing of it is compared: who fits the training data best may only have learned them by heart."""

_COSTS = ("seconds", "bytes_up", "bytes_down")


def metrics_of(panel: Panel, local: Iterable[LocalRow], ignored: Mapping[int, Collection[int]]) -> dict[str, Floats]:
    """All metrics of a scenario that have a value; NaN where there is none.

    `accuracy`, `loss`: of the test set. `worst_on_training_data`, `spread_on_training_data`: the lowest accuracy of the
    global model with which a round began, on the training data of the clients of that round, and the highest minus the
    lowest. `norm`, `cosine`: means over clients of how far their updates went, and in which direction beside the global
    step.

    Args:
        panel: the scenario.
        local: rows of local.csv of this scenario.
        ignored: per seed the clients that do not count among clients: attackers, and those with corrupted data.
    """
    found = {"accuracy": panel.accuracy, "loss": panel.loss}
    places, shape = _places(panel), panel.accuracy.shape
    rows = [
        row
        for row in local  # a round that was cut off may have rows here and none of its own
        if row.strategy in places["strategy"] and row.seed in places["seed"] and row.round < shape[2]
        if row.client not in ignored.get(row.seed, ())
    ]
    at = [np.array([place[getattr(row, name)] for row in rows], int) for name, place in places.items()]
    where = (*at, np.array([row.round for row in rows], int))
    before, norm, cosine = (
        np.array([getattr(row, name) for row in rows], float) for name in ("accuracy_before", "update_norm", "cosine")
    )  # None becomes NaN
    worst, best = _reduce(np.fmin, before, where, shape), _reduce(np.fmax, before, where, shape)
    found |= {"worst_on_training_data": worst, "spread_on_training_data": best - worst}
    found |= {"norm": _mean(norm, where, shape), "cosine": _mean(cosine, where, shape)}
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


def costs_of(panel: Panel, rounds: Iterable[RoundRow]) -> dict[str, Floats]:
    """What each run had cost after each round: `seconds`, `bytes_up`, `bytes_down`; NaN where it had not come so far.

    Args:
        panel: the scenario.
        rounds: its rows.
    """
    places = _places(panel)
    found = {name: np.full(panel.accuracy.shape, np.nan) for name in _COSTS}
    for row in rounds:
        at = places["strategy"][row.strategy], places["seed"][row.seed], row.round
        for name, values in found.items():
            values[at] = getattr(row, name)
    return {name: np.cumsum(values, axis=2) for name, values in found.items()}


def _places(panel: Panel) -> dict[str, Mapping[object, int]]:
    return {
        "strategy": {name: i for i, name in enumerate(panel.strategies)},
        "seed": {seed: k for k, seed in enumerate(panel.seeds)},
    }


def _reduce(pick: np.ufunc, values: Floats, where: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> Floats:
    found = np.full(shape, np.nan)
    pick.at(found, where, values)
    return found


def _mean(values: Floats, where: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> Floats:
    there = ~np.isnan(values)
    total, count = np.zeros(shape), np.zeros(shape)
    at = tuple(index[there] for index in where)
    np.add.at(total, at, values[there])
    np.add.at(count, at, 1)
    with np.errstate(invalid="ignore"):
        return total / count

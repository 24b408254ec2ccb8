"""What each method gives over all seeds: means, with intervals where several seeds allow one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from server.oneshot.combination import LOCAL, MEAN_LOCAL, METHODS, Combination, Row
from server.statistics.estimate import Estimate, estimate


@dataclass(frozen=True)
class MethodSummary:
    """One method over all seeds that have it.

    Attributes:
        method: its name in oneshot.csv.
        accuracies: test accuracy with each seed, 0..1.
        accuracy: their mean.
        loss: mean test loss, nats.
        distance: mean L2 distance to local-0 over all counted arrays; None: it is not one model.
        to_mean_local: paired difference of the accuracy to the mean local model's; None where there is no such row.
    """

    method: str
    accuracies: tuple[float, ...]
    accuracy: Estimate
    loss: float
    distance: float | None
    to_mean_local: Estimate | None


def summarise(combinations: Sequence[Combination]) -> Mapping[str, MethodSummary]:
    """One summary for each method that any seed has: local models first, then in the order of METHODS."""
    present = dict.fromkeys(row.method for combination in combinations for row in combination.rows)
    local = [method for method in present if method.startswith(LOCAL)]
    return {method: _summarise(combinations, method) for method in (*local, *METHODS) if method in present}


def difference(combinations: Iterable[Combination], method: str, other: str) -> Estimate | None:
    """How much more accurate a method is than another with the same seeds, as a share; None if no seed has both."""
    pairs = [(rows[method], rows[other]) for rows in map(by_method, combinations) if {method, other} <= rows.keys()]
    return estimate([one.test_accuracy - two.test_accuracy for one, two in pairs]) if pairs else None


def by_method(combination: Combination) -> Mapping[str, Row]:
    """The rows of one seed by their method."""
    return {row.method: row for row in combination.rows}


def over_locals(combinations: Iterable[Combination], pick: Callable[[Iterable[float]], float]) -> Estimate:
    """Mean over seeds of the worst (`min`) or the best (`max`) local model's accuracy, 0..1."""
    return estimate(
        [
            pick(row.test_accuracy for row in combination.rows if row.method.startswith(LOCAL))
            for combination in combinations
        ]
    )


def _summarise(combinations: Sequence[Combination], method: str) -> MethodSummary:
    rows = [rows[method] for rows in map(by_method, combinations) if method in rows]
    distances = [row.distance_to_first for row in rows if row.distance_to_first is not None]
    accuracies = tuple(row.test_accuracy for row in rows)
    return MethodSummary(
        method=method,
        accuracies=accuracies,
        accuracy=estimate(accuracies),
        loss=fmean(row.test_loss for row in rows),
        distance=fmean(distances) if distances else None,
        to_mean_local=None if method == MEAN_LOCAL else difference(combinations, method, MEAN_LOCAL),
    )

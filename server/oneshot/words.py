"""Numbers and methods in words, the same in the terminal and on the page."""

from collections.abc import Sequence

from server.names import percent
from server.oneshot.combination import (
    ANCHORED,
    BEST_LOCAL,
    CALIBRATED,
    DISTILLED,
    ENSEMBLE,
    MATCHED,
    MEAN_LOCAL,
    Combination,
)
from server.statistics.estimate import Estimate

LOCALS = "local-0 ..."
"""What stands for the local models where they share one line."""

_TINY = 0.1  # distances below have two significant digits instead of two decimals


def what_it_is(method: str, models: int) -> str:
    """One short plain line on a method; `models` is how many local models there are."""
    return {
        LOCALS: "the finished models as they are",
        MEAN_LOCAL: "what one local model gives on average",
        BEST_LOCAL: "the best of them, picked with the test labels",
        ENSEMBLE: f"all {models} models asked, logits averaged: {models} times the compute",
        "fedavg": "the plain mean of the models",
        "fedmedian": "the middle value of each weight",
        "weighted": "the mean, weighted by the models' examples",
        "fednova": "normalised averaging, from the common start",
        ANCHORED: "no aggregation: local-0, moved by one mean local step",
        MATCHED: "hidden units brought into one order, then the mean",
        CALIBRATED: "matched, its activations set right on unlabelled images",
        DISTILLED: "that, then taught by the ensemble on those images",
    }.get(method, "a finished model as it is")


def share(value: Estimate) -> str:
    """`93.40 %`, or `93.40 ± 0.20 %` over several seeds."""
    return percent(value.mean) if value.half is None else f"{hundredths(value)} %"


def hundredths(value: Estimate) -> str:
    """`93.40 ± 0.20`, without the unit."""
    return f"{100 * value.mean:.2f}" + ("" if value.half is None else f" ± {100 * value.half:.2f}")


def points(value: Estimate) -> str:
    """`+0.80 ± 0.40`: a difference of accuracies in percentage points, without the unit."""
    return f"{100 * value.mean:+.2f}" + ("" if value.half is None else f" ± {100 * value.half:.2f}")


def length(distance: float | None) -> str:
    """An L2 distance; `-` where there is none."""
    if distance is None:
        return "-"
    return f"{distance:.2g}" if 0 < distance < _TINY else f"{distance:.2f}"


def seeds_of(combinations: Sequence[Combination]) -> str:
    """`5 seeds (0, 1, 2, 3, 4)`, `seed 0`, or `one set of files`."""
    seeds = [combination.material.seed for combination in combinations]
    if len(seeds) > 1:
        return f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"
    return "one set of files" if combinations[0].material.init == "files" else f"seed {seeds[0]}"


def alone(combinations: Sequence[Combination]) -> str:
    """What there is only one of where there are no several seeds."""
    return "One set of files" if combinations[0].material.init == "files" else "One seed"

"""Rounds to the target accuracy when not every run reaches it: the rows of targets.csv.

A run that does not reach the target says that it takes longer than so many rounds. Kaplan and Meier (1958,
Nonparametric estimation from incomplete observations, JASA 53) use just that: such runs are censored, not dropped, and
not taken for runs that reached it in their last round.

A run that gave up would never have reached the target, so it is censored at the last round of its scenario: censored
where it stopped, it would leave the others to speak for it, as if divergence had nothing to do with being slow.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from server.results import Entry, RoundRow

_HALF = 0.5 + 1e-9  # products of shares are rounded


@dataclass(frozen=True)
class Target:
    """A row of targets.csv.

    Attributes:
        scenario: its name.
        strategy: its name.
        target: test accuracy to reach, 0..1.
        seeds: runs.
        reached: runs that reached it.
        diverged: runs that diverged or gave up, whether before or after.
        median: rounds until half of the runs have reached it; None: fewer than half do.
        low: lower end of the median's 95 % interval; None with one seed, or where there is none.
        high: upper end; None: no end, with so few runs or so many that do not reach it.
    """

    scenario: str
    strategy: str
    target: float
    seeds: int
    reached: int
    diverged: int
    median: float | None
    low: float | None
    high: float | None


class Median(NamedTuple):
    """A median time with its interval; None: the curve does not come down so far."""

    median: float | None
    low: float | None
    high: float | None


class Time(NamedTuple):
    """How long a run took: `rounds`, or longer where it never `reached` the target."""

    rounds: int
    reached: bool


def targets(
    rounds: Sequence[RoundRow], target: float, stopped: Collection[Entry], diverged: Collection[Entry]
) -> list[Target]:
    """One row a scenario and strategy, in order of appearance.

    Args:
        rounds: all rows of a run.
        target: test accuracy to reach, 0..1.
        stopped: contestants that gave up.
        diverged: contestants that diverged or gave up.
    """
    runs: dict[tuple[str, str], list[Entry]] = {}
    for entry in dict.fromkeys(row.entry for row in rounds):
        runs.setdefault((entry.scenario, entry.strategy), []).append(entry)
    found, lost = times(rounds, target, stopped), set(diverged)
    return [
        Target(
            *key,
            target,
            len(entries),
            sum(found[entry].reached for entry in entries),
            sum(entry in lost for entry in entries),
            *median_time([found[entry] for entry in entries]),
        )
        for key, entries in runs.items()
    ]


def times(rounds: Sequence[RoundRow], target: float, stopped: Collection[Entry]) -> Mapping[Entry, Time]:
    """When each contestant first had this test accuracy, or until when it had not."""
    last: dict[Entry, int] = {}
    furthest: dict[str, int] = {}
    first: dict[Entry, int] = {}
    for row in rounds:
        last[row.entry] = max(row.round, last.get(row.entry, 0))
        furthest[row.scenario] = max(row.round, furthest.get(row.scenario, 0))
        if row.test_accuracy >= target:
            first[row.entry] = min(row.round, first.get(row.entry, row.round))
    return {
        entry: Time(first[entry], True)
        if entry in first
        else Time(furthest[entry.scenario] if entry in stopped else number, False)
        for entry, number in last.items()
    }


def median_time(runs: Sequence[Time], *, interval: bool = True) -> Median:
    """Median of Kaplan and Meier's curve; the interval is where the curve's 95 % limits cross one half.

    The limits are those of Greenwood's formula for the logarithm of -log S ("log-log"), which stay within 0..1 and hold
    for few runs (Brookmeyer and Crowley 1982, A confidence interval for the median survival time, Biometrics 38).

    Args:
        runs: one each, at least one.
        interval: whether it is asked for.
    """
    ordered = sorted(runs, key=lambda run: (run.rounds, not run.reached))
    share, median = 1.0, None
    for i, run in enumerate(ordered):  # one at a time: ties multiply to the same
        share *= 1 - run.reached / (len(ordered) - i)
        if share <= _HALF:
            median = float(run.rounds)
            break
    if len(runs) < 2 or not interval or not any(run.reached for run in runs):
        return Median(median, None, None)
    from scipy.stats import CensoredData, ecdf

    sample: CensoredData = CensoredData(
        uncensored=[run.rounds for run in runs if run.reached], right=[run.rounds for run in runs if not run.reached]
    )
    curve: Any = ecdf(sample).sf
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # where nobody is left the limits are 0 and unknown
        limits: Any = curve.confidence_interval(method="log-log")
    lower = np.where(curve.probabilities > 0, limits.low.probabilities, 0.0)
    ends = [curve.quantiles[limit <= _HALF] for limit in (lower, limits.high.probabilities)]
    low, high = (float(times[0]) if times.size else None for times in ends)
    return Median(median, low, high)

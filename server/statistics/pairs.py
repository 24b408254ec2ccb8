"""Paired differences between strategies: the rows of comparison.csv.

Everything but the strategy is a function of the seed, so strategies are compared seed by seed: the differences of one
seed share its shards, initial model, shuffles and attackers, and what these do to both strategies alike cancels. Three
cases:

- Student's paired t-test over seeds. Seeds are few and every value is a mean over many test images, so the differences
  are near to normal, and a rank test could not reach any small p-value: with five seeds Wilcoxon's ends at 0.0625.
- Where that has no meaning, because a loss is not finite or the same difference comes with every seed (which has no
  spread to compare it with: on a grid of test images two seeds agree by chance), the exact sign test. No interval then.
- Strategies that are the same to the bit with all seeds are no hypothesis.

All pairs of one scenario, round and metric are one family for `server.statistics.holm`; pairs with one and the same
vector of differences, but for the sign, are one hypothesis. An interval has the level at which that procedure judged
its pair, so it excludes 0 exactly where p_adjusted < 0.05, and never has a level below 95 %.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from server.statistics.paired import Pairs
from server.statistics.panel import ACCURACY, LOSS, ROUNDS_TO_TARGET, Floats, Metric, Panel
from server.statistics.words import TURNED, Tested, verdicts


@dataclass(frozen=True)
class Comparison:
    """A row of comparison.csv: a against b. None is an empty cell: there is no such number.

    Attributes:
        scenario: its name.
        round: after which both are compared.
        a: a strategy.
        b: a later one in the configured order.
        metric: `test_accuracy`, `test_loss` or `rounds_to_target`.
        seeds: with which both have a value, >= 1.
        mean_a: over these seeds; infinite where a loss is.
        mean_b: likewise.
        difference: the mean of a - b.
        low: lower end of its interval.
        high: upper end.
        effect: Hedges' g_z: difference / standard deviation of the differences, without the bias of small samples.
        p_adjusted: after Holm.
        verdict: on a; begins with `better`, `worse`, `no difference shown` or `not enough seeds`.
    """

    scenario: str
    round: int
    a: str
    b: str
    metric: str
    seeds: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    low: float | None
    high: float | None
    effect: float | None
    p_adjusted: float | None
    verdict: str

    def turned(self) -> "Comparison":
        """The same from the viewpoint of b; the words on diverged runs stay."""
        word = next((word for word in TURNED if self.verdict.startswith(word)), "")
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(
            self,
            a=self.b,
            b=self.a,
            mean_a=self.mean_b,
            mean_b=self.mean_a,
            difference=None if self.difference is None else -self.difference,
            low=low,
            high=high,
            effect=None if self.effect is None else -self.effect,
            verdict=TURNED.get(word, "") + self.verdict.removeprefix(word),
        )


def compare(panel: Panel, at_end: Mapping[Metric, Floats]) -> list[Comparison]:
    """All pairs of a panel's strategies in all its rounds: by round, then by pair, then by metric.

    Args:
        panel: the scenario.
        at_end: further metrics, which have values [strategies, seeds] after the last round only; NaN: none.
    """
    if panel.last == 0:
        return []
    rounds = slice(1, panel.last + 1)
    found = [*_compare(panel, ACCURACY, panel.accuracy[:, :, rounds], 1)]
    found += _compare(panel, LOSS, panel.loss[:, :, rounds], 1)
    for metric, values in at_end.items():
        found += _compare(panel, metric, values[:, :, np.newaxis], panel.last)
    place = {name: i for i, name in enumerate(panel.strategies)}
    return sorted(found, key=lambda row: (row.round, place[row.a], place[row.b]))  # stable: metrics stay as they are


def _compare(panel: Panel, metric: Metric, values: Floats, first: int) -> Iterator[Comparison]:
    """The pairs in one metric; values are [strategies, seeds, rounds from the first]."""
    pairs = list(combinations(range(len(panel.strategies)), 2))
    if not pairs:
        return
    one, other = (values[list(side)] for side in zip(*pairs, strict=True))
    tested = Pairs(one, other)
    tests = tested.judge()
    low, high = tested.interval(tests)
    said = verdicts(
        metric,
        [(panel.strategies[i], panel.strategies[j]) for i, j in pairs],
        Tested(
            seeds=tested.seeds,
            difference=tested.difference,
            low=low,
            high=high,
            sd=tested.sd,
            p_adjusted=tests.p_adjusted,
            hypotheses=tests.hypotheses,
            identical=tested.identical,
            flat=tested.flat,
            larger=tested.larger,
            never=(tested.means[0] == panel.last + 1) & (metric is ROUNDS_TO_TARGET),
            lost=[(np.isinf(side) & tested.both).sum(axis=1) for side in (one, other)],
        ),
    )
    columns = [
        _cells(column) for column in (*tested.means, tested.difference, low, high, tested.effect(), tests.p_adjusted)
    ]
    seeds = tested.seeds.tolist()
    for p, (i, j) in enumerate(pairs):
        for r in np.flatnonzero(tested.seeds[p]).tolist():
            mean_a, mean_b, difference, start, end, effect, p_adjusted = (column[p][r] for column in columns)
            yield Comparison(
                panel.scenario,
                first + r,
                panel.strategies[i],
                panel.strategies[j],
                metric.name,
                seeds[p][r],
                mean_a,
                mean_b,
                difference,
                start,
                end,
                effect,
                p_adjusted,
                said[p][r],
            )


def _cells(column: Floats) -> list[list[float | None]]:
    """Plain numbers that read back as they are; None for those that there are not."""
    return [[None if value != value or value == -np.inf else value for value in row] for row in column.tolist()]

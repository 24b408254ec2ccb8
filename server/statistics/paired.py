"""The differences between strategies as arrays, and the tests on them; `server.statistics.pairs` says which and why."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.statistics.holm import ALPHA, Judged, holm
from server.statistics.panel import Floats

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]

_ROUNDING: Final = 4 * float(np.finfo(np.float64).eps)  # of a subtraction, as a share of the larger operand


@dataclass(frozen=True)
class Tests:
    """What came out, as arrays of [pairs, rounds]; NaN: not tested.

    Attributes:
        p_adjusted: after Holm; 1 for strategies that are the same.
        level: at which Holm's procedure judged.
        hypotheses: in the family of that round.
    """

    p_adjusted: Floats
    level: Floats
    hypotheses: Counts


class Pairs:
    """The differences of all pairs in all rounds; arrays are [pairs, rounds] unless said otherwise.

    Args:
        one: values of each pair's first strategy, [pairs, seeds, rounds]; NaN: there is none.
        other: of its second one.

    Attributes:
        both: which seeds count: those that both have, [pairs, seeds, rounds].
        seeds: how many these are.
        differences: one - other, [pairs, seeds, rounds]; 0 also where both are infinite, NaN where they do not count.
        means: of both sides.
        difference: their mean difference; NaN where a value is infinite.
        sd: of the differences; NaN where there is no t-test.
        identical: the same with all seeds.
        flat: the same difference with all seeds, but for rounding.
        larger: the first strategy has the larger values, on the average or where signs are tested more often.
    """

    def __init__(self, one: Floats, other: Floats) -> None:
        self.both: Flags = ~np.isnan(one) & ~np.isnan(other)  # [pairs, seeds, rounds]
        self.seeds: Counts = self.both.sum(axis=1)
        ties = self.both & (one == other)  # also where both are infinite
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            self.differences = np.where(ties, 0.0, np.where(self.both, one - other, np.nan))  # [pairs, seeds, rounds]
            self.identical: Flags = (ties == self.both).all(axis=1) & (self.seeds > 0)
            finite = (~self.both | (np.isfinite(one) & np.isfinite(other))).all(axis=1)
            kept = np.where(self.both, self.differences, 0.0)
            self.means = tuple(np.where(self.both, side, 0.0).sum(axis=1) / self.seeds for side in (one, other))
            self.difference = np.where(finite & (self.seeds > 0), kept.sum(axis=1) / self.seeds, np.nan)
            spread = np.where(self.both, self.differences - self.difference[:, np.newaxis], 0.0)
            sd = np.sqrt((spread**2).sum(axis=1) / (self.seeds - 1))
            size = np.where(self.both, np.maximum(np.abs(one), np.abs(other)), 0.0).max(axis=1, initial=0.0)
        several = (self.seeds > 1) & ~self.identical
        usable = several & finite & np.isfinite(sd)  # squares of huge losses overflow
        self.flat: Flags = usable & (sd <= _ROUNDING * size)
        self._by_t: Flags = usable & ~self.flat
        self._by_sign: Flags = several & ~self._by_t
        self.sd = np.where(self._by_t, sd, np.nan)
        with np.errstate(invalid="ignore"):
            self._up, self._down = ((sign * self.differences > 0).sum(axis=1) for sign in (1, -1))
        self.larger: Flags = np.where(self._by_sign, self._up > self._down, self.difference > 0)

    def judge(self) -> Tests:
        """Test and correct; one family a round."""
        raw, shape = self._p_values(), self.seeds.shape
        p_adjusted, level = np.full(shape, np.nan), np.full(shape, np.nan)
        hypotheses = np.zeros(shape, np.int64)
        for r in range(shape[1]):
            tested = np.flatnonzero(~np.isnan(raw[:, r]))
            if tested.size:
                vectors: dict[bytes, int] = {}
                which = [vectors.setdefault(_up_to_sign(self.differences[p, :, r]), len(vectors)) for p in tested]
                family: Judged = holm([raw[tested[which.index(h)], r] for h in range(len(vectors))])
                p_adjusted[tested, r], level[tested, r] = family.p_adjusted[which], family.level[which]
                hypotheses[:, r] = len(vectors)
        p_adjusted[self.identical] = 1.0
        return Tests(p_adjusted, level, hypotheses)

    def interval(self, tests: Tests) -> tuple[Floats, Floats]:
        """Both ends; NaN where there is none, and the point 0 between identical strategies."""
        half = np.full(self.seeds.shape, np.nan)
        if self._by_t.any():
            from scipy.special import stdtrit

            at = self._by_t
            half[at] = stdtrit(self.seeds[at] - 1, 1 - tests.level[at] / 2) * self._error[at]
            size = np.abs(self.difference)
            clear = tests.p_adjusted < ALPHA
            # By the same test; so that the last bit of a quantile never contradicts it.
            half = np.where(clear, np.minimum(half, np.nextafter(size, 0)), np.maximum(half, size))
            half[~at] = np.nan
        half[self.identical & (self.seeds > 1)] = 0.0
        return self.difference - half, self.difference + half

    def effect(self) -> Floats:
        """Hedges' g_z with the exact factor of Hedges (1981); NaN with two seeds, where that is 0."""
        effect = np.full(self.seeds.shape, np.nan)
        at = self._by_t & (self.seeds > 2)
        if at.any():
            from scipy.special import gammaln

            free = self.seeds[at] - 1.0
            factor = np.exp(gammaln(free / 2) - gammaln((free - 1) / 2)) / np.sqrt(free / 2)
            effect[at] = factor * self.difference[at] / self.sd[at]
        return effect

    @property
    def _error(self) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.sd / np.sqrt(self.seeds)

    def _p_values(self) -> Floats:
        """Two-sided; NaN where there is nothing to test, which needs no scipy."""
        p_values = np.full(self.seeds.shape, np.nan)
        if self._by_t.any():
            from scipy.special import stdtr

            at = self._by_t
            p_values[at] = 2 * stdtr(self.seeds[at] - 1, -np.abs(self.difference[at]) / self._error[at])
        if self._by_sign.any():
            from scipy.special import bdtr

            at = self._by_sign
            up, down = self._up[at], self._down[at]
            p_values[at] = np.minimum(1.0, 2 * bdtr(np.minimum(up, down).astype(np.float64), up + down, 0.5))
        return p_values


def _up_to_sign(differences: Floats) -> bytes:
    """The same bytes for two vectors that differ by the sign alone."""
    there = differences[~np.isnan(differences)]
    sign = np.sign(there[np.flatnonzero(there)[:1]]).sum() or 1.0
    return (np.where(np.isnan(differences), np.nan, differences * sign) + 0.0).tobytes()  # + 0.0: no negative zero

"""The verdict on each pair, in words that begin with one of four."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.statistics.holm import ALPHA
from server.statistics.panel import Floats, Metric
from server.statistics.power import MOST, seeds_for_signs, seeds_needed

BETTER: Final = "better"
WORSE: Final = "worse"
NO_DIFFERENCE: Final = "no difference shown"
NOT_ENOUGH: Final = "not enough seeds"
TURNED: Final = {BETTER: WORSE, WORSE: BETTER}  # what the other side of a pair is

_RECOMMENDED = 5  # seeds, where there is no spread to plan with


@dataclass(frozen=True)
class Tested:
    """What is known of pairs in one metric, arrays of [pairs, rounds]; NaN: there is no such number.

    Attributes:
        seeds: that both have.
        difference: mean of a - b.
        low: of its interval.
        high: of its interval.
        sd: of the differences.
        p_adjusted: after Holm.
        hypotheses: in the family.
        identical: a is b to the bit, with all seeds.
        flat: the same difference with all seeds.
        larger: a has the larger values.
        never: a did not reach the target with any seed; of `rounds_to_target` only.
        lost: of a and of b, with how many seeds it has no finite value.
    """

    seeds: NDArray[np.int64]
    difference: Floats
    low: Floats
    high: Floats
    sd: Floats
    p_adjusted: Floats
    hypotheses: NDArray[np.int64]
    identical: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    larger: NDArray[np.bool_]
    never: NDArray[np.bool_]
    lost: Sequence[NDArray[np.int64]]


def verdicts(metric: Metric, names: Sequence[tuple[str, str]], tested: Tested) -> list[list[str]]:
    """The verdict on a against b, for each pair and round.

    `better` or `worse` where p_adjusted < 0.05; else `no difference shown` where the interval lies within the metric's
    margin (or the same smaller difference came with every seed); else `not enough seeds` with how many would do.
    """
    with np.errstate(invalid="ignore"):
        near = (tested.low >= -metric.margin) & (tested.high <= metric.margin)
        near |= tested.flat & (np.abs(tested.difference) <= metric.margin)
        told = tested.p_adjusted < ALPHA
    words = np.full(told.shape, NOT_ENOUGH, object)
    words[told] = np.where(tested.larger[told] == metric.higher, BETTER, WORSE)
    words[(near & ~told) | tested.identical] = NO_DIFFERENCE
    needed = _needed(metric, tested, words == NOT_ENOUGH)
    said = []
    for p, pair in enumerate(names):
        line = []
        for r, word in enumerate(words[p].tolist()):
            notes = []
            if tested.identical[p, r]:
                notes.append("neither reached it" if tested.never[p, r] else "identical")
            elif word == NOT_ENOUGH and tested.seeds[p, r] == 1:
                notes.append(f"at least {_RECOMMENDED} recommended")
            elif needed[p, r]:
                notes.append(_about(int(needed[p, r])))
            for name, lost in zip(pair, tested.lost, strict=True):
                if lost[p, r]:
                    notes.append(f"{name} diverged in {lost[p, r]} of {tested.seeds[p, r]} seeds")
            line.append(f"{word} ({'; '.join(notes)})" if notes else word)
        said.append(line)
    return said


def _about(seeds: int) -> str:
    """Above 100 in tens: an estimated spread carries no more."""
    if seeds > MOST:
        return f"over {MOST} needed"
    return f"about {seeds if seeds < 100 else -(-seeds // 10) * 10} needed"


def _needed(metric: Metric, tested: Tested, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many seeds would do, always more than there are; 0 where that is not wanted or there is nothing to plan with.

    Planned for the difference that was seen or the smallest one of interest, whichever is larger, at the level of the
    first step of Holm's procedure.
    """
    needed = np.zeros(tested.seeds.shape, np.int64)
    by_t = wanted & ~np.isnan(tested.sd)
    if by_t.any():
        seen = np.maximum(np.abs(tested.difference[by_t]), metric.margin)
        needed[by_t] = seeds_needed(seen / tested.sd[by_t], ALPHA / tested.hypotheses[by_t])
    for p, r in zip(*np.nonzero(wanted & tested.flat), strict=True):
        needed[p, r] = seeds_for_signs(int(tested.hypotheses[p, r]))
    return np.where(needed > 0, np.maximum(needed, tested.seeds + 1), 0)

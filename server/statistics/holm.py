"""Holm's correction for several comparisons, and the level at which it judged each of them.

Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2): of m
hypotheses the one with the k-th smallest p-value is rejected if it and all before it have p < alpha / (m - k + 1).
It keeps the chance of any false rejection below alpha without assuming anything about how the tests hang together, and
rejects whatever Bonferroni's correction rejects. Pairs that share a strategy do hang together.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from server.statistics.panel import Floats

ALPHA: Final = 0.05


class Judged(NamedTuple):
    """What the procedure says of each hypothesis, in the order in which they were given.

    Attributes:
        p_adjusted: rejected are those below ALPHA.
        level: ALPHA / (m - k + 1) of the step k at which it was rejected, or at which the procedure stopped.
    """

    p_adjusted: Floats
    level: Floats


def holm(p_values: Sequence[float]) -> Judged:
    """Judge a family of hypotheses together; at least one."""
    # Not with statsmodels' multipletests, which the tests compare it with: that collects garbage at every call, and
    # there is a family for each scenario, round and metric.
    order = np.argsort(p_values, kind="stable")
    left = len(order) - np.arange(len(order))  # m - k + 1
    p_adjusted, level = np.empty(len(order)), np.empty(len(order))
    p_adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * left), 1.0)
    stopped = min(int(np.count_nonzero(p_adjusted < ALPHA)), len(order) - 1)  # the rejected ones come first
    level[order] = ALPHA / np.maximum(left, left[stopped])
    return Judged(p_adjusted, level)

"""How many seeds a comparison needs."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.statistics.holm import ALPHA
from server.statistics.panel import Floats

MOST: Final = 1000  # seeds that are worth a number
POWER: Final = 0.8
_LARGEST = 20.0  # effects beyond need as few seeds, and leave the range of the noncentral t distribution


def seeds_needed(effects: Floats, levels: Floats) -> NDArray[np.int64]:
    """The smallest number of seeds with which the two-sided paired t-test has a power of 0.8.

    Args:
        effects: mean difference / standard deviation of the differences, > 0, of any shape.
        levels: of each test, of the same shape.

    Returns:
        Numbers >= 2, of that shape; MOST + 1: that many are not enough.
    """
    from statsmodels.stats.power import TTestPower  # of one sample: here of the differences

    power = TTestPower().power
    effects = np.minimum(effects, _LARGEST)
    low, high = np.full(effects.shape, 1), np.full(effects.shape, MOST + 1)  # low is too few, high enough
    while np.any(high - low > 1):
        middle = np.maximum((low + high) // 2, 2)
        # The tail of the other side is left out: to err in the direction is no success, and it cannot be computed when
        # it is tiny. Nor can the power where it is 1.
        enough = ~(power(effects, middle, levels / 2, alternative="larger") < POWER)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def seeds_for_signs(hypotheses: int) -> int:
    """The smallest number of seeds with which the sign test can say anything, in a family of so many hypotheses.

    With n seeds that all point one way its p-value is 2 / 2^n, which must fall below ALPHA / hypotheses.
    """
    return math.floor(math.log2(2 * hypotheses / ALPHA)) + 1

"""A mean over seeds with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEVEL = 0.975  # of the t distribution; both sides together leave 5 %


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: in the unit of the values.
        half: the 95 % t-interval is mean - half .. mean + half; None with one seed, which has no interval.
        seeds: how many values there were, >= 1.
    """

    mean: float
    half: float | None
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval lies on one side of zero; never with one seed."""
        return self.half is not None and abs(self.mean) > self.half


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval of Student's t over seeds; at least one value, all finite."""
    mean, seeds = fmean(values), len(values)
    if seeds < 2:
        return Estimate(mean, None, seeds)
    from scipy.special import stdtrit  # the quantile alone: scipy.stats takes half a second to import

    return Estimate(mean, float(stdtrit(seeds - 1, LEVEL)) * stdev(values) / math.sqrt(seeds), seeds)

"""Means and 95 % intervals over seeds for whole arrays: `server.statistics.estimate`, many at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.statistics.estimate import LEVEL
from server.statistics.panel import Floats


@dataclass(frozen=True)
class OverSeeds:
    """Arrays without the axis of the seeds.

    Attributes:
        mean: NaN where there is no value, or one that is not finite: such runs are told of, never averaged away.
        half: the 95 % t-interval is mean - half .. mean + half; NaN with fewer than two seeds.
        seeds: how many values there were.
    """

    mean: Floats
    half: Floats
    seeds: NDArray[np.int64]


def over_seeds(values: Floats) -> OverSeeds:
    """Mean and interval of Student's t along the second axis; NaN is a value that there is not."""
    there = ~np.isnan(values)
    seeds: NDArray[np.int64] = there.sum(axis=1)
    finite = (~there | np.isfinite(values)).all(axis=1) & (seeds > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, np.where(there, values, 0.0).sum(axis=1) / seeds, np.nan)
        spread = np.where(there, values - np.expand_dims(mean, 1), 0.0)
        error = np.sqrt((spread**2).sum(axis=1) / (seeds - 1) / seeds)
    half = np.full(mean.shape, np.nan)
    several = finite & (seeds > 1)
    if several.any():
        from scipy.special import stdtrit  # the quantile alone: scipy.stats takes half a second to import

        half[several] = stdtrit(seeds[several] - 1, LEVEL) * error[several]
    return OverSeeds(mean, half, seeds)

"""Numerical kernels of aggregation: NumPy arrays in, NumPy arrays out, the same bits on every machine."""

from strategies.kernels.distances import blend, squared_distances, squared_distances_around
from strategies.kernels.finite import all_finite
from strategies.kernels.medians import median
from strategies.kernels.prepare import prepare
from strategies.kernels.sums import Sum, weighted_mean
from strategies.kernels.trimmed import trimmed_mean

__all__ = [
    "Sum",
    "all_finite",
    "blend",
    "median",
    "prepare",
    "squared_distances",
    "squared_distances_around",
    "trimmed_mean",
    "weighted_mean",
]

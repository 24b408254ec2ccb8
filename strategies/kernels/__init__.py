"""Numerical kernels of aggregation: NumPy arrays in, NumPy arrays out, the same bits on every machine."""

from strategies.kernels.finite import all_finite
from strategies.kernels.medians import median
from strategies.kernels.prepare import prepare
from strategies.kernels.sums import Sum, weighted_mean

__all__ = ["Sum", "all_finite", "median", "prepare", "weighted_mean"]

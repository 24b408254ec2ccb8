"""FedMedian: the coordinate-wise median (Yin et al. 2018, arXiv:1803.01498, definition 1)."""

from collections.abc import Iterable

from strategies.base import Shell
from strategies.kernels import median
from task.update import Arrays, Update


def fedmedian(x: Arrays, updates: Iterable[Update]) -> Arrays:
    """Per coordinate the median over clients; for an even number the mean of the two middles.

    Args:
        x: the global arrays; only their number matters.
        updates: at least one; all are held at once, as a median needs them.

    Returns:
        New arrays in the shapes and dtypes of x. Integer arrays round half to even.

    Example:
        x_1 = [2, 1], x_2 = [1, 4], x_3 = [9, 2]: [2, 2].
    """
    models = [update.arrays for update in updates]
    return [median([model[i] for model in models]) for i in range(len(x))]


class FedMedian(Shell):
    """Flower strategy around `fedmedian`."""

    rule = staticmethod(fedmedian)
    weights_by = "clients"

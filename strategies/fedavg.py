"""FedAvg as a plain mean of the clients' models, each with the same say."""

from collections.abc import Iterable

from strategies.base import Shell
from strategies.kernels import Sum
from task.update import Arrays, Update


def fedavg(x: Arrays, updates: Iterable[Update]) -> Arrays:
    """(1/m) sum_i x_i.

    Args:
        x: the global arrays, for shapes and dtypes.
        updates: at least one; consumed once, so the state is O(model).

    Returns:
        New arrays in the shapes and dtypes of x, each value rounded once from the exact mean.

    Example:
        x_1 = [2, 1], x_2 = [1, 4]: [1.5, 2.5].
    """
    total, m = Sum(x), 0
    for update in updates:
        total.add(update.arrays, 1)
        m += 1
    return total.divided_by(m)


class FedAvg(Shell):
    """Flower strategy around `fedavg`."""

    rule = staticmethod(fedavg)
    weights_by = "clients"

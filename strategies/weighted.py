"""The mean weighted by examples: Federated Averaging of McMahan et al. 2017 (arXiv:1602.05629, algorithm 1)."""

from collections.abc import Iterable

from strategies.base import Shell
from strategies.kernels import Sum
from task.update import Arrays, Update


def weighted(x: Arrays, updates: Iterable[Update]) -> Arrays:
    """sum_i p_i x_i with p_i = n_i / sum_j n_j.

    Args:
        x: the global arrays, for shapes and dtypes.
        updates: at least one; consumed once, so the state is O(model).

    Returns:
        New arrays in the shapes and dtypes of x, each value rounded once from the exact mean. Equal n_i: the same bits
        as `fedavg`.

    Example:
        x_1 = [2, 1] with n_1 = 1, x_2 = [1, 4] with n_2 = 3: [1.25, 3.25].
    """
    total, examples = Sum(x), 0
    for update in updates:
        total.add(update.arrays, update.num_examples)
        examples += update.num_examples
    return total.divided_by(examples)


class Weighted(Shell):
    """Flower strategy around `weighted`."""

    rule = staticmethod(weighted)
    weights_by = "examples"
    needs = ("num_examples",)

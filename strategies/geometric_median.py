"""The geometric median: RFA (Pillutla et al. 2022, arXiv:1912.13445, smoothed Weiszfeld algorithm)."""

from collections.abc import Iterable, Mapping
from math import fsum, sqrt
from typing import Any, ClassVar

from strategies.base import ABOVE_ZERO, Range, Shell, WeightsBy
from strategies.kernels import blend, squared_distances_around
from strategies.robust import Whole, in_order
from task.update import Arrays, Update


def geometric_median(
    x: Arrays, updates: Iterable[Update], *, iterations: int = 8, smoothing: float = 1e-6, weighted: bool = True
) -> Arrays:
    """Argmin_z sum_i p_i |z - x_i|, p_i = n_i / sum_j n_j, by z <- sum_i b_i x_i / sum_i b_i, b_i = p_i / |z - x_i|.

    The iteration starts at x, where an attacker far away pulls no more than one unit of force, and not at the mean,
    which he can put anywhere. A distance below `smoothing` counts as `smoothing`. It ends early when z stands still.

    p_i is what the paper has, and what the clients say: half of the examples break it, not half of the clients. Where
    they may lie about n_i, take weighted = False.

    Distances are over all floating-point arrays; integer arrays (step counters) do not count, and are combined with
    the same weights. Each iteration reads the models once and copies none.

    Args:
        x: the global arrays that every client started from.
        updates: at least one; all are held at once.
        iterations: at most so many, >= 1; few are enough to keep attackers out, many to come to the last digits.
        smoothing: the paper's nu, > 0, in the unit of the weights.
        weighted: whether clients count by their examples, or each the same.

    Returns:
        New arrays in the shapes and dtypes of x. Nobody moved: x, exactly.

    Example:
        x = [0, 0], x_1 = [0, 0], x_2 = [1, 0], x_3 = [9, 0], equal n_i: [1, 0], the one in the middle of a line.
    """
    given = list(updates)
    squares = squared_distances_around(x, [update.arrays for update in given], [0.0] * len(given))
    says = [update.num_examples if weighted else 1 for update in given]
    # From here on sums are over the clients in an order of their own, so their bits do not depend on who came first.
    given = in_order(given, list(zip(squares.tolist(), says, strict=True)))
    says, models = [update.num_examples if weighted else 1 for update in given], [update.arrays for update in given]
    distances, factors = sorted(squares.tolist()), [0.0] * len(given)
    for iteration in range(iterations):
        if iteration:
            distances = squared_distances_around(x, models, factors).tolist()
        pulls = [say / max(smoothing, sqrt(square)) for say, square in zip(says, distances, strict=True)]
        total, before = fsum(pulls), factors
        if total == 0:  # all are beyond what a float64 can square: nobody to go to
            break
        factors = [pull / total for pull in pulls]
        if factors == before:
            break
    return blend(x, models, factors)


class GeometricMedian(Shell):
    """Flower strategy around `geometric_median`."""

    rule = staticmethod(geometric_median)
    weights_by: WeightsBy | None = "examples"
    needs = ("num_examples",)
    ranges: ClassVar[Mapping[str, Range]] = {"iterations": Whole(1), "smoothing": ABOVE_ZERO}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.options.get("weighted", True):
            self.weights_by = "clients"

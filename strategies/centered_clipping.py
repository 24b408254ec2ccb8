"""Centered clipping (Karimireddy et al. 2021, arXiv:2012.10333, section 4)."""

from collections.abc import Iterable, Mapping
from math import fsum, sqrt
from statistics import median
from typing import ClassVar

from strategies.base import ABOVE_ZERO, Range, Shell
from strategies.fedavg import fedavg
from strategies.kernels import blend, squared_distances_around
from strategies.robust import Whole, in_order
from task.update import Arrays, Update


def centered_clipping(
    x: Arrays, updates: Iterable[Update], *, radius: float | None = None, iterations: int = 1
) -> Arrays:
    """V <- v + (1/n) sum_i (x_i - v) min(1, radius / |x_i - v|), so many times, from v = x.

    Nobody moves v by more than radius / n in an iteration, so all attackers together by less than the radius.

    The paper clips around the aggregate of the round before, as this does around the global model. Distances are over
    all floating-point arrays; integer arrays (step counters) do not count, and are clipped by the same factors. Each
    iteration reads the models once and copies none.

    Args:
        x: the global arrays that every client started from.
        updates: at least one, each with the same say; all are held at once.
        radius: the paper's tau, > 0, in the unit of the weights. None: the median of the clients' |x_i - x| in this
            round, as the norms of updates change from model to model and from round to round; more than half of the
            clients must be honest for it (the median as a threshold: Andrew et al. 2021, arXiv:1905.03871).
        iterations: >= 1.

    Returns:
        New arrays in the shapes and dtypes of x, no further from it than iterations * radius. Nobody clipped: the same
        bits as `fedavg`. Nobody moved: x, exactly.

    Example:
        x = [0, 0], x_1 = [1, 0], x_2 = [0, 30], radius = 3: [.5, 1.5].
    """
    given = list(updates)
    n = len(given)
    squares = squared_distances_around(x, [update.arrays for update in given], [0.0] * n).tolist()
    # From here on sums are over the clients in an order of their own, so their bits do not depend on who came first.
    given = in_order(given, squares)
    models, distances = [update.arrays for update in given], [sqrt(square) for square in sorted(squares)]
    limit = median(distances) if radius is None else radius
    factors, clipped = [0.0] * n, False
    for iteration in range(iterations):
        if iteration:
            distances = [sqrt(square) for square in squared_distances_around(x, models, factors).tolist()]
        steps = [(1.0 if distance <= limit else limit / distance) / n for distance in distances]
        clipped |= any(distance > limit for distance in distances)
        stay = 1 - fsum(steps)
        factors = [factor * stay + step for factor, step in zip(factors, steps, strict=True)]
    return blend(x, models, factors) if clipped else fedavg(x, given)


class CenteredClipping(Shell):
    """Flower strategy around `centered_clipping`."""

    rule = staticmethod(centered_clipping)
    weights_by = "clients"
    ranges: ClassVar[Mapping[str, Range]] = {"radius": ABOVE_ZERO, "iterations": Whole(1)}

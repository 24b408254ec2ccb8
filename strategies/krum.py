"""Krum: the one client with the closest neighbours (Blanchard et al. 2017, arXiv:1703.02757, section 4)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from strategies.base import Range, Shell
from strategies.kernels import squared_distances
from strategies.robust import Whole, in_order
from task.update import Arrays, Update

ATTACKERS = 1


def krum_scores(distances: np.ndarray, attackers: int) -> list[float]:
    """s(i): the sum of |x_i - x_j|^2 over the n - f - 2 clients j that are closest to i, i itself not among them.

    Args:
        distances: |x_i - x_j|^2, float64 (n, n), symmetric, zeros in the diagonal.
        attackers: f, >= 0. Where fewer than f + 3 clients are there, the one closest counts.

    Returns:
        One score for each client, the better the lower; summed from the smallest on, so they do not depend on the order
        of the clients.
    """
    n = len(distances)
    closest = max(1, n - attackers - 2)
    return [sum(sorted(float(d) for j, d in enumerate(row) if j != i)[:closest]) for i, row in enumerate(distances)]


def best_by_krum(updates: Sequence[Update], attackers: int) -> list[Update]:
    """The updates by their scores, the best first; equal scores by content, so in whatever order they come.

    Distances are over all floating-point arrays, a BatchNorm's statistics among them, each coordinate with the same
    say; integer arrays (step counters) do not count, as their sizes have nothing to do with those of weights.
    """
    return in_order(updates, krum_scores(squared_distances([update.arrays for update in updates]), attackers))


def krum(x: Arrays, updates: Iterable[Update], *, attackers: int = ATTACKERS) -> Arrays:  # noqa: ARG001 - a rule's form
    """The model of the client with the least score, see `krum_scores`.

    The score is defined for n >= f + 3 clients, and the paper's guarantee asks for n > 2 f + 2. With fewer updates than
    f + 3, as where clients drop out of a round, the score is the distance to the one closest.

    Args:
        x: the global arrays; not used.
        updates: at least one; all are held at once.
        attackers: f, how many of the clients may send anything at all, >= 0.

    Returns:
        A copy of one client's arrays, integer ones as well. Of equal scores that with the smallest bytes.

    Example:
        x_1 = [0, 0], x_2 = [1, 0], x_3 = [0, 2], x_4 = [9, 9], f = 1: the scores are 1, 1, 4, 130; x_1.
    """
    return [array.copy() for array in best_by_krum(list(updates), attackers)[0].arrays]


class Krum(Shell):
    """Flower strategy around `krum`."""

    rule = staticmethod(krum)
    weights_by = "clients"
    ranges: ClassVar[Mapping[str, Range]] = {"attackers": Whole(0)}

    @classmethod
    def fewest(cls, options: Mapping[str, Any]) -> int:
        """So many that the score has a neighbour to count."""
        return int(options.get("attackers", ATTACKERS)) + 3

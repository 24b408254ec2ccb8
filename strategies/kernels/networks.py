"""Which pairs to compare so that the middle of n values ends in its place, whatever the values are."""

from functools import cache
from typing import NamedTuple

import numpy as np


class Comparator(NamedTuple):
    """Put the smaller value of two wires on `low` and the larger on `high`; a flag says which of them is needed."""

    low: int
    high: int
    keep_low: bool
    keep_high: bool


@cache
def middle_network(n: int) -> tuple[Comparator, ...]:
    """Comparators that bring the middle of n wires to wire n // 2; for even n the lower middle to n // 2 - 1 too.

    Parberry's pairwise sorting network (Parallel Processing Letters 2, 1992) without what the middle does not depend
    on. Stripped like this it is smaller than Batcher's, 776 comparators instead of 898 for n = 100, as Codish and
    Zazon-Ivry found ("Pairwise cardinality networks", LPAR 2010).
    """
    needed = {(n - 1) // 2, n // 2}
    kept: list[Comparator] = []
    for low, high in reversed(_sorting_network(n)):
        comparator = Comparator(low, high, low in needed, high in needed)
        if comparator.keep_low or comparator.keep_high:
            kept.append(comparator)
            needed |= {low, high}
    return tuple(reversed(kept))


@cache
def trimming_network(n: int, trim: int) -> tuple[Comparator, ...]:
    """Comparators that bring the `trim` smallest and the `trim` largest of n values to the wires at either end.

    In which order they are there, and in which order those between are, is left open: a comparator of two wires that
    nothing follows and that are both kept, or both cut off, is needed by nobody.
    """
    kept: list[Comparator] = []
    final: dict[int, bool | None] = {wire: trim <= wire < n - trim for wire in range(n)}  # None: compared again
    for low, high in reversed(_sorting_network(n)):
        if final[low] is None or final[low] != final[high]:
            kept.append(Comparator(low, high, final[low] is not False, final[high] is not False))
            final[low] = final[high] = None
    return tuple(reversed(kept))


@cache
def wires_of(network: tuple[Comparator, ...]) -> np.ndarray:
    """The wires of each comparator for a kernel that loops over them: int64, comparators x 2."""
    return np.array([(c.low, c.high) for c in network], np.int64).reshape(-1, 2)


def _sorting_network(n: int) -> list[tuple[int, int]]:
    """Parberry's network as (low, high) wires.

    It is made for powers of two: the wires from n on would carry infinity and never change, so their comparators go.
    """
    pairs: list[tuple[int, int]] = []

    def sort(wires: range) -> None:
        size = len(wires)
        if size < 2:
            return
        pairs.extend(zip(wires[0::2], wires[1::2], strict=True))
        sort(wires[0::2])
        sort(wires[1::2])
        while (size := size // 2) >= 2:
            pairs.extend(zip(wires[1::2], wires[size::2], strict=False))

    sort(range(1 << (n - 1).bit_length()))
    return [(low, high) for low, high in pairs if high < n]

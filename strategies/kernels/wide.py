"""Exact sums at the few coordinates whose terms are too far apart in size for two doubles.

Plain NumPy, some microseconds a coordinate: it has to be right, and hardly ever runs.
"""

from collections.abc import Sequence
from itertools import zip_longest
from math import copysign, fsum, inf, nextafter

import numpy as np


class Wide:
    """Sums at some coordinates of one array, each kept as as many doubles as it takes to lose nothing.

    Attributes:
        index: int64, the coordinates in the flat array, each once.
    """

    def __init__(self) -> None:
        self.index = np.empty(0, np.int64)
        self._parts: list[np.ndarray] = []  # their sum is the sum; float64, one value a coordinate
        self._plain = np.empty(0)  # the sum in ordinary arithmetic: what is left to say where it is not finite

    def copy(self) -> "Wide":
        """Another one that goes on from here."""
        other = Wide()
        other.index, other._plain = self.index, self._plain.copy()
        other._parts = [part.copy() for part in self._parts]
        return other

    def admit(self, index: np.ndarray, parts: Sequence[np.ndarray]) -> None:
        """Take in coordinates (int64) that are not here yet, with sums that some parts (float64) sum to; none: 0."""
        here, nothing = np.zeros(len(self.index)), np.zeros(len(index))
        self.index = np.concatenate([self.index, index])
        self._plain = np.concatenate([self._plain, sum(parts, nothing)])
        pairs = zip_longest(self._parts or [here], parts)
        self._parts = [np.concatenate([here if a is None else a, nothing if b is None else b]) for a, b in pairs]

    def add(self, array: np.ndarray, weight: float) -> None:
        """Add weight times the flat array, at the coordinates kept here."""
        x = array[self.index].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            self._plain += weight * x
            for half_weight in _halves(np.array(weight)):
                for half in _halves(x):
                    self._grow(half_weight * half)

    def _grow(self, term: np.ndarray) -> None:
        """Add a term to the parts; what rounding leaves of one sum goes on to the next, and at last becomes a part."""
        for i, part in enumerate(self._parts):
            if not term.any():
                return
            total = part + term
            of_term = total - part
            rest = (part - (total - of_term)) + (term - of_term)
            self._parts[i], term = total, np.where(np.isfinite(total), rest, 0)
        if term.any():
            self._parts.append(term)

    def total(self) -> tuple[np.ndarray, np.ndarray]:
        """The sums as high + low: high is the sum rounded to double, low is the rest rounded to odd."""
        high, low = self._plain.copy(), np.zeros(len(self.index))
        finite = np.isfinite(np.array(self._parts)).all(axis=0)
        for i, column in enumerate(zip(*(part.tolist() for part in self._parts), strict=True)):
            if finite[i]:
                high[i], low[i] = _high_and_low(column)
        return high, low


def _high_and_low(parts: tuple[float, ...]) -> tuple[float, float]:
    high = fsum(parts)
    low = fsum([*parts, -high])
    rest = fsum([*parts, -high, -low])
    if rest and not _last_bit(low):
        low = nextafter(low, copysign(inf, rest))
    return high, low


def _last_bit(number: float) -> int:
    return int(np.float64(number).view(np.uint64)) & 1


def _halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two doubles of at most 26 bits and a sign that sum to x, so that products of them are exact."""
    fraction, exponent = np.frexp(x)
    upper = np.rint(fraction * 2.0**26) / 2.0**26
    return np.ldexp(upper, exponent), np.ldexp(fraction - upper, exponent)

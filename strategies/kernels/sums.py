"""Weighted sums and means over clients that are exact before they are rounded once."""

from collections.abc import Sequence
from fractions import Fraction
from math import fsum, isfinite

import numpy as np

from strategies.kernels.arrays import common_type, empty_result, flat
from strategies.kernels.column import Column, Ending, Term, Weights

PENDING = 8
"""So many arrays are kept by reference before they are added up in one pass."""


class Sum:
    """A running sum of weight * arrays over clients.

    The sum is formed without rounding errors and rounded once to the result, so the bits do not depend on the order of
    the clients nor on when a result is asked for, and an error is at most half a unit in the last place of the
    result's type. The state is O(model): up to eight updates are held by reference, and beyond that 21 bytes for each
    float32 and 33 for each float64. Do not change arrays that were given while the sum is in use.

    Dtypes: float32 and float64 as they are; smaller floats in float64. Integers and bools are summed as float64 (above
    2**53 not exactly), rounded to nearest, halves to even, and clipped to their type.

    Limits: a result beyond the dtype's range is infinite. A sum beyond 1e300, a term below 1e-320, or a value that is
    not finite gives no error, but what is said above no longer holds at that coordinate.

    Args:
        like: arrays that say the shapes and dtypes of what is added and returned.
        threads: how many threads share the coordinates of large arrays; the bits do not depend on it.

    Raises:
        TypeError: for any other dtype.
    """

    def __init__(self, like: Sequence[np.ndarray], threads: int = 1) -> None:
        self._shapes = [array.shape for array in like]
        self._dtypes = [array.dtype for array in like]
        self._work = [_working_type(dtype) for dtype in self._dtypes]
        self._columns = [
            Column(array.size, work.itemsize * 8, _is_odd(array.dtype), threads)
            for array, work in zip(like, self._work, strict=True)
        ]
        self._pending: list[tuple[list[np.ndarray], float]] = []
        self._unit = 1023  # 2**unit is the last bit of any weight so far
        self._base: list[np.ndarray] | None = None
        self._base_weight = Fraction(0)

    def add(self, arrays: Sequence[np.ndarray], weight: float) -> None:
        """Add weight * arrays.

        Raises:
            ValueError: for a weight that is not finite, or another number of arrays, shape or dtype.
        """
        self._queue(self._flat(arrays), _finite(weight))

    def add_difference(self, arrays: Sequence[np.ndarray], base: Sequence[np.ndarray], weight: float) -> None:
        """Add weight * (arrays - base); with the same `base` in every call it costs no more than `add`.

        Raises:
            ValueError: as `add` does.
        """
        weight = _finite(weight)
        moved, start = self._flat(arrays), self._flat(base)
        self._queue(moved, weight)
        if self._base is None:
            self._base = start
        if all(_same(one, other) for one, other in zip(start, self._base, strict=True)):
            self._base_weight -= Fraction(weight)
        else:
            self._queue(start, -weight)

    def divided_by(self, divisor: float) -> list[np.ndarray]:
        """New arrays: sum / divisor, rounded once. Of n times the same arrays with integer weights: these to the bit.

        Raises:
            ValueError: unless 1e-300 < divisor < 1e300.
        """
        return self._results([Ending(divisor=_divisor(divisor))] * len(self._columns))

    def added_to(self, base: Sequence[np.ndarray], factor: float) -> list[np.ndarray]:
        """New arrays: base + factor * sum, rounded once; where the sum is 0, base to the bit.

        Before that rounding product and sum carry some 100 bits, so that a result is off by more than half a unit in
        the last place only if the two cancel nearly completely.

        Raises:
            ValueError: for a factor that is not finite, or arrays that do not fit.
        """
        factor = _finite(factor)
        return self._results([Ending(factor=factor, base=array) for array in self._flat(base)])

    def _flat(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(arrays) != len(self._columns):
            raise ValueError(f"{len(arrays)} arrays where there should be {len(self._columns)}")
        for i, array in enumerate(arrays):
            if array.shape != self._shapes[i] or array.dtype != self._dtypes[i]:
                expected = f"{self._dtypes[i]}{self._shapes[i]}"
                raise ValueError(f"array {i} is {array.dtype}{array.shape} where it should be {expected}")
        return [flat(array, work) for array, work in zip(arrays, self._work, strict=True)]

    def _queue(self, arrays: list[np.ndarray], weight: float) -> None:
        if weight == 0:
            return
        self._unit = min(self._unit, Weights.of(weight).unit)
        self._pending.append((arrays, weight))
        if len(self._pending) == PENDING:
            for i, column in enumerate(self._columns):
                column.fold(_terms(self._pending, i), self._unit)
            self._pending.clear()

    def _results(self, endings: Sequence[Ending]) -> list[np.ndarray]:
        entries, unit = [*self._pending], self._unit
        for weight in _as_floats(self._base_weight):
            assert self._base is not None
            entries.append((self._base, weight))
            unit = min(unit, Weights.of(weight).unit)
        results = []
        for i, (column, ending) in enumerate(zip(self._columns, endings, strict=True)):
            values = np.empty(int(np.prod(self._shapes[i], dtype=np.int64)), self._work[i])
            column.result(_terms(entries, i), unit, ending, values)
            results.append(settled(values, self._dtypes[i]).reshape(self._shapes[i]))
        return results


def weighted_mean(
    arrays: Sequence[np.ndarray], weights: Sequence[float], out: np.ndarray | None = None, threads: int = 1
) -> np.ndarray:
    """Sum of weights * arrays over the sum of weights: what `Sum` gives, for one array a client.

    Args:
        arrays: at least one, all of one shape and dtype; not changed.
        weights: one for each, finite, their sum > 0.
        out: written and returned if given: the same shape and dtype, no overlap with the arrays.
        threads: how many threads share the coordinates.

    Raises:
        ValueError: for arrays or weights that are not as said.
        TypeError: for any other dtype.
    """
    shape, dtype = common_type(arrays)
    result, values = empty_result(shape, dtype, out)
    if len(weights) != len(arrays):
        raise ValueError(f"{len(weights)} weights for {len(arrays)} arrays")
    work, odd = _working_type(dtype), _is_odd(dtype)
    exact = [_finite(weight) for weight in weights]
    terms = [Term(flat(array, work), weight) for array, weight in zip(arrays, exact, strict=True) if weight != 0]
    unit = Weights.of(*(term.weight for term in terms)).unit
    ending = Ending(divisor=_divisor(fsum(exact)))
    target = values if values.dtype == work else np.empty(values.size, work)
    Column(values.size, work.itemsize * 8, odd, threads).result(terms, unit, ending, target)
    if not np.may_share_memory(result, target):
        result[...] = settled(target, dtype).reshape(shape)
    return result


def _terms(entries: Sequence[tuple[list[np.ndarray], float]], i: int) -> list[Term]:
    return [Term(arrays[i], weight) for arrays, weight in entries]


def _working_type(dtype: np.dtype) -> np.dtype:
    if dtype.newbyteorder("=") == np.float32:
        return np.dtype(np.float32)
    if dtype.newbyteorder("=") == np.float64 or dtype.kind in "iub" or np.can_cast(dtype, np.float32):
        return np.dtype(np.float64)
    raise TypeError(f"no weighted sum of {dtype}")


def _is_odd(dtype: np.dtype) -> bool:
    """Whether what comes out as double is to be rounded to something shorter."""
    return dtype.newbyteorder("=") not in (np.float32, np.float64)


def settled(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Doubles in the result's type: integers to nearest, halves to even, clipped."""
    if dtype.kind not in "iub":
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(dtype, copy=False)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    rounded = np.rint(np.nan_to_num(values))
    inside = np.clip(rounded, float(low), np.nextafter(float(high) + 1, 0)).astype(dtype)
    return np.where(rounded >= float(high), np.array(high, dtype), inside)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two flat arrays are the same piece of memory."""
    return one is other or (
        one.size == other.size and one.__array_interface__["data"] == other.__array_interface__["data"]
    )


def _as_floats(number: Fraction) -> list[float]:
    """Floats that sum to a number exactly, the largest first."""
    floats = []
    while nearest := float(number):
        floats.append(nearest)
        number -= Fraction(nearest)
    return floats


def _finite(weight: float) -> float:
    if not isfinite(weight):
        raise ValueError(f"weight {weight} is not finite")
    return float(weight)


def _divisor(divisor: float) -> float:
    if not 1e-300 < divisor < 1e300:
        raise ValueError(f"cannot divide by {divisor}: it must be positive and between 1e-300 and 1e300")
    return float(divisor)

"""The coordinate-wise trimmed mean of n arrays."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from strategies.kernels.arrays import address, addresses, common_type, flat
from strategies.kernels.column import Weights, mean_in_one_pass
from strategies.kernels.formats import MOST
from strategies.kernels.machine import Kernel, compiled
from strategies.kernels.medians import median
from strategies.kernels.networks import trimming_network, wires_of
from strategies.kernels.sums import weighted_mean

STRIP = 64
"""Coordinates that go through the network at once: long enough a piece of each array for the processor's streams."""
ROOM = 1 << 22
"""Values that are held beside the arrays at once, where the network works in memory; see `_block`."""


def trimmed_mean(arrays: Sequence[np.ndarray], trim: int, threads: int = 1) -> np.ndarray:
    """Per coordinate the mean of what is left without the `trim` smallest and the `trim` largest values.

    That mean is exact and rounded once, as in `weighted_mean`, so the bits do not depend on the order of the arrays.
    Where one or two values are left it is `median`, to the bit; with trim = 0 `weighted_mean` with equal weights.

    Up to 32 arrays of float32 go through one compiled kernel in one pass: a network of minima and maxima pruned to what
    separates the ends, and the sum of the others. float64, small floats and more arrays go through such a network in
    blocks; integers and bools are sorted by NumPy, and have the limits of `weighted_mean`. -0.0 is below 0.0.

    Args:
        arrays: more than 2 * trim, all of one shape (any) and dtype; not changed.
        trim: how many at each side, >= 0.
        threads: how many threads share the coordinates, where one kernel does it; the bits do not depend on it.

    Returns:
        A new array, also for 0-d input, of the arrays' shape and dtype.

    Raises:
        ValueError: for too few arrays, or if their shapes or dtypes differ.
        TypeError: for any other dtype.
    """
    shape, dtype = common_type(arrays)
    n, left = len(arrays), len(arrays) - 2 * trim
    if trim < 0 or left < 1:
        raise ValueError(f"cannot trim {trim} at each side of {n} arrays")
    if trim == 0:
        return weighted_mean(arrays, [1.0] * n, threads=threads)
    if left <= 2:
        return median(arrays, threads=threads)
    if dtype.newbyteorder("=") == np.float32 and n <= MOST:
        return (
            _in_one_pass([flat(array, np.float32) for array in arrays], trim, threads)
            .astype(dtype, copy=False)
            .reshape(shape)
        )
    result = np.empty(shape, dtype)
    values, size = result.reshape(-1), result.size
    inputs = [flat(array, dtype.newbyteorder("=")) for array in arrays]
    for start in range(0, size, _block(n)):
        part = slice(start, min(start + _block(n), size))
        values[part] = weighted_mean(list(_kept([x[part] for x in inputs], trim)), [1.0] * left)
    return result


def _in_one_pass(inputs: Sequence[np.ndarray], trim: int, threads: int) -> np.ndarray:
    ones = [1.0] * (len(inputs) - 2 * trim)
    out = np.empty(inputs[0].size, np.float32)
    wide = mean_in_one_pass(inputs, Weights.of(*ones), float(len(ones)), out, threads, trim)
    if len(wide):
        out[wide] = weighted_mean(list(_kept([x[wide] for x in inputs], trim)), ones)
    return out


def _block(n: int) -> int:
    """Coordinates at once: many, as each block takes a while to set up, but not so many that all is copied."""
    return max(STRIP, ROOM // n // STRIP * STRIP)


def _kept(inputs: Sequence[np.ndarray], trim: int) -> np.ndarray:
    """What is left of flat native arrays, n - 2 * trim rows, in no certain order."""
    n, dtype = len(inputs), inputs[0].dtype
    if dtype.kind in "iub":
        stacked = np.stack(inputs)
        numbers = stacked.view(np.uint8) if dtype.kind == "b" else stacked
        return np.partition(numbers, (trim, n - trim - 1), axis=0)[trim : n - trim].astype(dtype, copy=False)
    if dtype != np.float32 and dtype != np.float64:
        if not np.can_cast(dtype, np.float32):
            raise TypeError(f"no trimmed mean of {dtype}")
        return _kept([x.astype(np.float32) for x in inputs], trim).astype(dtype)
    rows = np.empty((n, inputs[0].size), dtype)
    starts, pairs = addresses(inputs), wires_of(trimming_network(n, trim))
    places = address(starts), address(rows), rows.shape[1]
    _arrange(dtype.itemsize * 8)(*places, 0, rows.shape[1], n, address(pairs), len(pairs))
    return rows[trim : n - trim]


@cache
def _arrange(bits: int) -> Kernel:
    from strategies.kernels.order_code import arrange

    return compiled(arrange(bits, STRIP))

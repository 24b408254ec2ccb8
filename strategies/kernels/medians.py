"""The coordinate-wise median of n arrays."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from strategies.kernels.arrays import address, addresses, common_type, empty_result, flat, share_out
from strategies.kernels.machine import Kernel, compiled, lanes
from strategies.kernels.networks import middle_network, wires_of

UNROLLED = 128
"""For up to so many arrays a kernel of their own is compiled (5: 10 ms, 100: a quarter of a second, once a process)."""
STRIP = 64
"""Coordinates that the looped kernel takes at once: long enough a piece of each array for the processor's streams."""
BLOCK = 1 << 14


def median(arrays: Sequence[np.ndarray], out: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Coordinate-wise median: the middle value, or for an even number of arrays the mean of the two middles.

    On finite floats the same bits as `np.median(np.stack(arrays), axis=0)`, but that the mean of two middles does not
    overflow, and that the median of nothing but -0.0 is -0.0. The bits do not depend on the order of the arrays. A NaN
    is ordered by its sign beyond the infinities instead of poisoning its coordinate.

    float32 and float64 go through a compiled network of minima and maxima on the integers that order like the floats;
    float16 and other small floats through float32, rounded once. Integers and bools are exact, a half rounded to even.

    Args:
        arrays: at least one, all of one shape (any) and dtype; not changed.
        out: written and returned if given: the same shape and dtype; may be one of the arrays.
        threads: how many threads share the coordinates; the bits do not depend on it.

    Returns:
        An array, also for 0-d input, of the arrays' shape and dtype.

    Raises:
        ValueError: without arrays, or if their shapes or dtypes differ from each other or from `out`'s.
        TypeError: for any other dtype.
    """
    shape, dtype = common_type(arrays)
    result, values = empty_result(shape, dtype, out)
    native = values.dtype
    if native == np.float32 or native == np.float64:
        _median_of_floats([flat(array, native) for array in arrays], values, threads)
    elif native.kind in "iub":
        _in_blocks(_middle_of_integers, arrays, values)
    elif np.can_cast(native, np.float32):
        _in_blocks(_through_float32, arrays, values)
    else:
        raise TypeError(f"no median of {dtype}")
    if not np.may_share_memory(result, values):
        result[...] = values.reshape(shape)
    return result


def _median_of_floats(inputs: Sequence[np.ndarray], values: np.ndarray, threads: int) -> None:
    n, bits = len(inputs), values.itemsize * 8
    starts = addresses(inputs)
    places = address(starts), address(values)
    if n <= UNROLLED:
        kernel = _unrolled(n, bits)
        share_out(values.size, threads, lambda start, stop: kernel(*places, start, stop))
        return
    looped, pairs = _looped(bits), wires_of(middle_network(n))

    def work(start: int, stop: int) -> None:
        scratch = np.empty((n, STRIP), values.dtype)
        looped(*places, start, stop, n, address(pairs), len(pairs), address(scratch))

    share_out(values.size, threads, work)


@cache
def _unrolled(n: int, bits: int) -> Kernel:
    from strategies.kernels.median_code import unrolled

    return compiled(unrolled(n, bits, lanes()))


@cache
def _looped(bits: int) -> Kernel:
    from strategies.kernels.median_code import looped

    return compiled(looped(bits, STRIP))


def _in_blocks(rule: Callable[[np.ndarray], np.ndarray], arrays: Sequence[np.ndarray], values: np.ndarray) -> None:
    """Write rule(stacked values, n rows) for a stretch of coordinates at a time, so that no copy of all is made."""
    inputs = [flat(array, values.dtype) for array in arrays]
    for start in range(0, values.size, BLOCK):
        part = slice(start, start + BLOCK)
        values[part] = rule(np.stack([x[part] for x in inputs]))


def _through_float32(stacked: np.ndarray) -> np.ndarray:
    """The median of small floats.

    Rounding a mean of two to float32 on the way changes nothing: 24 bits are more than twice the bits of a small float.
    """
    return median(list(stacked.astype(np.float32))).astype(stacked.dtype)


def _middle_of_integers(stacked: np.ndarray) -> np.ndarray:
    """The exact median of integers or bools; halves to even. A mean without overflow: common bits + half the others."""
    numbers = stacked.view(np.uint8) if stacked.dtype == bool else stacked
    lower, upper = (len(stacked) - 1) // 2, len(stacked) // 2
    parted = np.partition(numbers, (lower, upper), axis=0)
    low, high = parted[lower], parted[upper]
    below = (low & high) + ((low ^ high) >> 1)
    middle: np.ndarray = below + ((low ^ high) & below & 1)  # a half is left over where low + high is odd
    return middle.astype(stacked.dtype)

"""Arrays as the kernels want them: flat, native, side by side; and the coordinates shared out among threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

GRAIN = 1 << 16
"""A thread is not worth waking for fewer coordinates than this."""


def common_type(arrays: Sequence[np.ndarray]) -> tuple[tuple[int, ...], np.dtype]:
    """The one shape and dtype of all arrays.

    Raises:
        ValueError: if there is no array, or two differ.
    """
    if not arrays:
        raise ValueError("no arrays")
    shape, dtype = arrays[0].shape, arrays[0].dtype
    for i, array in enumerate(arrays):
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"array {i} is {array.dtype}{array.shape} where array 0 is {dtype}{shape}")
    return shape, dtype


def flat(array: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """The values in C order, in one dimension and in `dtype` (of native byte order); a view where that is possible."""
    return np.require(array, dtype, ["C", "A"]).reshape(-1)


def address(array: np.ndarray, before: int = 0) -> int:
    """Where a flat array's element 0 lies in memory, or would lie if `before` elements came before it."""
    return int(array.__array_interface__["data"][0]) - before * array.itemsize


def addresses(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Where each flat array begins: int64, to be kept alive for as long as a kernel reads it."""
    return np.array([address(array) for array in arrays], np.int64)


def empty_result(like_shape: tuple[int, ...], dtype: np.dtype, out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The array to return, and the flat native one to write; where they do not share memory, copy it over at the end.

    Raises:
        ValueError: if `out` has another shape or dtype, or cannot be written.
    """
    result = np.empty(like_shape, dtype) if out is None else out
    if result.shape != like_shape or result.dtype != dtype or not result.flags.writeable:
        raise ValueError(f"out must be writable {dtype}{like_shape}, not {result.dtype}{result.shape}")
    usable = result.flags.c_contiguous and result.flags.aligned and dtype.isnative
    return result, result.reshape(-1) if usable else np.empty(result.size, dtype.newbyteorder("="))


def share_out(size: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Run `work(start, stop)` on `threads` stretches that make up range(size), each in a thread of its own."""
    threads = max(1, min(threads, size // GRAIN))
    edges = [size * i // threads // 64 * 64 for i in range(threads)] + [size]
    others = [_pool(threads - 1).submit(work, *edges[i : i + 2]) for i in range(1, threads)]
    try:
        work(*edges[:2])
    finally:
        errors = [other.exception() for other in others]  # waits: nobody may write on after we have returned
    for error in errors:
        if error:
            raise error


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads), thread_name_prefix="kernels")

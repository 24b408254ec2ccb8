"""Whether an array holds only numbers."""

from functools import cache

import numpy as np

from strategies.kernels.arrays import address, flat
from strategies.kernels.machine import Kernel, compiled

BLOCK = 1 << 20


def all_finite(array: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; one pass, no temporaries; True for integers and bools.

    Raises:
        TypeError: for a dtype that is no number's.
    """
    if array.dtype.kind in "iub":
        return True
    if array.dtype == np.float32 or array.dtype == np.float64:
        values = flat(array, array.dtype.newbyteorder("="))
        largest = np.zeros(64, values.dtype)
        _largest(values.itemsize * 8)(address(values), address(largest), 0, values.size)
        return bool(np.isfinite(largest).all())
    values = array.reshape(-1)
    return all(bool(np.isfinite(values[i : i + BLOCK]).all()) for i in range(0, values.size, BLOCK))


@cache
def _largest(bits: int) -> Kernel:
    from strategies.kernels.finite_code import largest

    return compiled(largest(bits))

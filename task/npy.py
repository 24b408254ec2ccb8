"""One array out of bytes that somebody else sent, which may say anything of themselves."""

from io import BytesIO

import numpy as np
from numpy.lib import format as npy

from task.update import check_kind

_LONGEST_HEADER = 1 << 14  # bytes; NumPy itself reads no more than 10,000 of them
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npy(i: int, data: bytes, like: np.ndarray) -> np.ndarray:
    """An array as `np.save` wrote it, if it is of the expected kind; a fresh writable copy in C order.

    `np.load` takes memory for whatever size a header names. Here the header is held against `like`, and against the
    bytes that are really there, before anything is read; objects are never unpickled.

    Args:
        i: the array's position, for what is said of it.
        data: the bytes.
        like: gives shape and dtype.

    Raises:
        ValueError: it is of another shape, dtype or size, or no array at all.
    """
    stream = BytesIO(data[:_LONGEST_HEADER])
    try:
        shape, fortran_order, dtype = _READERS[npy.read_magic(stream)](stream)
    except Exception as error:  # NumPy's parser raises many kinds
        raise ValueError(f"array {i} cannot be read: it is not what np.save writes ({type(error).__name__})") from error
    check_kind(i, shape, dtype, like)
    values = len(data) - stream.tell()
    if values != like.nbytes:
        raise ValueError(f"array {i} has {values} bytes of values where the model has {like.nbytes}")
    flat = np.frombuffer(data, dtype, offset=stream.tell()) if values else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C").copy(order="C")

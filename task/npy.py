"""Arrays out of bytes that somebody else sent, which may say anything of themselves.

`np.load` takes memory for whatever size a header names. It also reads headers with Python's own parser, which is not
safe in several threads at once: some CPythons end one in a million with `SystemError: AST constructor recursion depth
mismatch`. So the few forms of header that `np.save` writes for plain arrays are read here, and no others.
"""

import math
import re
from typing import Literal, NamedTuple

import numpy as np

from task.update import check_kind

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,16})', 'fortran_order': (True|False), "
    rb"'shape': \((|\d{1,18},|\d{1,18}(?:, \d{1,18})+)\), \}\s*"
)


def read_npy(data: bytes) -> np.ndarray:
    """An array as `np.save` wrote it; a fresh writable copy in C order.

    Raises:
        ValueError: it is none, or has more or less values than it says.
    """
    header = _header(data)
    said = math.prod(header.shape) * header.dtype.itemsize
    if len(data) - header.end != said:
        raise ValueError(f"{len(data) - header.end} bytes of values where the header says {said}")
    return _values(data, header)


def read_npy_like(i: int, data: bytes, like: np.ndarray) -> np.ndarray:
    """`read_npy` of what must be of the model's shape, dtype and size, which is seen before memory is taken.

    Args:
        i: the array's position, for what is said of it.
        data: the bytes.
        like: gives shape and dtype.

    Raises:
        ValueError: it is another one, or no array at all.
    """
    try:
        header = _header(data)
    except ValueError as error:
        raise ValueError(f"array {i} cannot be read: {error}") from None
    check_kind(i, header.shape, header.dtype, like)
    if len(data) - header.end != like.nbytes:
        raise ValueError(f"array {i} has {len(data) - header.end} bytes of values where the model has {like.nbytes}")
    return _values(data, header)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype
    end: int  # where the values begin


def _values(data: bytes, header: _Header) -> np.ndarray:
    """What follows a header that was held against the length of the data."""
    left = len(data) - header.end
    flat = np.frombuffer(data, header.dtype, offset=header.end) if left else np.empty(0, header.dtype)
    return flat.reshape(header.shape, order=header.order).copy(order="C")


def _header(data: bytes) -> _Header:
    start = 10 if data[6:7] == b"\x01" else 12  # the length has two bytes, or four since version 2
    end = start + int.from_bytes(data[8:start], "little")
    match = _HEADER.fullmatch(data, start, end) if data[:6] == _MAGIC and end <= len(data) else None
    if match is None:
        raise ValueError("it is not what np.save writes of a plain array")
    descr, order, sides = match.groups()
    try:
        dtype = np.dtype(descr.decode())
    except (TypeError, ValueError) as error:
        raise ValueError(f"NumPy knows no dtype {descr!r}") from error
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"its dtype {dtype} has no values that could be sent")
    shape = tuple(int(side) for side in sides.split(b",") if side.strip())
    return _Header(shape, "F" if order == b"True" else "C", dtype, end)

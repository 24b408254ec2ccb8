"""Arrays out of bytes that somebody else sent, which may say anything of themselves.

`np.load` takes memory for whatever size a header names. It also reads headers with Python's own parser, which is not
safe in several threads at once: some CPythons end one in a million with `SystemError: AST constructor recursion depth
mismatch`. So the few forms of header that `np.save` writes for plain arrays are read here, and no others.
"""

import re

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
    shape, fortran_order, dtype, start = _header(data)
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count * dtype.itemsize:
        raise ValueError(f"{len(data) - start} bytes of values where the header says {count * dtype.itemsize}")
    flat = np.frombuffer(data, dtype, offset=start) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C").copy(order="C")


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
        shape, _, dtype, start = _header(data)
    except ValueError as error:
        raise ValueError(f"array {i} cannot be read: {error}") from None
    check_kind(i, shape, dtype, like)
    if len(data) - start != like.nbytes:
        raise ValueError(f"array {i} has {len(data) - start} bytes of values where the model has {like.nbytes}")
    return read_npy(data)


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether the order is Fortran's, dtype, and where the values begin."""
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
    return tuple(int(side) for side in sides.split(b",") if side.strip()), order == b"True", dtype, end

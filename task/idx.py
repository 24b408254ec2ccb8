"""The IDX format of the MNIST family (described at the MNIST page of Yann LeCun).

Four bytes: 0, 0, type code, number of axes; one big-endian uint32 a axis; the values, big-endian, in C order.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from task.arrays import Array
from task.errors import UserError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def find(folder: Path) -> dict[str, Path]:
    """The four files of a data set, plain or .gz, spelled `-idx3-ubyte` or `.idx3-ubyte`.

    Returns:
        x_train, y_train, x_test, y_test -> file.

    Raises:
        UserError: one of them is missing.
    """
    found = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for array, kind, axes in (("x", "images", 3), ("y", "labels", 1)):
            names = [f"{prefix}-{kind}{mark}idx{axes}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
            paths = [folder / name for name in names if (folder / name).is_file()]
            if not paths:
                raise UserError(f"{folder}: has neither {names[0]}[.gz] nor shard-0.npz; give a folder of IDX files")
            found[f"{array}_{part}"] = paths[0]
    return found


def read(path: Path) -> Array:
    """The array of one IDX file, in this machine's byte order.

    Raises:
        UserError: the file cannot be read, is damaged, or is not IDX.
    """
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); make or copy it again") from None
    axes = raw[3] if len(raw) > 3 else 0
    start = 4 + 4 * axes
    if len(raw) < max(start, 8) or raw[:2] != b"\0\0" or raw[2] not in TYPES:
        raise UserError(f"{path}: not an IDX file (its first bytes are {raw[:4].hex(' ')}); make or copy it again")
    dtype = np.dtype(TYPES[raw[2]])
    shape = tuple(int(length) for length in np.frombuffer(raw, ">u4", axes, 4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise UserError(f"{path}: {len(raw)} bytes where its header says {expected}; make or copy it again")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))

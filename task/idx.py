"""The IDX format of the MNIST family (described at the MNIST page of Yann LeCun).

Four bytes: 0, 0, type code, number of axes; one big-endian uint32 a axis; the values, big-endian, in C order.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from task.arrays import MAX_RATIO, Array
from task.errors import UserError, shown

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_AXES = 32


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
        held = path.stat().st_size
        most = held * MAX_RATIO if path.suffix == ".gz" else held
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            axes = start[3] if len(start) == 4 else 0
            lengths = file.read(4 * axes)
            if not 1 <= axes <= _MAX_AXES or len(lengths) < 4 * axes or start[:2] != b"\0\0" or start[2] not in TYPES:
                raise UserError(
                    f"{path}: not an IDX file (its first bytes are {start.hex(' ')}); make or copy it again"
                )
            dtype, shape = np.dtype(TYPES[start[2]]), struct.unpack(f">{axes}I", lengths)
            expected = math.prod(shape) * dtype.itemsize
            values = file.read(expected + 1) if expected <= most else b""  # never more than there can be
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); make or copy it again") from None
    if len(values) != expected:
        head = 4 + 4 * axes
        found = head + len(values) if path.suffix == ".gz" and expected <= most else most
        told = shown(head + expected, 40)
        raise UserError(f"{path}: {found} bytes where its header says {told}; make or copy it again")
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))

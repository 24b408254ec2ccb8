"""Arrays from files that others may have made: reading .npz, checking examples, turning images into model input."""

import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from task.errors import UserError, shown

Array = NDArray[Any]

MAX_CLASSES = 65_536
"""More than this is not a label but a mistake, and would only fill the memory with empty counts."""

MOST_CLASSES = 2**20
"""Also where the scalar num_classes is stored: every client has a count for each, and every model an output."""

MAX_RATIO = 1032
"""Bytes that deflate, in zip and gzip files, can make of one."""


def read_npz(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Array]:
    """The named arrays of an .npz file, and no other: what is not named is not read.

    Args:
        path: the file.
        required: names that must be there.
        optional: names that are read if they are there.

    Returns:
        Name -> array, as stored.

    Raises:
        UserError: missing or damaged file, missing name, pickled objects (which are never loaded).
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
            if start != b"PK":
                kind = {b"\x93N": "a single array", b"\x80": "a pickle, never loaded"}
                what = kind.get(start) or kind.get(start[:1], "no .npz file, or damaged")
                raise UserError(f"{path}: is {what}; save number arrays with numpy.savez")
            with zipfile.ZipFile(file) as archive:
                held = _members(archive)
                missing = [name for name in required if name not in held]
                if missing:
                    there = shown(", ".join(held), 80) or "nothing"
                    raise UserError(
                        f"{path}: has no array named {missing[0]} (it holds {there}); save it with numpy.savez"
                    )
                most = os.fstat(file.fileno()).st_size
                return {name: _array(archive, held[name], most) for name in (*required, *optional) if name in held}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except _PickledError:
        raise UserError(f"{path}: holds pickled objects, never loaded; save plain number arrays") from None
    except MemoryError:
        raise UserError(f"{path}: does not fit into this machine's memory; give fewer or smaller examples") from None
    # RuntimeError: an encrypted zip; NotImplementedError: an unknown compression
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = shown((str(error).splitlines() or [type(error).__name__])[0])
        raise UserError(f"{path}: damaged or not an .npz file ({reason}); make or copy it again") from None


class _PickledError(Exception):
    """An array of objects."""


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name of an array -> where it lies."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename.endswith(".npy"):
            name = info.filename.removesuffix(".npy")
            if name in found:  # of two, readers would take different ones
                raise ValueError(f"{shown(name)} is there twice")
            found[name] = info
    return found


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> Array:
    """One array. Its header is believed after a look at the archive, and the archive after a look at the file.

    Args:
        archive: the .npz file.
        info: the member.
        most: bytes of the file.

    Raises:
        _PickledError: it holds objects.
        ValueError: it is damaged, or says that it is larger than it can be.
        MemoryError: it is as large as it says, and this machine is not.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is packed in another way than numpy.savez does")
    packed = min(info.compress_size, most)
    if info.file_size > (packed if info.compress_type == zipfile.ZIP_STORED else packed * MAX_RATIO):
        raise ValueError(f"{info.filename} cannot be as large as the archive says")
    with archive.open(info) as file:
        try:
            shape, _, dtype = _read_header(file)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise
        except Exception as error:  # numpy has Python's parser read it, which raises whatever it likes
            raise ValueError(f"{info.filename} has no header that can be read") from error
        if dtype.hasobject:
            raise _PickledError
        plain = all(type(length) is int and length >= 0 for length in shape)  # numpy lets True and -1 through
        if not plain or math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise ValueError(f"{info.filename} says that it is {dtype} of shape {shape}, which it is not")
    with archive.open(info) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, dtype; versions above 2.0 are for structured arrays, which are never read."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return readers[np.lib.format.read_magic(file)](file)


def read_scalar(arrays: dict[str, Array], name: str, kinds: str, path: Path) -> Any:
    """One scalar out of `read_npz`'s answer as a Python value, or None if the file does not hold it.

    Args:
        arrays: what `read_npz` gave.
        name: the scalar's name.
        kinds: the dtype kinds allowed, such as "iu" or "U".
        path: the file, for the message.

    Raises:
        UserError: it is no scalar of such a kind.
    """
    if name not in arrays:
        return None
    value = arrays[name]
    if value.ndim or value.dtype.kind not in kinds:
        raise UserError(f"{path}: {name} must be one scalar, it is {value.dtype} of shape {value.shape}; store it anew")
    return value.item()


def check_examples(x: Array, y: Array, where: str, num_classes: int | None = None) -> None:
    """Refuse examples that cannot be learned from.

    Args:
        x: images or feature rows, one per example in the first axis, numbers of any dtype.
        y: labels, shape (examples,), integers.
        where: the file (and array) they came from, for the message.
        num_classes: labels must be below it, 1 to MOST_CLASSES; None allows up to MAX_CLASSES.

    Raises:
        UserError: no examples, x and y of different length, a num_classes that is out of
            range, labels that are not integers or not in 0..num_classes-1, pixels that are not numbers or not finite.
    """
    if x.ndim < 2 or x.dtype.kind not in "biuf":
        raise UserError(f"{where}: images must be numbers of shape (n, ...), they are {x.dtype} of shape {x.shape}")
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise UserError(
            f"{where}: labels must be integers of shape (n,), they are {y.dtype} of shape {y.shape}; number "
            "the classes from 0"
        )
    if len(x) != len(y):
        raise UserError(f"{where}: {len(x)} images but {len(y)} labels; each image needs one label")
    if x.size == 0:
        raise UserError(f"{where}: holds no examples; at least one is needed")
    if num_classes is not None and not 1 <= num_classes <= MOST_CLASSES:
        raise UserError(f"{where}: num_classes is {num_classes}; store a number from 1 to {MOST_CLASSES}")
    top = (MAX_CLASSES if num_classes is None else num_classes) - 1
    wrong = np.flatnonzero((y < 0) | (y > top))
    if wrong.size:
        raise UserError(
            f"{where}: label {y[wrong[0]]} of example {wrong[0]} is outside 0..{top} ({wrong.size} such); "
            "mend the labels, or store the scalar num_classes if there are more classes"
        )
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite to the model
            bad = np.flatnonzero(~np.isfinite(x.astype(np.float32, copy=False)).all(axis=tuple(range(1, x.ndim))))
        if bad.size:
            raise UserError(f"{where}: NaN or infinite pixel in example {bad[0]} ({bad.size} such); mend or drop it")


def scale_of(x: Array, stored: float | None, where: str) -> float:
    """The number that pixels are divided by.

    Args:
        x: images.
        stored: the scalar `scale` that the file holds, if any.
        where: for the message.

    Returns:
        `stored`; else 255 for uint8 and 1 for floats and booleans.

    Raises:
        UserError: integers of another width without a stored scale (their largest pixel is anyone's guess), or a
            stored scale that is not finite and above 0.
    """
    if stored is not None:
        span = np.finfo(np.float32)
        small = stored < 1 and x.size and float(np.abs(x.astype(np.float64)).max()) > stored * float(span.max)
        if not float(span.tiny) <= stored <= float(span.max) or small:  # pixels would be infinite, or all 0
            raise UserError(f"{where}: scale is {stored}; store the largest pixel value, above 0")
        return float(stored)
    if x.dtype == np.uint8:
        return 255.0
    if x.dtype.kind in "fb":
        return 1.0
    raise UserError(f"{where}: {x.dtype} images of unknown range; store uint8, floats, or a scalar named scale")


def input_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one example as the model sees it: (n, h, w) gets a channel axis, other shapes lose only n."""
    return (*shape[1:], 1) if len(shape) == 3 else tuple(shape[1:])


def to_input(x: Array, scale: float) -> NDArray[np.float32]:
    """Images as model input.

    Args:
        x: shape (n, ...), any number dtype.
        scale: see `scale_of`.

    Returns:
        x / scale, float32, C-contiguous, shape (n, *input_shape(x.shape)), never a view of x.
    """
    scaled = np.divide(x, np.float32(scale), dtype=np.float32, casting="same_kind")
    return np.ascontiguousarray(scaled).reshape(len(x), *input_shape(x.shape))

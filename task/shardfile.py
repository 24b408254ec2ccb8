"""One shard, one file: the .npz that holds a client's private examples, or the public test set, or public images.

Arrays x (n, ...) and y (n,); scalars client, clients, num_classes, dataset and scale, so that a shard knows its own
number wherever it is copied. A file with x and y alone, made by others, is read too.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from task import cache
from task.arrays import Array, check_examples, read_npz, read_scalar, scale_of, to_input
from task.errors import UserError

TEST = "test.npz"
PUBLIC = "public.npz"
PATTERN = re.compile(r"shard-(\d+)\.npz")
SCALARS = {"client": "iu", "clients": "iu", "num_classes": "iu", "dataset": "U", "scale": "iuf"}


@dataclass(frozen=True)
class Header:
    """What a shard says of itself; None where the file does not say.

    Attributes:
        client: the shard's number, 0..clients-1, from the file's name if the file does not hold it; None in test.npz.
        clients: into how many shards the data set was split.
        num_classes: labels are in 0..num_classes-1.
        dataset: the data set's name.
        scale: pixels are divided by it; None: by the rule of `task.arrays.scale_of`.
    """

    client: int | None = None
    clients: int | None = None
    num_classes: int | None = None
    dataset: str | None = None
    scale: float | None = None


def shard_name(client: int) -> str:
    """The file name of a client's shard."""
    return f"shard-{client}.npz"


def write_shard(path: Path, x: Array, y: Array, header: Header) -> None:
    """Write a shard or, where header.client is None, a test set; readable by its owner alone.

    Args:
        path: the file; replaced as a whole if it is there.
        x: shape (n, ...), in the stored dtype.
        y: shape (n,), integers; stored as int32.
        header: its scalars; None is left out.

    Raises:
        OSError: it cannot be written.
    """
    _write(path, {"x": x, "y": y.astype(np.int32)}, header)


def write_public(path: Path, x: Array, header: Header) -> None:
    """Write images without labels, as `write_shard` writes a test set."""
    _write(path, {"x": x}, header)


def _write(path: Path, examples: dict[str, Array], header: Header) -> None:
    scalars = {name: getattr(header, name) for name in SCALARS}
    arrays = examples | {name: np.array(value) for name, value in scalars.items() if value is not None}

    def fill(file: BinaryIO) -> None:
        np.savez(file, allow_pickle=False, **arrays)

    cache.write(path, fill)


def read_header(file: Path | str) -> Header:
    """The scalars of a shard, without reading its examples.

    Raises:
        UserError: missing or damaged file, a scalar that is none.
    """
    path = Path(file)
    return _header(path, read_npz(path, (), tuple(SCALARS)))


def read_labels(file: Path | str) -> Array:
    """The labels of a shard as stored, unchecked, without reading its images.

    Raises:
        UserError: missing or damaged file, no labels.
    """
    return read_npz(Path(file), ("y",))["y"]


def read_raw(file: Path | str, num_classes: int | None = None) -> tuple[Array, Array, Header]:
    """The examples of a shard as stored, checked.

    Args:
        file: the shard.
        num_classes: labels must be below it; None: what the shard says of itself.

    Returns:
        x (n, ...), y (n,), and the header.

    Raises:
        UserError: missing or damaged file, missing array, pickled objects, or examples that `check_examples` refuses.
    """
    path = Path(file)
    arrays = read_npz(path, ("x", "y"), tuple(SCALARS))
    header = _header(path, arrays)
    check_examples(arrays["x"], arrays["y"], str(path), header.num_classes if num_classes is None else num_classes)
    return arrays["x"], arrays["y"], header


def load_shard(folder_or_file: Path | str, k: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """One client's private examples as the model takes them.

    Args:
        folder_or_file: the shard's file, or with `k` the folder that it is in.
        k: the client's number.

    Returns:
        x: float32, (n, *input_shape), pixels divided by the scale; images (h, w) get a channel axis. y: int32, (n,).

    Raises:
        UserError: see `read_raw`; or a shard that says that it is another client's.
    """
    path = Path(folder_or_file) if k is None else Path(folder_or_file) / shard_name(k)
    x, y, header = read_raw(path)
    if k is not None and header.client != k:
        raise UserError(
            f"{path}: says that it is the shard of client {header.client}; put each shard under its own name"
        )
    return to_input(x, scale_of(x, header.scale, str(path))), y.astype(np.int32)


def load_test(folder_or_file: Path | str) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The test set, of a folder of shards or of one file, as `load_shard` gives a shard."""
    path = Path(folder_or_file)
    return load_shard(path / TEST if path.is_dir() else path)


def read_raw_public(file: Path | str) -> tuple[Array, Header]:
    """Images without labels as stored, checked; a label that lies in the file all the same is not read.

    Returns:
        x (n, ...), and the header.

    Raises:
        UserError: see `read_raw`.
    """
    path = Path(file)
    arrays = read_npz(path, ("x",), tuple(SCALARS))
    x = arrays["x"]
    check_examples(x, np.zeros(len(x) if x.ndim else 0, np.int32), str(path))  # labels that nothing is wrong with
    return x, _header(path, arrays)


def load_public(folder_or_file: Path | str) -> NDArray[np.float32]:
    """Public images, of a folder of shards or of one file, as `load_shard` gives those of a shard.

    Raises:
        UserError: see `read_raw`.
    """
    path = Path(folder_or_file)
    file = path / PUBLIC if path.is_dir() else path
    x, header = read_raw_public(file)
    return to_input(x, scale_of(x, header.scale, str(file)))


def _header(path: Path, arrays: dict[str, Array]) -> Header:
    scalars = {name: read_scalar(arrays, name, kinds, path) for name, kinds in SCALARS.items()}
    if scalars["client"] is None and (match := PATTERN.fullmatch(path.name)):
        scalars["client"] = int(match[1])
    return Header(**scalars)

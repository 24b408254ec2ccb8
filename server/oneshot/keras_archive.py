"""What lies in a `.keras` file, looked at before Keras sees any of it.

A `.keras` file is a zip of config.json, metadata.json and model.weights.h5. Files come from anywhere: sizes, links and
external storage are checked here, before anything is unpacked or opened.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from task.errors import UserError, shown
from task.jsontext import read_object

CONFIG, WEIGHTS = "config.json", "model.weights.h5"

MAX_CONFIG = 16 * 2**20
"""Bytes of config.json; a network of a thousand layers has less than one MiB."""

MAX_WEIGHTS = 4 * 2**30
"""Bytes of model.weights.h5: 2**30 parameters of float32."""

MAX_RATIO = 100
"""Keras stores weights as they are, and weights hardly shrink: what grows by more on unpacking is no model."""

_BROKEN = "copy it again from where it was saved, or save it anew with model.save"


@dataclass(frozen=True)
class Archive:
    """The two parts of a `.keras` file that matter, checked.

    Attributes:
        path: the file.
        config: the parsed config.json.
        weights: the bytes of model.weights.h5; every dataset lies in them and holds plain numbers.
        numbers: how many numbers the weights hold.
    """

    path: Path
    config: dict[str, Any]
    weights: bytes
    numbers: int


def read_archive(path: Path) -> Archive:
    """Read and check one file.

    Raises:
        UserError: a file that is missing, broken, of another format, too large unpacked, or whose weights point out
            of it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start == b"\x89HDF\r\n\x1a\n":
                raise UserError(
                    f"{path}: is an HDF5 file of the old format; load it where it was made and save it as .keras"
                )
            if not start.startswith(b"PK"):
                raise UserError(f"{path}: is no .keras file (no zip archive); {_BROKEN}")
            with zipfile.ZipFile(file) as archive:
                config = _member(archive, path, CONFIG, MAX_CONFIG)
                weights = _member(archive, path, WEIGHTS, MAX_WEIGHTS)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; give the .keras file, as model.save writes it") from None
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: is broken or cut off ({_reason(error)}); {_BROKEN}") from None
    return Archive(path, _parse(config, path), weights, _check_weights(weights, path))


def _member(archive: zipfile.ZipFile, path: Path, name: str, limit: int) -> bytes:
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:  # of two, readers would take different ones
        count = "two of them" if found else "none"
        raise UserError(f"{path}: a .keras file holds one {name}, this one {count}; {_BROKEN}")
    size, packed = found[0].file_size, found[0].compress_size
    if size > limit or (size > 2**20 and size > MAX_RATIO * max(packed, 1)):
        raise UserError(
            f"{path}: {name} would unpack from {packed:,} to {size:,} bytes, which is refused (at most {limit:,}, and "
            f"{MAX_RATIO} times its packed size); save the model with model.save"
        )
    with archive.open(found[0]) as file:
        content = file.read(size + 1)  # never more than it said
    if len(content) != size:
        raise ValueError(f"{name} has not the size that the archive says")
    return content


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return read_object(content)
    except ValueError as error:
        raise UserError(f"{path}: its config.json cannot be read ({_reason(error)}); {_BROKEN}") from None


def _check_weights(content: bytes, path: Path) -> int:
    """How many numbers the weights hold.

    Raises:
        UserError: no HDF5, links, external or virtual storage, anything but numbers, or more than the file holds.
    """
    import h5py  # type: ignore[import-untyped]

    numbers = total = 0
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            groups, seen = [file], set()
            while groups:
                group = groups.pop()
                for name in group:
                    where = f"{path}: its weights' {shown(group.name.rstrip('/') + '/' + name)}"
                    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                        raise UserError(f"{where} is a link to elsewhere, never followed; save the model anew")
                    item = group[name]
                    address = h5py.h5o.get_info(item.id).addr
                    if address in seen:
                        raise UserError(f"{where} is a second name of another part, never followed; save it anew")
                    seen.add(address)
                    if isinstance(item, h5py.Group):
                        groups.append(item)
                        continue
                    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiub":
                        raise UserError(f"{where} holds no plain numbers; save the model with model.save")
                    if item.external or item.is_virtual:
                        raise UserError(f"{where} lies in other files, never opened; save the model with model.save")
                    total += item.nbytes
                    if total > MAX_RATIO * len(content) or total > MAX_WEIGHTS:
                        raise UserError(
                            f"{where} would unpack to more than {MAX_RATIO} times the file; save it with model.save"
                        )
                    numbers += item.size
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a broken file makes HDF5 raise
        raise UserError(f"{path}: its weights cannot be read ({_reason(error)}); {_BROKEN}") from None
    return numbers


def _reason(error: BaseException) -> str:
    return shown(str(error)) or type(error).__name__

"""The cache folder, and files that appear whole or not at all.

Everything in the cache can be made again: deleting the folder costs seconds and nothing else.
"""

import atexit
import contextlib
import functools
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: two processes may then do the same work twice
    fcntl = None  # type: ignore[assignment]


def folder(given: Path | None = None) -> Path:
    """The cache folder, made if missing.

    Args:
        given: use this one; None means $FEDARENA_CACHE, or `fedarena` in the XDG user cache folder (`~/.cache`).

    Returns:
        A writable folder. Where the wanted one cannot be written, a temporary one that this process removes at its end.
    """
    try:
        path = (given or _default()).absolute()  # worker processes may have another working folder
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # private shards are kept in it
        with tempfile.TemporaryFile(dir=path):  # the only honest question: permission bits say nothing to root or NFS
            return path
    except (OSError, RuntimeError):  # RuntimeError: the user has no home folder
        return _temporary()


def _default() -> Path:
    if chosen := os.environ.get("FEDARENA_CACHE"):
        return Path(chosen).expanduser()
    xdg = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return (xdg if xdg.is_absolute() else Path("~/.cache").expanduser()) / "fedarena"  # relative: ignored, says XDG


@functools.cache
def _temporary() -> Path:
    path = Path(tempfile.mkdtemp(prefix="fedarena-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


PART = ".part"
"""How the names of files end that are not whole yet; after a kill one may be left."""


def write(path: Path, fill: Callable[[BinaryIO], object], *, sync: bool = False) -> None:
    """Write a file, for its owner alone, so that a reader meets the old one or the whole new one, never a part.

    Args:
        path: the file; its folder must exist.
        fill: writes the content into the open binary file that it is given.
        sync: whether it is on the disk when this returns, so that a power cut takes nothing back.

    Raises:
        OSError: the folder cannot be written or the disk is full; nothing is left behind then.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            fill(file)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)  # noqa: PTH105 like POSIX, replaces on every system
        if sync:
            _sync_folder(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(part)):
            error.filename = str(path)  # the name that the user knows
        raise


def _sync_folder(path: Path) -> None:
    """A new name is on the disk only when its folder is."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an advisory lock on a file (made if missing), so that two processes do not build the same thing at once.

    Only a courtesy: where the file system has no locks both build, and the last `os.replace` wins with equal content.
    """
    with path.open("ab") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield

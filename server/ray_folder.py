"""The folder of our own Ray: private, short enough for its sockets, and gone with it."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from task.errors import UserError

_SOCKETS = len("/session_2026-11-28_22-20-59_570196_4194304/sockets/plasma_store.1")  # what Ray puts behind the folder
_LONGEST = (104 if sys.platform == "darwin" else 108) - 1 - _SOCKETS  # the kernel's limit for a path of AF_UNIX
_INNER = "r"  # Ray opens the folder that it is given to everyone; one above it stays shut
_NAME = len(f"/fa-12345678/{_INNER}")
_ROOM = 64 * 2**20  # bytes; logs grow to some of them, and Ray stops to work on a disk that is full
_TOLD = ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out")
_LAST_WORDS = 2000  # bytes of each
_PATIENCE = 2.0  # seconds that the last processes of Ray get to end


def make_ray_folder(note: Callable[[str], None]) -> Path:
    """Make a private folder for a Ray of ours: where the user wants temporary files, or where else it can be.

    Ray's own default is shared with all users of the machine and open to all of them, whatever the umask.
    `folder_in` is what Ray gets.

    Args:
        note: told in one line if it is not where the user wants temporary files.

    Raises:
        UserError: it cannot be anywhere.
    """
    wanted = [(name, os.environ[name]) for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    others = ["/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]  # noqa: S108 - made with mode 0700
    obstacles: list[str] = []
    for name, place in [*wanted, *(("", place) for place in others if place)]:
        obstacle = _obstacle(place)
        if obstacle is None:
            folder = Path(tempfile.mkdtemp(prefix="fa-", dir=place))
            if obstacles and wanted:
                note(f"{obstacles[0]}; Ray uses {folder}")
            return folder
        obstacles.append(f"{name}={place} {obstacle}" if name else f"{place} {obstacle}")
    raise UserError(
        f"no folder for Ray's files and sockets: {'; '.join(obstacles)}; set TMPDIR to one that can be used"
    )


def folder_in(folder: Path) -> Path:
    """Return the folder inside that Ray may have."""
    return folder / _INNER


def _obstacle(place: str) -> str | None:
    """Why Ray cannot work there; None: it can."""
    length = len(os.fsencode(place)) + _NAME
    if length > _LONGEST:
        return f"is {length - _LONGEST} characters too long for Ray's sockets"
    try:
        with tempfile.TemporaryDirectory(prefix="fa-", dir=place):  # the only honest question, also to root and NFS
            free = shutil.disk_usage(place).free
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return f"is full ({free / 2**20:.0f} MiB left)" if free < _ROOM else None


def tell_last_words(folder: Path) -> None:
    """Write the ends of Ray's own logs to stderr, which is run.log then: they say why it died."""
    for name in _TOLD:
        with suppress(OSError):
            content = (folder_in(folder) / "session_latest" / "logs" / name).read_bytes()
            if content:
                sys.stderr.write(f"{name}: ... {content[-_LAST_WORDS:].decode(errors='replace')}\n")
    sys.stderr.flush()


def remove_ray_folder(folder: Path) -> None:
    """Remove it, once nothing of that Ray writes into it any more."""
    end = time.monotonic() + _PATIENCE
    while folder.exists() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)

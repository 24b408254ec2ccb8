"""Shards for workers on other machines: found there, or sent once and kept in that machine's cache.

A worker trusts the content's hash, not the path: a file of the same name on another machine may be another one.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from task import cache as caching

SHIPPED = "shipped"
_found: dict["Parcel", Path] = {}  # of this process: what needs no second look


@dataclass(frozen=True)
class Parcel:
    """What a worker needs to come to a file.

    Attributes:
        path: the file on the server's machine.
        sha256: of its content; None: the worker is on the same machine, the path is enough.
        content: the file's bytes, once a worker has asked for them.
    """

    path: Path
    sha256: str | None = None
    content: bytes | None = None

    def file(self) -> Path | None:
        """The file on this machine, None if the content must be sent first.

        Raises:
            OSError: the content is there, but cannot be kept.
        """
        if self.sha256 is None:
            return self.path
        label = replace(self, content=None)
        if label not in _found:
            # The file keeps its name: shards that others made may say by it alone whose they are.
            kept = caching.folder() / SHIPPED / self.sha256 / self.path.name
            if place := next((place for place in (self.path, kept) if _sha256(place) == self.sha256), None):
                _found[label] = place
            elif self.content is None:
                return None
            else:
                for folder in (kept.parent.parent, kept.parent):
                    folder.mkdir(mode=0o700, exist_ok=True)
                caching.write(kept, _writer(self.content))
                _found[label] = kept
        return _found[label]

    def filled(self) -> "Parcel":
        """The same with its content; on the server's machine."""
        return replace(self, content=self.path.read_bytes())


@cache
def labelled(path: Path) -> Parcel:
    """A parcel for other machines, empty at first; the file is read once for its hash.

    Raises:
        OSError: it cannot be read.
    """
    return Parcel(path, hashlib.sha256(path.read_bytes()).hexdigest())


def _sha256(path: Path) -> str | None:
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return None


def _writer(content: bytes) -> Callable[..., object]:
    return lambda file: file.write(content)

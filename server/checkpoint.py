"""Atomic checkpoints of one contestant's global arrays, so that a killed run goes on where it was."""

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from task.update import Arrays, Memory

_KEPT = 2  # a torn file must leave the one before it


class Saved(NamedTuple):
    """A contestant after a round: its global arrays, and what its strategy remembers."""

    round: int
    arrays: Arrays
    memory: Memory


def save(folder: Path, name: str, server_round: int, arrays: Arrays, memory: Memory) -> None:
    """Write, flush to disk, rename; then drop all but the last two of this name.

    Raises:
        OSError: when it cannot be written; earlier checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.tmp"
    parts = {"": arrays, **memory}
    named: dict[str, Any] = {f"{part}/{i}": a for part, some in parts.items() for i, a in enumerate(some)}
    header = json.dumps(
        {
            "round": server_round,
            "sizes": {part: len(some) for part, some in parts.items()},
            "sha256": digest(list(named.values())),
        }
    )
    with temporary.open("wb") as file:
        np.savez(file, header=np.array(header), **named)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / f"{name}.{server_round:06d}.npz")
    for old in _files(folder, name)[:-_KEPT]:
        old.unlink(missing_ok=True)


def load_latest(folder: Path, name: str) -> Saved | None:
    """The newest whole checkpoint; None if there is none. A damaged file is passed over."""
    for file in reversed(_files(folder, name)):
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as saved:
                header = json.loads(str(saved["header"]))
                parts = {part: [saved[f"{part}/{i}"] for i in range(n)] for part, n in header["sizes"].items()}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue
        if digest([array for some in parts.values() for array in some]) == header["sha256"]:
            return Saved(int(header["round"]), parts.pop(""), parts)
    return None


def digest(arrays: Arrays) -> str:
    """SHA-256 of the C-order bytes of each array in order, as run.json gives it."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _files(folder: Path, name: str) -> list[Path]:
    return sorted(f for f in folder.glob("*.npz") if f.name[: -len(".000000.npz")] == name)

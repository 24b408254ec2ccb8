"""Checkpoints: where each contestant is after a round, so that a run goes on to the same bits whatever ended it.

A file is one line of JSON, the bytes of the arrays that the line lists, and the SHA-256 of both. Nothing in it is code.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from server.results import Entry, model_file
from task import cache
from task.errors import UserError
from task.jsontext import read_object
from task.update import Arrays, Memory

_FORMAT = 1
_KEPT = 2  # a damaged file must leave the one before it
_DIGEST = hashlib.sha256().digest_size
_SUFFIX = ".checkpoint"


class Saved(NamedTuple):
    """A contestant after a round: its global arrays, and what its strategy remembers."""

    round: int
    arrays: Arrays
    memory: Memory


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: the run's folder for them.
        belongs: what they depend on beside the contestant, by name: the configuration, the data, versions. A checkpoint
            that was written under other circumstances would go on to other bits, and is refused.
    """

    def __init__(self, folder: Path, belongs: Mapping[str, Any]) -> None:
        self._folder, self._belongs = folder, dict(belongs)

    def save(self, entry: Entry, saved: Saved) -> None:
        """Write, flush to disk, rename; then drop all but the last two of this contestant.

        Every random stream of ours is a function of (seed, use, round, client), see `task.seeds`: the seed and the next
        round are the position of all of them, and nothing else is to be kept. Clients keep nothing between rounds; the
        control variates of SCAFFOLD's clients are in the strategy's memory.

        Raises:
            OSError: when it cannot be written; earlier checkpoints are untouched.
        """
        parts = {"": saved.arrays, **saved.memory}
        header = {
            "format": _FORMAT,
            "round": saved.round,
            "streams": {"seed": entry.seed, "next_round": saved.round + 1},
            "belongs": {**self._belongs, "contestant": entry.key},
            "arrays": {part: [[a.dtype.str, list(a.shape)] for a in some] for part, some in parts.items()},
        }

        def fill(file: BinaryIO) -> None:
            total = hashlib.sha256()
            blocks: list[bytes | memoryview] = [json.dumps(header).encode() + b"\n"]
            blocks += [np.ascontiguousarray(a).reshape(-1).view(np.uint8).data for some in parts.values() for a in some]
            for block in blocks:
                total.update(block)
                file.write(block)
            file.write(total.digest())

        cache.write(self._file(entry, saved.round), fill, sync=True)
        for old in self._files(entry)[:-_KEPT]:
            old.unlink(missing_ok=True)

    def latest(self, entry: Entry, rows: int, tell: Callable[[str], None]) -> Saved | None:
        """The newest checkpoint that is whole.

        Args:
            entry: the contestant.
            rows: the last round up to which the run's tables hold all rows of the contestant; later checkpoints, whose
                rows a power cut took along, are passed over like damaged ones.
            tell: told in one line what was passed over, and where it goes on.

        Returns:
            None if there is none.

        Raises:
            UserError: it does not belong to this contestant or run; one line with what differs.
        """
        passed: list[str] = []
        found = None
        for file in reversed(self._files(entry)):
            try:
                saved = self._load(entry, file)
            except (OSError, ValueError) as error:
                passed.append(f"{file.name} is damaged ({error})")
                continue
            if saved.round <= rows:
                found = saved
                break
            passed.append(f"{file.name} is newer than the rows in the tables, which end with round {rows}")
        if passed:
            where = f"going on from round {found.round}" if found else "beginning anew"
            tell(f"{entry.key}: {'; '.join(passed)}; {where}")
        return found

    def at(self, entry: Entry, number: int) -> Saved | None:
        """The checkpoint of this round; None if it is not kept, or damaged."""
        with suppress(OSError, ValueError, UserError):
            return self._load(entry, self._file(entry, number))
        return None

    def drop(self, entry: Entry, first: int) -> None:
        """Delete the checkpoints of this round and later ones.

        Raises:
            OSError: one cannot be deleted.
        """
        for file in self._files(entry):
            if file >= self._file(entry, first):
                file.unlink(missing_ok=True)

    def check(self, entry: Entry) -> None:
        """Refuse, before anything is changed, to go on from a checkpoint that does not belong to this run.

        Raises:
            UserError: see `latest`.
        """
        for file in self._files(entry):
            with suppress(OSError, ValueError):  # a damaged one is told of when it is loaded
                self._load(entry, file)

    def _load(self, entry: Entry, file: Path) -> Saved:
        """What a file holds.

        Raises:
            ValueError: it is not what was written.
        """
        content = file.read_bytes()
        body = memoryview(content)[:-_DIGEST]
        if len(content) <= _DIGEST or hashlib.sha256(body).digest() != content[-_DIGEST:]:
            raise ValueError("its checksum is another one")
        line = content.index(b"\n") + 1
        header = read_object(content[:line])
        self._check(entry, file, header)
        parts: dict[str, Arrays] = {}
        try:
            for part, kinds in header["arrays"].items():
                parts[part] = []
                for dtype, shape in kinds:
                    count = math.prod(shape)
                    array = np.frombuffer(content, dtype, count, line) if count else np.empty(0, dtype)
                    parts[part].append(array.reshape(shape).copy())
                    line += array.nbytes
            return Saved(int(header["round"]), parts.pop(""), parts)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it says nothing known: {type(error).__name__}") from error

    def _check(self, entry: Entry, file: Path, header: Mapping[str, Any]) -> None:
        if header.get("format") != _FORMAT:
            raise UserError(
                f"{file}: is of format {header.get('format')!r}, this version reads {_FORMAT}: go on with the version "
                "that wrote it, or start a new run with --out"
            )
        there, here = _flat(header.get("belongs")), _flat({**self._belongs, "contestant": entry.key})
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                raise UserError(
                    f"{file}: was written with {name} {there.get(name)!r}, here it is {here.get(name)!r}: it would go "
                    "on to other numbers; bring that back, or start a new run with --out"
                )

    def _file(self, entry: Entry, server_round: int) -> Path:
        return self._folder / f"{model_file(self._folder, entry).stem}.{server_round:06d}{_SUFFIX}"

    def _files(self, entry: Entry) -> list[Path]:
        name = model_file(self._folder, entry).stem
        files = [f for f in self._folder.glob(f"*{_SUFFIX}") if f.name.removesuffix(_SUFFIX)[: -len(".000000")] == name]
        return sorted(files)


def digest(arrays: Arrays) -> str:
    """SHA-256 of the C-order bytes of each array in order, as run.json gives it."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _flat(values: Any, name: str = "") -> dict[str, Any]:
    """Nested values by their path of names, such as "training.learning_rate"."""
    if not isinstance(values, Mapping):
        return {name: values}
    inner = (_flat(value, f"{name}.{key}" if name else str(key)) for key, value in values.items())
    return {path: value for one in inner for path, value in one.items()}

"""Files that survive a kill: replaced atomically, or appended line by line; and a folder held by one process."""

import csv
import fcntl
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, fields
from io import FileIO
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Literal, TextIO, TypeVar, get_args, get_origin

from server.stop import Broken
from task import cache
from task.errors import SHORT_OF_FILES, UserError, printable, remedy
from task.jsontext import escaped
from task.limits import representable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")
Folder = TypeVar("Folder")

PASSING = 75  # exit status, as sendmail's EX_TEMPFAIL: nobody's mistake, and a restart with --resume may mend it
OTHER_FOLDER = "choose another folder with --out"


class WriteError(Broken):
    """Results cannot be written any more."""


@contextmanager
def writing(folder: Path, then: str = "") -> Iterator[None]:
    """Say in one line that a run's folder cannot be written.

    Args:
        folder: the run's.
        then: what the user does when that is mended; "": goes on with the run.

    Raises:
        WriteError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        told = WriteError(
            f"cannot write {error.filename or folder} ({error.strerror or error}): {remedy(error)}, then "
            f"{then or go_on(folder)}"
        )
        if error.errno in SHORT_OF_FILES:
            told.status = PASSING
        raise told from error


def go_on(folder: Path) -> str:
    """What the user does after a run was broken off."""
    return f"go on with --resume {folder}"


def write_atomic(path: Path, content: bytes) -> None:
    """Replace the file's content so that a reader, or a crash, meets the old content or the new, never a mixture."""
    cache.write(path, lambda file: file.write(content), sync=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically.

    Raises:
        ValueError: a number in it is not finite, which JSON has no word for.
    """
    text = escaped(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))
    write_atomic(path, f"{text}\n".encode())


class RowFile(Generic[Row]):
    """One CSV file, open for appending. Not thread-safe by itself: RunFolder locks.

    Every row is one line that ends in a newline, so a last line without one was torn by a kill and is dropped when the
    file is opened.
    """

    def __init__(self, path: Path, kind: type[Row]) -> None:
        self._path = path
        self._kind: type[Row] = kind
        self._parsers = {field.name: _parser(field.type) for field in fields(kind)}
        whole = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
        if whole:
            os.truncate(path, whole)
        else:
            self._replace([])
        self._file = self._open()

    def append(self, *rows: Row) -> None:
        """Add rows; a reader sees them at once, and the operating system has them: a killed process loses nothing.

        Numbers are written as `task.limits.representable` has them.

        Raises:
            OSError: they cannot be written; the file is as it was.
            ValueError: a number in them is one that no reader would accept; the file is as it was.
        """
        text = io.StringIO()
        self._write(text, [self._held(row) for row in rows])
        content, end = text.getvalue().encode(errors="backslashreplace"), os.fstat(self._file.fileno()).st_size
        try:
            while content:  # a disk that becomes full takes a part first
                content = content[self._file.write(content) :]
        except OSError as error:
            os.truncate(self._path, end)
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Replace the file by these rows, atomically."""
        self._file.close()
        self._replace(rows)
        self._file = self._open()

    def keep(self, wanted: Callable[[Row], bool]) -> None:
        """Drop all other rows, atomically.

        Raises:
            UserError: the file holds something else than such rows.
        """
        rows = self.read()
        kept = [row for row in rows if wanted(row)]
        if len(kept) < len(rows):
            self.rewrite(kept)

    def read(self) -> list[Row]:
        """All rows.

        Raises:
            UserError: the file holds something else than such rows.
        """
        with self._path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            try:
                if next(reader) != list(self._parsers):
                    raise ValueError("its columns are not the known ones")
                return [self._row(cells) for cells in reader]
            except (ValueError, csv.Error) as error:
                raise UserError(f"{self._path}: line {reader.line_num} cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _row(self, cells: list[str]) -> Row:
        return self._kind(**{name: self._parsers[name](text) for name, text in zip(self._parsers, cells, strict=True)})

    def _held(self, row: Row) -> Row:
        return self._kind(**{name: representable(name, getattr(row, name)) for name in self._parsers})

    def _open(self) -> FileIO:
        return self._path.open("ab", buffering=0)

    def _replace(self, rows: Iterable[Row]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(self._parsers)
        self._write(text, rows)
        write_atomic(self._path, text.getvalue().encode(errors="backslashreplace"))

    @staticmethod
    def _write(file: TextIO, rows: Iterable[Row]) -> None:
        # csv writes floats with repr: they read back to the same bits. None becomes an empty cell.
        csv.writer(file, lineterminator="\n").writerows(
            [printable(cell) if isinstance(cell, str) else cell for cell in astuple(row)] for row in rows
        )


def _parser(kind: Any) -> Callable[[str], Any]:
    """What turns a cell into a field's value: text, a number, or None for an empty cell where the type allows it."""
    if isinstance(kind, UnionType):
        number = next(arg for arg in get_args(kind) if arg is not type(None))
        return lambda text: number(text) if text else None
    return printable if get_origin(kind) is Literal or kind is str else kind


def open_new(path: Path, opened: Callable[[Path], Folder]) -> Folder:
    """Make the folder of a new run, which may exist, and open it.

    Args:
        path: the folder.
        opened: opens it; refuses one that holds a run.

    Raises:
        UserError: it cannot be made or written, or is no folder.
    """
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, not a folder: {OTHER_FOLDER}")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # facts about clients, and models that remember data
        return opened(path)
    except OSError as error:
        raise UserError(f"cannot write results to {path} ({error.strerror}): {remedy(error, OTHER_FOLDER)}") from error


def remove(path: Path) -> None:
    """Delete a file, or a folder with everything in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def hold(path: Path) -> TextIO:
    """Take the folder for this process: two runs in one folder would mix their rows. Ends with the process."""
    lock = (path / ".lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UserError(f"another process is writing to {path}: wait for it, or choose another folder") from error
    return lock

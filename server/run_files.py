"""The files of a run that is only looked at: another process may hold the folder, and it may not be writable."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.export import orders_of, read_table, rows_of
from server.results import ClientRow, Entry, LocalRow, RoundRow, holds_run, model_file, read_run_json
from task.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class RunFiles:
    """A run's folder, read anew at each call.

    Args:
        path: the folder.

    Raises:
        UserError: there is no run in it; of every method: a file is broken or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not holds_run(path):
            raise UserError(f"there is no run in {path}: give the folder of an earlier one, its --out")
        self.path = path

    def table(self, name: str, kind: type["DataclassInstance"]) -> Any:
        """A file of the folder as a pyarrow.Table, see `server.export.read_table`."""
        try:
            return read_table(self.path / name, kind, orders_of(self.read_run()))
        except OSError as error:
            raise UserError(f"{self.path / name} cannot be read: {error.strerror}") from error

    def read_run(self) -> dict[str, Any]:
        """The content of run.json."""
        return read_run_json(self.path)

    def read_rounds(self) -> list[RoundRow]:
        """The rows of rounds.csv."""
        rows = rows_of(self.table("rounds.csv", RoundRow), RoundRow)
        _check_rounds(rows, self.path / "rounds.csv")
        return rows

    def read_clients(self) -> list[ClientRow]:
        """The rows of clients.csv."""
        return rows_of(self.table("clients.csv", ClientRow), ClientRow)

    def read_local(self) -> list[LocalRow]:
        """The rows of local.csv."""
        return rows_of(self.table("local.csv", LocalRow), LocalRow)

    def model_path(self, entry: Entry) -> Path:
        """Where the contestant's final model is kept."""
        return model_file(self.path, entry)


def _check_rounds(rows: Sequence[RoundRow], file: Path) -> None:
    """See that each contestant has the rounds 0, 1, 2 ... once: what is told of them is as large as the last.

    Raises:
        UserError: one is missing or there twice.
    """
    found: dict[Entry, set[int]] = {}
    for row in rows:
        rounds = found.setdefault(row.entry, set())
        if row.round in rounds:
            raise UserError(f"{file} cannot be read: round {row.round} of {row.entry.key} is there twice")
        rounds.add(row.round)
    for entry, rounds in found.items():
        if len(rounds) != max(rounds) + 1:
            missing = next(number for number in range(len(rounds) + 1) if number not in rounds)
            raise UserError(f"{file} cannot be read: round {missing} of {entry.key} is missing before {max(rounds)}")

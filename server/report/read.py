"""Runs as their folders hold them, without taking the folders: another process may be writing them still."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.export import orders_of, read_table, rows_of
from server.results import ONE_SHOT, ClientRow, LocalRow, RoundRow, RunFolder, holds_run
from task.errors import UserError


class ReadRun(RunFolder):
    """What a run's folder held when it was read, for `Outcome.read`; nothing is written.

    Args:
        path: the folder.
        run: the content of run.json.
        rounds: rows of rounds.csv.
        clients: rows of clients.csv.
        local: rows of local.csv.
    """

    def __init__(
        self,
        path: Path,
        run: Mapping[str, Any],
        rounds: Sequence[RoundRow],
        clients: Sequence[ClientRow],
        local: Sequence[LocalRow],
    ) -> None:
        # Not RunFolder's own, which takes the folder for this process and opens its files for appending.
        self.path = path
        self.report_path, self.curves_path = path / "report.html", path / "curves.png"
        self._facts, self._rows = run, (rounds, clients, local)

    def read_run(self) -> dict[str, Any]:
        """The content of run.json."""
        return dict(self._facts)

    def read_rounds(self) -> list[RoundRow]:
        """The rows of rounds.csv."""
        return list(self._rows[0])

    def read_clients(self) -> list[ClientRow]:
        """The rows of clients.csv."""
        return list(self._rows[1])

    def read_local(self) -> list[LocalRow]:
        """The rows of local.csv."""
        return list(self._rows[2])


def read_run(path: Path) -> ReadRun:
    """Read a comparison's folder.

    Raises:
        UserError: there is no comparison in it, or one of its files is broken or cannot be read.
    """
    if not holds_run(path):
        raise UserError(f"there is no run in {path}: give the folder of an earlier one, its --out")
    try:
        run = json.loads((path / "run.json").read_bytes())
        if not isinstance(run, dict):
            raise ValueError("not an object")
        if run.get("kind") == ONE_SHOT:
            raise UserError(f"{path} holds a one-shot run, which has a page of its own: {path / 'report.html'}")
        orders = orders_of(run)
        return ReadRun(
            path,
            run,
            rows_of(read_table(path / "rounds.csv", RoundRow, orders), RoundRow),
            rows_of(read_table(path / "clients.csv", ClientRow, orders), ClientRow),
            rows_of(read_table(path / "local.csv", LocalRow, orders), LocalRow),
        )
    except (OSError, ValueError) as error:
        raise UserError(f"the run in {path} cannot be read: {error}") from error

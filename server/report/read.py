"""Runs as their folders held them when they were read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.results import ONE_SHOT, ClientRow, LocalRow, RoundRow
from server.run_files import RunFiles
from task.errors import UserError


@dataclass(frozen=True)
class ReadRun:
    """A run in memory, for `Outcome.read`.

    Attributes:
        path: the folder.
        run: the content of run.json.
        rounds: rows of rounds.csv.
        clients: rows of clients.csv.
        local: rows of local.csv.
    """

    path: Path
    run: Mapping[str, Any]
    rounds: Sequence[RoundRow]
    clients: Sequence[ClientRow]
    local: Sequence[LocalRow]

    def read_run(self) -> dict[str, Any]:
        """The content of run.json."""
        return dict(self.run)

    def read_rounds(self) -> list[RoundRow]:
        """The rows of rounds.csv."""
        return list(self.rounds)

    def read_clients(self) -> list[ClientRow]:
        """The rows of clients.csv."""
        return list(self.clients)

    def read_local(self) -> list[LocalRow]:
        """The rows of local.csv."""
        return list(self.local)


def read_run(path: Path) -> ReadRun:
    """Read a comparison's folder.

    Raises:
        UserError: there is no comparison in it, or one of its files is broken or cannot be read.
    """
    files = RunFiles(path)
    run = files.read_run()
    if run.get("kind") == ONE_SHOT:
        raise UserError(f"{path} holds a one-shot run, which has a page of its own: {path / 'report.html'}")
    return ReadRun(path, run, files.read_rounds(), files.read_clients(), files.read_local())

"""The folder of a one-shot run: held by one process, its run.json, and no trace of a run that came to nothing."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from server.files import OTHER_FOLDER, hold, open_new, write_json, writing
from server.results import ONE_SHOT, holds_run
from task.errors import UserError

AGAIN = "give the command again, with another --out"
"""What the user does after a one-shot run was broken off; it is not resumed."""


class OneShotFolder:
    """The folder of one run; `create` opens it. A context manager: leaving it frees the folder.

    Attributes:
        path: the folder.
        log_path: run.log, where the chatter of the libraries goes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log_path = path / "run.log"
        self._lock = hold(path)
        if holds_run(path):
            self._lock.close()
            raise UserError(f"{path} already holds a run: {OTHER_FOLDER}")

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the folder of a new run; it may exist, but hold no run.

        Raises:
            UserError: it cannot be made or written, is no folder, holds a run, or another process uses it.
        """
        return open_new(path, cls)

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Replace run.json, which says of what kind the run is."""
        with writing(self.path, AGAIN):
            write_json(self.path / "run.json", {"kind": ONE_SHOT, **run})

    def discard(self) -> None:
        """Delete what was made so far, and the folder if nothing else is in it, so that it can be used again."""
        for name in ("run.json", "run.log", ".lock"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            self.path.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

"""The folder of a one-shot run: held by one process, its run.json, and no trace of a run that came to nothing."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from server.files import hold, write_json
from server.results import ONE_SHOT, holds_run
from task.errors import UserError

_OTHER = "choose another folder with --out"


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
            raise UserError(f"{path} already holds a run: {_OTHER}")

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the folder of a new run; it may exist, but hold no run.

        Raises:
            UserError: it cannot be made or written, is no folder, holds a run, or another process uses it.
        """
        try:
            if path.exists() and not path.is_dir():
                raise UserError(f"{path} is a file, not a folder: {_OTHER}")
            path.mkdir(parents=True, exist_ok=True)
            return cls(path)
        except OSError as error:
            raise UserError(f"cannot write results to {path} ({error.strerror}): {_OTHER}") from error

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Replace run.json, which says of what kind the run is."""
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

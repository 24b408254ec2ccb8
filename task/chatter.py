"""Keeps what libraries say out of the user's sight: it goes to run.log, and to the terminal with --verbose."""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:  # imported when there is something to show
    from rich.console import Console


class Chatter:
    """After `redirect`, descriptors 1 and 2 of this process and its children lead to a log file.

    They still do when the context is left: a thread may be importing a library that talks. Only Python's `sys.stdout`
    and `sys.stderr` are the user's again.

    Args:
        verbose: whether the chatter goes to the terminal as well.

    Attributes:
        out: the user's stdout.
        err: the user's stderr.
    """

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self.out: TextIO = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding or "utf-8")
        self.err: TextIO = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding or "utf-8")
        self._tee: threading.Thread | None = None

    def redirect(self, log: Path) -> None:
        """From now on, what is said goes to this file."""
        sys.stdout.flush()
        sys.stderr.flush()
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)  # libraries quote data, too
        if self._verbose:
            target = self._copy_to_terminal(target)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)

    def _copy_to_terminal(self, log: int) -> int:
        read, write = os.pipe()
        terminal = os.dup(self.err.fileno())

        def copy() -> None:
            while chunk := os.read(read, 65536):
                os.write(log, chunk)
                os.write(terminal, chunk)

        self._tee = threading.Thread(target=copy, name="verbose", daemon=True)
        self._tee.start()
        return write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = self.out, self.err
        if self._tee:  # nothing is kept from the user
            os.dup2(self.out.fileno(), 1)
            os.dup2(self.err.fileno(), 2)
            self._tee.join(timeout=0.5)  # children that still live may hold the other end
        for stream in (self.out, self.err):
            with suppress(BrokenPipeError):  # its reader has left
                stream.flush()


def console_on(chatter: Chatter, *, live: bool) -> "Console":
    """The user's terminal, or pipe, for whoever draws on it.

    Args:
        chatter: has the user's stdout.
        live: whether lines may be drawn over.
    """
    from task.console import Console

    # rich asks descriptors 0 to 2 for the size, and 1 and 2 are the log now.
    width = os.get_terminal_size(chatter.out.fileno()).columns if chatter.out.isatty() and not os.isatty(0) else None
    return Console(file=chatter.out, width=width, force_terminal=None if live else False, markup=False, emoji=False)

"""What the owner of a client sees: one line that changes on a terminal, one line an event in a log."""

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.owner import round_name
from task.errors import printable

if TYPE_CHECKING:  # imported when there is something to show
    from rich.console import Console
    from rich.status import Status as Spinner
    from rich.text import Text

_SAME_TROUBLE = 30.0  # seconds before the same trouble is told again
_log = logging.getLogger("fedarena")


class Status:
    """The client's events; safe to call from several threads. Everything also goes to the log file.

    Args:
        console: where lines go; a terminal gets a live line, too.
        address: of the server, "HOST:PORT".
        log: the log file, where errors are with their traceback.
    """

    def __init__(self, console: "Console", address: str, log: Path) -> None:
        self._console, self._address, self._log = console, address, log
        self._lock = threading.RLock()
        self._last_contact = 0.0
        self._trouble, self._troubled_at = "", 0.0
        self._doing = f"looking for {address}"
        self._rounds = 0
        self._between_runs = False  # then it is normal that no server is there
        self._epsilon: float | None = None
        self._spinner: Spinner | None = None
        self._closed = threading.Event()
        if console.is_terminal:
            self._spinner = console.status(_text(self._doing))
            self._spinner.start()
            threading.Thread(target=self._tick, name="status", daemon=True).start()

    def say(self, text: str) -> None:
        """Something happened."""
        with self._lock:
            self._doing = text
            self._line(text)

    def connected(self) -> None:
        """The server took this client in."""
        with self._lock:
            self._trouble, self._between_runs = "", False
            self._last_contact = time.monotonic()
            self._doing = "waiting for the server"
            self._line(f"connected to {self._address}")

    def contact(self) -> None:
        """The server answered."""
        with self._lock:
            self._last_contact = time.monotonic()
            if self._trouble:
                self._trouble = ""
                self._line("in contact again")

    def trouble(self, text: str, *, expected: bool = True) -> None:
        """Something does not work right now and is tried again; between two runs only the unexpected is told."""
        with self._lock:
            if self._between_runs and expected:
                return
            now = time.monotonic()
            if text != self._trouble or now - self._troubled_at > _SAME_TROUBLE:
                self._trouble, self._troubled_at = text, now
                self._line(f"{text}; trying again", style="yellow", level=logging.WARNING)

    def begin(self, group: str) -> None:
        """Training for a round begins; the group names strategy and round."""
        with self._lock:
            self._doing = f"training {round_name(group)}"
            _log.info("%s", self._doing, extra={"fields": {"round": group}})

    def done(self, group: str, seconds: float, failure: str | None, epsilon: float | None = None) -> None:
        """Training for a round ended; epsilon is what noised updates have cost so far."""
        with self._lock:
            self._rounds += not failure
            self._epsilon = epsilon
            self._doing = "waiting for the server"
            fields: dict[str, Any] = {"round": group, "seconds": round(seconds, 3), "failure": failure}
            privacy = ""
            if epsilon is not None:
                fields["dp_epsilon"], privacy = epsilon, f"; epsilon {epsilon:.2f} in all"
            if failure:
                told = f"{round_name(group)} failed: {self.with_log(failure)}"
                self._line(told, style="red", level=logging.ERROR, **fields)
            elif self._spinner:
                _log.info("%s trained", round_name(group), extra={"fields": fields})
            else:
                self._line(f"{round_name(group)} trained in {seconds:.2f} s{privacy}", **fields)

    def with_log(self, failure: str) -> str:
        """Return an error's line with the place where its traceback is."""
        return f"{failure}; more in {self._log}"

    def over(self, text: str) -> None:
        """The run is over."""
        with self._lock:
            self._doing, self._between_runs = "waiting for the next run", True
            self._line(f"{text}; {self._rounds} round{'s' if self._rounds != 1 else ''} trained")
            self._rounds = 0

    def close(self) -> None:
        """The live line goes."""
        self._closed.set()
        with self._lock:
            if self._spinner:
                self._spinner.stop()

    def _line(self, text: str, *, style: str = "", level: int = logging.INFO, **fields: Any) -> None:
        _log.log(level, "%s", text, extra={"fields": fields})
        stamp = time.strftime("%H:%M:%S")
        self._console.print(f"{stamp}  {printable(text)}", style=style, markup=False, highlight=False, soft_wrap=True)

    def _tick(self) -> None:
        while not self._closed.wait(0.5):
            with self._lock:
                if self._spinner:
                    silent = time.monotonic() - self._last_contact
                    missed = self._last_contact and silent > 8 and not self._between_runs
                    seen = f", last contact {silent:.0f} s ago" if missed else ""
                    trained = f", {self._rounds} rounds trained" if self._rounds else ""
                    spent = f", epsilon {self._epsilon:.2f}" if self._epsilon is not None else ""
                    self._spinner.update(_text(f"{self._doing}{trained}{spent}{seen}"))


def _text(line: str) -> "Text":
    """A line for a live view, which takes brackets in a plain text for commands."""
    from rich.text import Text

    return Text(printable(line))

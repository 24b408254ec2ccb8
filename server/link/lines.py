"""Which process speaks for which node, and whether it still lives: two of one client must not share its messages."""

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from server.link.asgi import Scope
from server.link.visitors import Address
from task.wire import PROCESS_HEADER

_RECENT = 12.0  # seconds since the last word; a resident client gives one every 5, and tries for 20 to get in


@dataclass
class _Process:
    mark: bytes  # drawn at its start; Flower's own SuperNode has none
    heard: float = 0.0
    lines: set[Address] = field(default_factory=set)


@dataclass(frozen=True)
class _Caller:
    mark: bytes
    line: Address | None


_caller: ContextVar[_Caller | None] = ContextVar("caller", default=None)


class Lines:
    """Remembers, for each public key, the process that was let in last and its connections.

    A process that is killed takes its connections with it, at once; one whose machine lost power or network falls
    silent. Either way its place is free again, and to the same process it always is.

    Args:
        is_open: whether a connection is open.
    """

    def __init__(self, is_open: Callable[[Address], bool]) -> None:
        self._is_open = is_open
        self._processes: dict[bytes, _Process] = {}
        self._lock = threading.Lock()

    def calling(self, scope: Scope) -> None:
        """This request is what the current context is about, see `is_taken`."""
        _caller.set(_caller_of(scope))

    def heard(self, scope: Scope, key: bytes, *, activated: bool) -> None:
        """A request under this public key was found good; `activated`: it takes the node's place from now on."""
        caller = _caller_of(scope)
        with self._lock:
            process = self._processes.get(key)
            if activated and (process is None or process.mark != caller.mark):
                process = self._processes[key] = _Process(caller.mark)
            if process is None or process.mark != caller.mark:
                return  # whose place was taken, and who does not know it yet
            process.heard = time.monotonic()
            if caller.line and caller.line not in process.lines:
                process.lines = {line for line in process.lines if self._is_open(line)} | {caller.line}

    def is_taken(self, key: bytes, *, polling: bool) -> bool:
        """Whether another process than the one that calls right now takes part under this key.

        Args:
            key: the public key.
            polling: whether a poll under this key is held, which needs no further proof of life.
        """
        caller = _caller.get()
        with self._lock:
            process = self._processes.get(key)
            if process is None or (caller and caller.mark and caller.mark == process.mark):
                return False
            if polling:
                return True
            others = process.lines - {caller.line if caller else None}
            return time.monotonic() - process.heard < _RECENT and any(map(self._is_open, others))


def _caller_of(scope: Scope) -> _Caller:
    mark = next((value for name, value in scope["headers"] if name == PROCESS_HEADER.encode()), b"")
    client = scope.get("client")
    return _Caller(mark, (client[0], client[1]) if client else None)

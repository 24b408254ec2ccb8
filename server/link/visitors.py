"""Who is connected: how many connections there may be, and how long each may take for what it does.

A connection is a stranger's until a request on it was signed with an enrolled key. Strangers are bounded, together and
per address, and closed where they are slow or where there is no room: the oldest first. An enrolled client shows its
key with its first request, some milliseconds after it connects, and keeps its connections whatever strangers do, also
behind the same address.
"""

import math
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

Address = tuple[str, int]  # host and port of the other end of a connection

_RESERVE = 256  # descriptors for everything but connections: libraries, checkpoints, rows, logs, the roster
_WANTED = 65536  # descriptors; more would serve nobody
_STRANGERS = 1024  # at once; each takes some 100 KiB in a TLS handshake
_LONGEST_REQUEST = 600.0  # seconds from a request's first byte to its last, for a known client on a slow line


class Phase(NamedTuple):
    """What a connection does, and how many seconds it may take for that."""

    what: str  # told of a stranger whose time is over
    stranger: float
    known: float


# A handshake and a small request take one round trip each: 10 s allow for a satellite line and a lost packet or two.
HANDSHAKE = Phase("a connection without a TLS handshake in time", 10.0, 10.0)
IDLE = Phase("a connection on which nothing was said in time", 10.0, math.inf)  # of known ones: uvicorn's keep-alive
HEADER = Phase("a request whose header did not come in time", 10.0, 30.0)
BODY = Phase("a request whose body did not come in time", 10.0, 30.0)  # known: since the last byte of it
ANSWER = Phase("an answer that was not fetched in time", 10.0, math.inf)  # a known client's poll is held

CROWD = "a connection more than there may be without an enrolled key"


@dataclass(frozen=True)
class Limits:
    """How many connections there may be.

    Attributes:
        most: in all.
        strangers: of them, on which nobody has shown an enrolled key.
        per_address: of the strangers, from one address: the others have room, too.
    """

    most: int
    strangers: int
    per_address: int

    @classmethod
    def of(cls, descriptors: int) -> "Limits":
        """What this many descriptors allow, with those that the process needs for itself set aside."""
        most = max(descriptors - _RESERVE, descriptors // 2)
        strangers = min(_STRANGERS, most // 2)
        return cls(most, strangers, strangers * 3 // 4)


def raised_descriptors() -> int:
    """Raise this process's limit of open files as far as it may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return _WANTED if soft == resource.RLIM_INFINITY else min(soft, _WANTED)


class Visitor:
    """One connection.

    Attributes:
        address: of its other end.
        known: whether an enrolled key was shown on it.
        hang_up: closes it at once.
    """

    def __init__(self, address: Address, hang_up: Callable[[], object], clock: Callable[[], float]) -> None:
        self.address, self.hang_up, self._clock = address, hang_up, clock
        self.known = False
        self._phase = HANDSHAKE
        self._since = self._begun = clock()

    def enters(self, phase: Phase) -> None:
        """Start to do something, or show that it goes on."""
        now = self._clock()
        if phase is BODY and self._phase is BODY and not self.known:
            return  # a stranger's time runs from the first byte
        if phase in (IDLE, HEADER, ANSWER):
            self._begun = now
        self._phase, self._since = phase, now

    def overdue(self) -> str | None:
        """What it takes too long for, if it does."""
        now, phase = self._clock(), self._phase
        late = now - self._since > (phase.known if self.known else phase.stranger)
        return phase.what if late or (phase is BODY and now - self._begun > _LONGEST_REQUEST) else None


class Visitors:
    """All connections. Not thread-safe, except for `in`: the event loop's alone.

    Args:
        limits: how many there may be.
        refused: told address and kind of every connection that is closed or not taken.
        clock: seconds that only grow.
    """

    def __init__(
        self, limits: Limits, refused: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits, self._refused, self._clock = limits, refused, clock
        self._all: dict[Address, Visitor] = {}
        self._strangers: dict[Address, Visitor] = {}  # the oldest first, as in the next one
        self._by_host: dict[str, dict[Address, Visitor]] = {}

    def __contains__(self, address: object) -> bool:
        return address in self._all

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, address: Address, hang_up: Callable[[], object]) -> Visitor | None:
        """Take a new connection, and close the oldest stranger's where there is no room; None: there is none."""
        neighbours = self._by_host.get(address[0], {})
        if len(neighbours) >= self._limits.per_address:
            self._close(next(iter(neighbours.values())), CROWD)
        elif self._strangers and (
            len(self._strangers) >= self._limits.strangers or len(self._all) >= self._limits.most
        ):
            self._close(next(iter(self._strangers.values())), CROWD)
        elif len(self._all) >= self._limits.most:
            self._refused(address[0], CROWD)
            return None
        visitor = self._all[address] = Visitor(address, hang_up, self._clock)
        self._strangers[address] = self._by_host.setdefault(address[0], {})[address] = visitor
        return visitor

    def leave(self, visitor: Visitor) -> None:
        """Forget a connection that is closed."""
        self._strange_no_more(visitor)
        if self._all.get(visitor.address) is visitor:
            del self._all[visitor.address]

    def welcome(self, address: Address | None) -> None:
        """Note that an enrolled key was shown on this connection."""
        visitor = self._all.get(address) if address else None
        if visitor and not visitor.known:
            visitor.known = True
            self._strange_no_more(visitor)

    def sweep(self) -> None:
        """Close what takes too long."""
        for visitor in list(self._all.values()):
            if what := visitor.overdue():
                self._close(visitor, what)

    def turn_out(self) -> None:
        """Close what strangers hold, for nobody serves them any more."""
        for visitor in list(self._strangers.values()):
            visitor.hang_up()

    def _close(self, visitor: Visitor, why: str) -> None:
        if not visitor.known:
            self._refused(visitor.address[0], why)
        self._strange_no_more(visitor)  # it makes room at once; its descriptor is counted until it is closed
        visitor.hang_up()

    def _strange_no_more(self, visitor: Visitor) -> None:
        if self._strangers.get(visitor.address) is visitor:
            del self._strangers[visitor.address]
            neighbours = self._by_host[visitor.address[0]]
            del neighbours[visitor.address]
            if not neighbours:
                del self._by_host[visitor.address[0]]

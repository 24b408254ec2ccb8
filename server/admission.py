"""Who may come to our SuperLink: the members of a roster, as it changes, or anyone; and a word on who is refused."""

import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from server.link.link import Link
from server.roster import Member, Roster
from task.errors import UserError, shown
from task.identity import fingerprint, public_key_to_bytes
from task.open_key import open_key

_LOOK_SECONDS = 0.5
_SAME_REFUSAL = 60.0  # seconds before the same refusal is told again
_MOST_LINES = 10  # refusals of strangers that are told in that time
_MOST_ADDRESSES = 5  # that are summed up one by one
_MOST_DIFFERENT = 10_000  # paths, or addresses, that are told apart
_OTHERS = "others"
_log = logging.getLogger("fedarena")


class Admission:
    """Lets clients in, and refuses those who were revoked while the server runs.

    Args:
        link: the SuperLink.
        roster: who is enrolled; None: anyone may come as any client.
        clients: how many take part where anyone may come.
        note: told in one line what the user should know.
    """

    def __init__(self, link: Link, roster: Roster | None, clients: int, note: Callable[[str], None]) -> None:
        self._link, self._roster, self._note = link, roster, note
        self._nodes: dict[bytes, int] = {}  # by public key
        self._clients: dict[int, int] = {}  # client by node
        self._ended = threading.Event()
        if roster is None:
            for client in range(clients):
                self._admit(public_key_to_bytes(open_key(client).public_key()), client)
        else:
            self._follow(roster)
            threading.Thread(target=self._watch, args=(roster,), name="roster", daemon=True).start()

    def number_of(self, node: int) -> int | None:
        """Which client a node is enrolled as."""
        return self._clients.get(node)

    def stop(self) -> None:
        """Follow the roster no more."""
        self._ended.set()

    def _admit(self, public_key: bytes, client: int) -> None:
        node = self._link.state.admit(public_key)
        self._nodes[public_key], self._clients[node] = node, client

    def _follow(self, roster: Roster) -> None:
        active = {member.public_key: member for member in roster.active}
        for public_key, member in active.items():
            if public_key not in self._nodes:
                self._admit(public_key, member.client)
        for public_key in self._nodes.keys() - active.keys():
            self._link.state.expel(self._nodes.pop(public_key))

    def _watch(self, roster: Roster) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            if not roster.changed():
                continue
            before = {member.public_key: member for member in roster.active}
            try:
                roster.reload()
            except UserError as error:
                self._note(str(error))
                self._ended.wait(_SAME_REFUSAL)
                continue
            self._follow(roster)
            after = {member.public_key: member for member in roster.active}
            for member in sorted((before[key] for key in before.keys() - after.keys()), key=lambda one: one.client):
                self._note(f"{member.name} was revoked and is refused from now on")
            for member in sorted((after[key] for key in after.keys() - before.keys()), key=lambda one: one.client):
                self._note(f"{member.name} was enrolled as client {member.client}")


class Refusals:
    """Tells of refused calls: the first of a kind at once, what comes after it within a minute as a number.

    What strangers vary (paths, keys, addresses) makes neither more lines nor more memory: a minute has at most so many
    lines of strangers, and then one sum per address, of a few addresses and of all others together. Members, whose
    owners wait for help, are told of besides.

    Args:
        note: told in one line.
        roster: who is enrolled, as `Admission` keeps it up to date; None: anyone may come as any client.
        clock: seconds that only grow.
    """

    def __init__(
        self, note: Callable[[str], None], roster: Roster | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._note, self._roster, self._clock = note, roster, clock
        self._lock = threading.Lock()
        self._began: float | None = None  # the minute that runs
        self._told: set[tuple[str, str]] = set()  # in it: kind and address, "" for a member
        self._more: dict[str, _Sum] = {}  # in it, by address
        self._timer: threading.Timer | None = None

    def __call__(self, address: str, public_key: bytes, status: int, path: str) -> None:
        """See `server.link.Link`."""
        refusal = self._refusal(public_key, status, path)
        if refusal is None:
            return
        with self._lock:
            if self._began is not None and self._clock() - self._began >= _SAME_REFUSAL:
                self._sum_up()
            if self._began is None:
                self._began = self._clock()
            known = (refusal.kind, "" if refusal.member else address)
            room = refusal.member or sum(1 for _, host in self._told if host) < _MOST_LINES
            if known not in self._told and room:
                self._told.add(known)
                self._tell(f"{refusal.text}{f' from {address}' if address else ''}", address)
            else:
                where = address if address in self._more or len(self._more) < _MOST_ADDRESSES else _OTHERS
                self._more.setdefault(where, _Sum()).add(address, path if status == HTTPStatus.NOT_FOUND else "")
                if self._timer is None:
                    self._timer = threading.Timer(_SAME_REFUSAL, self.flush)
                    self._timer.daemon = True
                    self._timer.start()

    def flush(self) -> None:
        """Tell now what was only counted so far."""
        with self._lock:
            self._sum_up()

    def _sum_up(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        seconds = self._clock() - self._began if self._began is not None else 0.0
        for address, more in self._more.items():
            where = f"{more.addresses} other addresses" if address == _OTHERS else address
            paths = f" ({more.paths} different paths)" if len(more.paths) > 1 else ""
            calls = "call" if more.count == 1 else "calls"
            came = f" from {where}" if where else ""
            self._tell(f"{more.count:,} more refused {calls} in the last {seconds:.0f} s{came}{paths}", address)
        self._began = None
        self._told.clear()
        self._more.clear()

    def _tell(self, what: str, address: str) -> None:
        self._note(f"refused: {what}")
        _log.warning("refused", extra={"fields": {"what": what, "address": address}})

    def _refusal(self, public_key: bytes, status: int, path: str) -> "_Refusal | None":
        if not status:
            return _Refusal(_HANDSHAKES.get(path) or (path if " " in path else f"a TLS handshake that failed ({path})"))
        if not path:
            return _Refusal("a request that is no HTTP, or has a header without end")
        if path.endswith("/activate-node"):
            return self._who(public_key, status)
        if path.endswith("/register-node"):
            # Where anyone may come, Flower only says that it has this key already, as it always has.
            return _Refusal("a client without an identity") if self._roster else None
        if status == HTTPStatus.NOT_FOUND:
            return _Refusal(f"a call of {shown(path, 60)}, which is not served here", "elsewhere")
        if status == HTTPStatus.UNAUTHORIZED and (self._member(public_key) or not self._roster):
            return None  # a node of an earlier server process, which will come anew
        if status == HTTPStatus.UNAUTHORIZED:
            return _Refusal("a call without the signature of an enrolled client")
        return _Refusal(f"a call that cannot be answered (HTTP status {status})")

    def _who(self, public_key: bytes, status: int) -> "_Refusal":
        member = self._member(public_key)
        name = f"{member.name} (client {member.client})" if member else "a client"
        if status == HTTPStatus.UNAUTHORIZED:
            return _Refusal(f"{name}, whose signature does not hold: its clock may be wrong", member=bool(member))
        if member and member.revoked:
            return _Refusal(f"{name}, which was revoked", member=True)
        if member or not self._roster:
            return _Refusal(f"{name}, which takes part already from another process", member=bool(member))
        return _Refusal(f"an unknown key, {fingerprint(public_key)}", "an unknown key")

    def _member(self, public_key: bytes) -> Member | None:
        members = self._roster.members if self._roster else ()
        return next((member for member in reversed(members) if member.public_key == public_key), None)


class _Refusal:
    """What was refused.

    Attributes:
        text: for the user.
        kind: the same for refusals that differ only in what the caller may vary.
        member: whether it is of somebody who is or was enrolled.
    """

    def __init__(self, text: str, kind: str = "", *, member: bool = False) -> None:
        self.text, self.kind, self.member = text, kind or text, member


class _Sum:
    """Refused calls that were only counted.

    Attributes:
        count: how many.
        addresses: from how many addresses.
        paths: of how many paths that are not served.
    """

    def __init__(self) -> None:
        self.count = 0
        self.addresses, self.paths = _Different(), _Different()

    def add(self, address: str, path: str) -> None:
        """Count one."""
        self.count += 1
        self.addresses.add(address)
        if path:
            self.paths.add(path)


class _Different:
    """Counts different texts; from so many on it only knows that there are more."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def add(self, text: str) -> None:
        """Count a text if it is new."""
        if len(self._hashes) < _MOST_DIFFERENT:
            self._hashes.add(hash(text))

    def __len__(self) -> int:
        return len(self._hashes)

    def __str__(self) -> str:
        return f"{len(self):,}" + (" or more" if len(self) == _MOST_DIFFERENT else "")


_HANDSHAKES = {  # what `server.link.Link` says of them
    "no descriptor": "a connection, for want of a file descriptor (raise LimitNOFILE, or ulimit -n)",
    "TLS": "a client that speaks TLS, and this server was started without",
    "plain HTTP": "a client that speaks plain HTTP, and this server wants TLS",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "a client for which this server's certificate has expired",
    "TLSV1_ALERT_UNKNOWN_CA": "a client that does not trust this server's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "a client that does not trust this server's certificate",
}

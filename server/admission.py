"""Who may come to our SuperLink: the members of a roster, as it changes, or anyone; and a word on who is refused."""

import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from server.link.link import Link
from server.roster import Roster
from task.errors import UserError
from task.identity import fingerprint, public_key_to_bytes
from task.open_key import open_key

_LOOK_SECONDS = 0.5
_SAME_REFUSAL = 60.0  # seconds before the same refusal is told again
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
    """Tells of refused calls, the same one not too often.

    Args:
        note: told in one line.
        roster: who is enrolled, as `Admission` keeps it up to date; None: anyone may come as any client.
    """

    def __init__(self, note: Callable[[str], None], roster: Roster | None) -> None:
        self._note, self._roster = note, roster
        self._told: dict[tuple[str, bytes, str], float] = {}  # the oldest first; no longer than it is not told again

    def __call__(self, address: str, public_key: bytes, status: int, path: str) -> None:
        """See `server.link.door.Door`."""
        what = self._what(public_key, status, path)
        if what is None:
            return
        key, now = (address, public_key, what), time.monotonic()
        while self._told and now - next(iter(self._told.values())) >= _SAME_REFUSAL:
            del self._told[next(iter(self._told))]
        if key in self._told:
            return
        self._told[key] = now
        where = f" from {address}" if address else ""
        self._note(f"refused: {what}{where}")
        _log.warning("refused", extra={"fields": {"what": what, "address": address}})

    def _what(self, public_key: bytes, status: int, path: str) -> str | None:
        if not status:
            return _HANDSHAKES.get(path, f"a TLS handshake that failed ({path})")
        if path.endswith("/activate-node"):
            return self._who(public_key, status)
        if path.endswith("/register-node"):
            # Where anyone may come, Flower only says that it has this key already, as it always has.
            return "a client without an identity" if self._roster else None
        if status == HTTPStatus.NOT_FOUND:
            return f"a call of {path[:60]}, which is not served here"
        return None  # a node of an earlier server process, which will come anew

    def _who(self, public_key: bytes, status: int) -> str:
        members = self._roster.members if self._roster else ()
        member = next((member for member in reversed(members) if member.public_key == public_key), None)
        name = f"{member.name} (client {member.client})" if member else "a client"
        if status == HTTPStatus.UNAUTHORIZED:
            return f"{name}, whose signature does not hold: its clock may be wrong"
        if member and member.revoked:
            return f"{name}, which was revoked"
        if member or not self._roster:
            return f"{name}, which takes part already from another process"
        return f"an unknown key, {fingerprint(public_key)}"


_HANDSHAKES = {  # what `server.link.Link` says of them
    "TLS": "a client that speaks TLS, and this server was started without",
    "plain HTTP": "a client that speaks plain HTTP, and this server wants TLS",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "a client for which this server's certificate has expired",
    "TLSV1_ALERT_UNKNOWN_CA": "a client that does not trust this server's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "a client that does not trust this server's certificate",
}

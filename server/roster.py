"""The folder of a federation: who belongs to it and by which key, its certificate authority, its server's certificate.

`roster.json` is replaced as a whole and last of all, so a reader meets a state that was meant. Whoever changes the
folder holds `lock(folder)`.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.certificates import (
    as_ip,
    ca_certificate,
    check_host,
    hosts_of,
    read_certificate,
    read_key,
    server_certificate,
)
from server.files import write_atomic
from task import cache
from task.errors import UserError, quoted
from task.identity import SUFFIX, fingerprint
from task.jsontext import read_object

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

FOLDER = "federation"

_FORMAT = 1
_ALWAYS = ("localhost", "127.0.0.1", "::1")
_WARN = timedelta(days=30)


@dataclass(frozen=True)
class Member:
    """One who was enrolled.

    Attributes:
        name: unique among those who are not revoked.
        client: the number of its shard; nobody of another name ever gets it.
        public_key: in PEM, as Flower's `public_key_to_bytes` gives it.
        enrolled: when, in UTC.
        revoked: when, in UTC; None for a member in good standing.
    """

    name: str
    client: int
    public_key: bytes
    enrolled: datetime
    revoked: datetime | None = None

    @property
    def fingerprint(self) -> str:
        """Of its public key."""
        return fingerprint(self.public_key)


class Roster:
    """A federation's folder as it was when last read.

    Attributes:
        folder: where it is.
        ca: the file of the CA certificate; every client has a copy.
        certificate: the file of the server's certificate.
        key: the file of the server's private key.
        server: HOST:PORT that clients enrolled next will call, as given last.
        hosts: every name and address that the server's certificate is good for.
        members: all who were ever enrolled, in that order, the revoked among them.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.ca = self.folder / "ca.pem"
        self.certificate = self.folder / "server.pem"
        self.key = self.folder / "server.key"
        self.server = ""
        self.hosts: tuple[str, ...] = ()
        self.members: tuple[Member, ...] = ()
        self._ca_key = self.folder / "ca.key"
        self._file = self.folder / "roster.json"
        self._content = b""  # of the file, as last read or written

    @classmethod
    def open(cls, folder: Path | str) -> Roster:
        """Read a federation's folder.

        Raises:
            UserError: there is no federation, or its roster is damaged.
        """
        roster = cls(folder)
        roster.reload()
        return roster

    def found(self, hosts: Iterable[str], now: datetime) -> None:
        """Make the CA and the server's certificate of a new federation; the caller holds the lock, and saves.

        What an interrupted founding left is used: a CA is never replaced.

        Args:
            hosts: names and addresses as `check_host` returns them; the machine's own come on top.
            now: the present; certificates count from it.
        """
        if not self.ca.exists():
            write_atomic(self.ca, ca_certificate(_key(self._ca_key, make=True), now))
        self.certify(hosts, now)

    @property
    def exists(self) -> bool:
        """Whether there is a federation in the folder."""
        return self._file.exists()

    @property
    def active(self) -> tuple[Member, ...]:
        """The members who are not revoked."""
        return tuple(member for member in self.members if member.revoked is None)

    def changed(self) -> bool:
        """Whether somebody was enrolled or revoked since the roster was read: compares bytes, in some 10 microseconds.

        Also true while the file cannot be read; `reload` then says why.
        """
        try:
            return self._file.read_bytes() != self._content
        except OSError:
            return True

    def reload(self) -> None:
        """Read the roster again.

        Raises:
            UserError: it is gone or damaged; what was read before stays in force.
        """
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"no federation in {self.folder}; make one: "
                + self.command("enroll", "NAME", "--host", "HOST-OF-THIS-SERVER")
            ) from None
        except OSError as error:
            raise UserError(f"{self._file}: cannot be read: {error.strerror}; check path and permissions") from None
        self.server, self.hosts, self.members = _parse(self._file, content)
        self._content = content

    def save(self, members: Iterable[Member]) -> None:
        """Replace the members and write the roster; the caller holds the lock."""
        self.members = tuple(members)
        values = {
            "format": _FORMAT,
            "server": self.server,
            "hosts": self.hosts,
            "members": [
                asdict(member)
                | {
                    "public_key": member.public_key.decode("ascii"),
                    "enrolled": member.enrolled.isoformat(timespec="seconds"),
                    "revoked": member.revoked and member.revoked.isoformat(timespec="seconds"),
                }
                for member in self.members
            ],
        }
        content = (json.dumps(values, indent=1) + "\n").encode()
        write_atomic(self._file, content)
        self._content = content

    def identity(self, name: str) -> Path:
        """The file of a member's identity; it may have been moved to the client's machine."""
        return self.folder / "clients" / f"{name}{SUFFIX}"

    def certify(self, hosts: Iterable[str], now: datetime) -> None:
        """Sign a new server certificate; the caller holds the lock, and saves.

        The server's key stays the same, so that no interruption leaves a key and a certificate that do not fit.
        Without a `server.key` a new one is made.

        Args:
            hosts: all that it shall be good for, as `check_host` returns them; the machine's own come on top.
            now: the present.

        Raises:
            UserError: the CA has expired, or its certificate or key is missing or damaged.
        """
        ca, ca_key = _certificate(self.ca), _key(self._ca_key)
        if ca.public_key() != ca_key.public_key():
            raise UserError(f"{self._ca_key}: is not the key of {self.ca.name}; put back the one that belongs to it")
        self.check_ca(now)
        self.hosts = tuple(dict.fromkeys([*hosts, *_ALWAYS]))
        signed = server_certificate(ca, ca_key, _key(self.key, make=True).public_key(), self.hosts, now)
        write_atomic(self.certificate, signed)

    def expiries(self) -> tuple[datetime, datetime]:
        """Until when, in UTC, the server's certificate is valid, and the CA's.

        Raises:
            UserError: one of them is missing or damaged.
        """
        return _certificate(self.certificate).not_valid_after_utc, _certificate(self.ca).not_valid_after_utc

    def check_ca(self, now: datetime) -> None:
        """See that the CA is still valid.

        Raises:
            UserError: it has expired, or is missing or damaged.
        """
        end = _certificate(self.ca).not_valid_after_utc
        if end <= now:
            raise UserError(
                f"{self.ca}: the federation's CA expired on {_day(end)}; enroll all clients anew in another folder"
                " (--federation)"
            )

    def check_certificate(self, host: str | None = None, now: datetime | None = None) -> None:
        """See that clients will accept the server.

        Args:
            host: a name or address by which they call it; an address that means "any", such as 0.0.0.0, is not checked.
            now: the present, if it shall be another.

        Raises:
            UserError: a certificate has expired, is not valid yet, is damaged, does not belong to its key or its CA, or
                does not name the host.
        """
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

        now = now or datetime.now(UTC)
        self.check_ca(now)
        ca, server = _certificate(self.ca), _certificate(self.certificate)
        renew = f"renew it: {self.command('renew')}"
        if server.not_valid_after_utc <= now:
            raise UserError(
                f"{self.certificate}: the server's certificate expired on {_day(server.not_valid_after_utc)}; {renew}"
            )
        if server.not_valid_before_utc > now:
            raise UserError(
                f"{self.certificate}: valid from {_day(server.not_valid_before_utc)} only, and this machine's clock"
                f" says {_day(now)}; set the clock"
            )
        try:
            server.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise UserError(f"{self.certificate}: was not signed by {self.ca.name}; {renew}") from None
        if server.public_key() != _key(self.key).public_key():
            raise UserError(f"{self.certificate}: does not belong to {self.key.name}; {renew}")
        if host is not None and not _any(host) and check_host(host) not in hosts_of(server):
            raise UserError(
                f"{self.certificate}: is not good for {host}, only for {', '.join(hosts_of(server))}; "
                f"add it: {self.command('renew', '--host', host)}"
            )

    def warning(self, now: datetime | None = None) -> str | None:
        """A line for the user if the server's certificate or the CA's has less than 30 days to go, else None.

        Raises:
            UserError: one of them is missing or damaged.
        """
        now = now or datetime.now(UTC)
        server, ca = self.expiries()
        if ca - now < _WARN:
            return (
                f"the federation's CA holds until {_day(ca)} and no client connects after that; enroll all clients anew"
                " in another folder (--federation)"
            )
        if server - now < _WARN:
            word = "expires" if server > now else "expired"
            return f"the server's certificate {word} on {_day(server)}; renew it: {self.command('renew')}"
        return None

    def command(self, *words: str) -> str:
        """`python -m server ...` for this folder, to be copied into a shell."""
        folder = [] if self.folder == Path(FOLDER) else ["--federation", str(self.folder)]
        return shlex.join(["python", "-m", "server", *words, *folder])


def lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Wait for whoever else changes the folder, and keep others out; readers need no lock."""
    return cache.lock(folder / ".lock")


def _any(host: str) -> bool:
    address = as_ip(host)
    return address is not None and address.is_unspecified


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d}"


def _parse(path: Path, content: bytes) -> tuple[str, tuple[str, ...], tuple[Member, ...]]:
    """The server, the hosts and the members that a roster.json names."""
    try:
        values = read_object(content)
        if values["format"] != _FORMAT:
            raise UserError(f"{path}: is of format {quoted(values['format'])}; this FedArena reads format {_FORMAT}")
        return str(values["server"]), tuple(map(str, values["hosts"])), tuple(map(_member, values["members"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise UserError(f"{path}: is damaged; restore it from a backup, or enroll into another folder") from None


def _member(values: dict[str, Any]) -> Member:
    name, client, revoked = values["name"], values["client"], values["revoked"]
    if not isinstance(name, str) or type(client) is not int or client < 0:
        raise ValueError("a value of the wrong kind")
    return Member(
        name=name,
        client=client,
        public_key=values["public_key"].encode("ascii"),
        enrolled=datetime.fromisoformat(values["enrolled"]),
        revoked=None if revoked is None else datetime.fromisoformat(revoked),
    )


def _certificate(path: Path) -> x509.Certificate:
    return read_certificate(path, _mend(path))


def _key(path: Path, *, make: bool = False) -> EllipticCurvePrivateKey:
    return read_key(path, _mend(path), make=make)


def _mend(path: Path) -> str:
    if path.name.startswith("ca."):
        return "restore it from a backup, or enroll all clients anew in another folder (--federation)"
    return f"remove it if it is there, and make it again: {Roster(path.parent).command('renew')}"

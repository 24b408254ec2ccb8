"""`python -m server enroll | revoke | members | renew`: who belongs to a federation, and its certificates."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.certificates import check_host
from server.members import spelled
from server.roster import FOLDER, Member, Roster, lock
from task.errors import UserError, remedy
from task.identity import SUFFIX, Identity
from task.shardfile import TEST, shard_name

if TYPE_CHECKING:
    import rich.table

PORT = 9092  # of Flower's Fleet API

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # no leading dot or dash: it names a file, and follows options


def enroll(
    folder: Path,
    names: Sequence[str],
    hosts: Sequence[str] = (),
    port: int | None = None,
    client: int | None = None,
    now: datetime | None = None,
) -> tuple[Roster, tuple[Member, ...]]:
    """Make clients members of a federation, and the federation first if there is none. All of them or, refused, none.

    Safe beside other processes that do the same, and after one that was killed.

    Args:
        folder: the federation's; made if missing.
        names: of the new members; each gets `clients/NAME.identity` and a number above all that were ever given, or
            again the one that it had before it was revoked: the same site has the same shard.
        hosts: DNS names or IP addresses at which clients reach the server. The first one goes into the identities;
            all of them into the server's certificate, which is renewed where it lacks one.
        port: at which they reach it; None: as last time, at first PORT.
        client: the number for the only name given; one that nobody of another name ever had.
        now: the present, if it shall be another.

    Returns:
        The roster, and the new members in the order of their names.

    Raises:
        UserError: a name or host that is not allowed, or taken; a number that is or was another's; no host for a new
            federation; a CA that has expired.
        OSError: the folder cannot be written.
    """
    hosts = [check_host(host) for host in hosts]
    _check_names(names, client)
    if not hosts and not Roster(folder).exists:
        raise UserError(
            f"{folder} is a new federation: say where clients reach its server, with --host NAME-OR-ADDRESS"
        )
    time = _present(now)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock(folder):
        roster = Roster(folder)
        new = not roster.exists
        if not new:
            roster.reload()
            roster.check_ca(time)
        fresh = _members(roster, names, client, time)  # refuses before anything is made
        if new:
            roster.found(hosts, time)
        elif not set(hosts) <= set(roster.hosts):
            roster.certify([*roster.hosts, *hosts], time)
        roster.server = _server(roster.server, hosts, port)
        keyed = tuple(_hand_out(roster, member) for member in fresh)
        roster.save([*roster.members, *keyed])
    return roster, keyed


def revoke(folder: Path, names: Sequence[str], now: datetime | None = None) -> tuple[Roster, tuple[Member, ...]]:
    """End memberships; a running server sees it in the roster. All of them or, refused, none.

    Returns:
        The roster, and those who were revoked.

    Raises:
        UserError: there is no federation, or no active member of a name.
        OSError: the folder cannot be written.
    """
    time = _present(now)
    Roster.open(folder)  # no folder and no lock file are made for a federation that is none
    with lock(folder):
        roster = Roster.open(folder)
        active = {member.name: member for member in roster.active}
        if missing := [name for name in names if name not in active]:
            known = f"members: {', '.join(active)}" if active else "there is none"
            raise UserError(f"no member {missing[0]!r} in {folder}; {known}")
        gone = {active[name]: replace(active[name], revoked=time) for name in names}
        roster.save(gone.get(member, member) for member in roster.members)
        for member in gone:
            roster.identity(member.name).unlink(missing_ok=True)
    return roster, tuple(gone.values())


def renew(folder: Path, hosts: Sequence[str] = (), now: datetime | None = None) -> Roster:
    """Sign a new server certificate by the same CA, for the same hosts; clients need nothing new.

    Args:
        folder: the federation's.
        hosts: more names and addresses for it.
        now: the present, if it shall be another.

    Raises:
        UserError: there is no federation, a host is none, or the CA has expired, is missing or damaged.
        OSError: the folder cannot be written.
    """
    hosts = [check_host(host) for host in hosts]
    Roster.open(folder)
    with lock(folder):
        roster = Roster.open(folder)
        roster.certify([*roster.hosts, *hosts], _present(now))
        roster.save(roster.members)
    return roster


def add_commands(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the sub-commands and their options; `run` does what was asked for."""

    def command(name: str, text: str, act: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=f"{text}.".capitalize())
        parser.set_defaults(act=act)
        parser.add_argument("--federation", help=f"its folder; default: {FOLDER}", metavar="DIR", default=FOLDER)
        return parser

    def add_hosts(parser: argparse.ArgumentParser, text: str) -> None:
        parser.add_argument("--host", help=text, metavar="HOST", action="append", default=[])

    parser = command("enroll", "add clients, and make the federation at first use", _enroll)
    parser.add_argument("names", help="of the new clients: letters, digits, . _ -", metavar="NAME", nargs="+")
    add_hosts(parser, "DNS name or IP address at which clients reach this server; may be repeated; needed at first use")
    parser.add_argument(
        "--port", help=f"port at which they reach it; default: as last time, at first {PORT}", metavar="N", type=_port
    )
    parser.add_argument(
        "--client",
        help="number of the client's shard, which nobody else ever had; default: the one after the highest",
        metavar="K",
        type=_number,
    )
    parser = command("revoke", "shut clients out, also of a running server", _revoke)
    parser.add_argument("names", help="of the clients", metavar="NAME", nargs="+")
    command("members", "show who belongs to the federation, and until when its certificates hold", _show)
    parser = command("renew", "make a new server certificate; clients need nothing new", _renew)
    add_hosts(parser, "DNS name or IP address to add to it; may be repeated")


def run(options: argparse.Namespace) -> int:
    """Do what one of the sub-commands asks for.

    Returns:
        The exit status, 0.

    Raises:
        UserError: it cannot be done, or the folder cannot be written.
    """
    try:
        options.act(options)
    except BrokenPipeError:  # nobody reads what it prints, which is no trouble of the folder
        raise
    except OSError as error:
        raise UserError(
            f"{error.filename or options.federation}: {error.strerror}; " + remedy(error, "check path and permissions")
        ) from None
    return 0


def _enroll(options: argparse.Namespace) -> None:
    folder = Path(options.federation)
    roster, members = enroll(folder, options.names, options.host, options.port, options.client)
    count = len(roster.active)
    lines = [
        f"Federation {folder}: {count} member{'s' if count != 1 else ''}; the server is {roster.server}.",
        *(
            f"{member.name} was a member before and is client {member.client} again: the same site with the same shard."
            " Another site needs another name."
            for member in members
            if any(other.name.lower() == member.name.lower() for other in roster.members if other.revoked)
        ),
        "Move these files to the clients by a safe way: each holds a private key."
        if len(members) > 1
        else "Move this file to the client by a safe way: it holds a private key.",
    ]
    for member in members:
        lines += [
            "",
            f"{roster.identity(member.name)} (client {member.client}, key {member.fingerprint})",
            f"  python -m client --identity {member.name}{SUFFIX} --shard {shard_name(member.client)}",
        ]
    host, _, port = roster.server.rpartition(":")
    everywhere = "[::]" if host.startswith("[") else "0.0.0.0"  # noqa: S104 as every server that others call
    start = roster.command("--listen", f"{everywhere}:{port}", "--test", TEST)
    _say(*lines, "", f"Server, with all members ({_active(roster)}):", f"  {start}")


def _revoke(options: argparse.Namespace) -> None:
    roster, members = revoke(Path(options.federation), options.names)
    _say(
        *(
            f"{member.name} (client {member.client}) is revoked. Nobody else gets its number; it has it back when it is"
            f" enrolled again by its name: {roster.command('enroll', member.name)}"
            for member in members
        ),
        "A run that it takes part in goes on without it, also when it is resumed.",
        f"Members now: {_active(roster)}.",
    )


def _renew(options: argparse.Namespace) -> None:
    roster = renew(Path(options.federation), options.host)
    _say(_validity(roster), "A server that is running uses it when it is started again.")


def _show(options: argparse.Namespace) -> None:
    from task.console import Console

    roster = Roster.open(options.federation)
    # A pipe has no width: names stay whole there, so that they can be searched for.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(_table(roster), highlight=False)
    _say(_validity(roster), *filter(None, [roster.warning()]))


def _table(roster: Roster) -> rich.table.Table:
    """Active members by their numbers, then the revoked in the order in which they came."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("name", overflow="fold")
    table.add_column("client", justify="right", no_wrap=True)
    for header in ("fingerprint", "enrolled", "status"):
        table.add_column(header, no_wrap=True)
    for member in sorted(roster.members, key=lambda m: (m.revoked is not None, m.client if not m.revoked else 0)):
        status = f"revoked {member.revoked:%Y-%m-%d}" if member.revoked else "active"
        cells = (member.name, str(member.client), member.fingerprint, f"{member.enrolled:%Y-%m-%d}", status)
        table.add_row(*map(Text, cells), style="dim" if member.revoked else "")
    return table


def _validity(roster: Roster) -> str:
    server, ca = roster.expiries()
    return (
        f"The server's certificate holds until {server:%Y-%m-%d}, the CA's until {ca:%Y-%m-%d}.\n"
        f"It is good for {', '.join(roster.hosts)}."
    )


def _check_names(names: Sequence[str], client: int | None) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"name {name!r} is not allowed: up to 64 letters, digits, . _ and -, a letter or digit first"
            )
    if twice := _twice(names):
        raise UserError(f"name {twice} is given twice; each client needs its own")
    if client is not None and len(names) > 1:
        raise UserError(f"--client {client} is the number of one client, and there are {len(names)} names")


def _twice(names: Sequence[str]) -> str | None:
    """A name that is there before; also in other capitals, since some file systems do not tell them apart."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            return name
        seen.add(name.lower())
    return None


def _members(roster: Roster, names: Sequence[str], client: int | None, now: datetime) -> list[Member]:
    """The new members, still without a key."""
    active = roster.active
    for name in names:
        if other := next((member for member in active if member.name.lower() == name.lower()), None):
            raise UserError(f"{other.name} is a member already; first {roster.command('revoke', other.name)}")
    last = {member.client: member for member in roster.members}  # who had each number last
    before = {member.name.lower(): number for number, member in last.items()}
    if client is not None and (other := last.get(client)) and other.name.lower() != names[0].lower():
        was = "belongs to" if other.revoked is None else "belonged to"
        raise UserError(
            f"number {client} {was} {other.name}, and no number is given twice: choose another, or leave --client out"
        )
    if client is not None and (had := before.get(names[0].lower(), client)) != client:
        raise UserError(
            f"{names[0]} was client {had} and is that again: leave --client out, or enroll it by another name"
        )
    fresh = itertools.count(max(last, default=-1) + 1)
    numbers = [client if client is not None else before.get(name.lower()) for name in names]
    return [
        Member(name, next(fresh) if number is None else number, b"", now)
        for name, number in zip(names, numbers, strict=True)
    ]


def _active(roster: Roster) -> str:
    """Who belongs to the federation: "client 3", or "clients 0 to 4"."""
    numbers = [member.client for member in roster.active]
    return f"client{'s' if len(numbers) != 1 else ''} {spelled(numbers)}" if numbers else "nobody"


def _hand_out(roster: Roster, member: Member) -> Member:
    """Make the member's key and write its identity."""
    path = roster.identity(member.name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)  # of a command that was killed before it saved: nobody knows that key
    identity = Identity.new(member.name, member.client, roster.server, roster.ca.read_bytes())
    identity.write(path)
    return replace(member, public_key=identity.public_key())


def _server(before: str, hosts: Sequence[str], port: int | None) -> str:
    """HOST:PORT for new clients: as given, else as before."""
    host, _, last = before.rpartition(":")
    if hosts:
        host = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
    return f"{host}:{port or last or PORT}"


def _present(now: datetime | None) -> datetime:
    """In whole seconds, as certificates and the roster keep it."""
    return (now or datetime.now(UTC)).replace(microsecond=0)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, not {text!r}")
    return int(text)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, not {text!r}")
    return int(text)


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")

"""From what the user gave to a client that takes part: check everything first, then join."""

import signal
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from task.address import is_loopback
from task.chatter import Chatter, console_on
from task.errors import UserError, printable
from task.identity import Identity
from task.logfile import log_to
from task.shardfile import read_header, shard_name
from task.system_limits import check_limits

if TYPE_CHECKING:  # imported late: a mistake in an option should be told at once
    from rich.console import Console

_DEFAULT_PORT = 9092


@dataclass(frozen=True)
class Member:
    """A client, as its owner describes it; see `python -m client --help`."""

    shard: Path
    server: str | None
    identity: Path | None
    insecure: bool
    facts: Literal["all", "minimal"]
    dp: str | None
    models: tuple[str, ...]
    once: bool
    logs: Path
    runtime: Literal["resident", "stock"]
    verbose: bool


def join(member: Member) -> int:
    """Take part until the run is over (`once`) or the user ends it; the exit status.

    Raises:
        UserError: for everything that only the user can mend.
    """
    identity = Identity.read(member.identity) if member.identity else None
    address = server_address(member.server, identity)
    number = client_number(member.shard, identity)
    if identity and member.insecure:
        raise UserError("--insecure and --identity contradict each other; leave one of them out")
    if not identity and not member.insecure and not is_loopback(address.rpartition(":")[0]):
        raise UserError(
            f"{address} is another machine: give --identity FILE, which its owner makes with "
            "python -m server enroll, or --insecure for plain HTTP that anyone on the way can read and change"
        )
    config = node_config(member, number, identity)
    check_limits()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        with ExitStack() as opened:
            chatter = opened.enter_context(Chatter(verbose=member.verbose))
            log = member.logs / f"client-{number}.jsonl"
            log_to(log)
            console = console_on(chatter, live=not member.verbose)
            chatter.redirect(said := member.logs / f"client-{number}.out")
            name = f"{identity.name} (client {number})" if identity else f"client {number}"
            whose = printable(f"{name}, shard {member.shard}, for the server {address}")
            console.print(whose, highlight=False, soft_wrap=True)
            if not identity:
                console.print(
                    "INSECURE: plain HTTP, no authentication. Whoever is on the way reads and changes everything.",
                    style="bold red",
                    highlight=False,
                    soft_wrap=True,
                )
            if member.runtime == "stock":
                from client.stock import run_supernode

                folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="fedarena-client-")))
                return run_supernode(address, identity, config, folder, console, said, once=member.once)
            return _stay(address, number, identity, config, console, log, once=member.once)
    finally:
        signal.signal(signal.SIGTERM, before)


def _stay(
    address: str,
    number: int,
    identity: Identity | None,
    config: dict[str, Any],
    console: "Console",
    log: Path,
    *,
    once: bool,
) -> int:
    from client.fitness import summary
    from client.fleet import Fleet, Refused
    from client.resident import Resident
    from client.status import Status
    from task import backend
    from task.open_key import open_key

    key = identity.key() if identity else open_key(number)
    status = Status(console, address, log)

    def load() -> None:
        summary(Path(config["shard"]))
        backend.load()

    try:
        fleet = Fleet(address, key, identity.ca if identity else None, register=identity is None)
        resident = Resident(fleet, config, status, once=once)
        resident.run(load)
    except Refused as refused:
        raise UserError(str(refused)) from None
    finally:
        status.close()
    return 0


def server_address(given: str | None, identity: Identity | None) -> str:
    """HOST:PORT of the server.

    Raises:
        UserError: nobody said it, or it is none.
    """
    address = given or (identity.server if identity else None)
    if not address:
        raise UserError("where is the server? give --server HOST:PORT, or an --identity that knows it")
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(_DEFAULT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--server {address} is no address; write HOST:PORT, such as fed.example.org:9092")
    return f"{host}:{port}"


def client_number(shard: Path, identity: Identity | None) -> int:
    """Which client this is: what the shard says and what the identity says must not differ.

    Raises:
        UserError: they differ, neither says it, or the shard cannot be read.
    """
    held = read_header(shard).client
    if identity is None:
        if held is None:
            raise UserError(f"{shard}: does not say which client's shard it is; name it shard-K.npz")
        return held
    if held is not None and held != identity.client:
        says = "is" if shard.name == shard_name(held) else "says inside that it is"
        raise UserError(
            f"{shard} {says} the shard of client {held}, but {identity.name} is enrolled as client "
            f"{identity.client}: give {identity.name}'s own shard, or this one with the identity of client {held}"
        )
    return identity.client


def node_config(member: Member, number: int, identity: Identity | None) -> dict[str, Any]:
    """What `client.app` and `client.privacy` read.

    Raises:
        UserError: the --dp cannot be read, or its ledger cannot be read and written.
    """
    config: dict[str, Any] = {
        "partition-id": number,
        "shard": str(member.shard.absolute()),
        "models": " ".join(member.models),
        "facts": member.facts,
        "errors": "kind",
    }
    if member.dp is not None:
        from client.budget import Ledger
        from client.privacy import parse_dp

        parse_dp(member.dp)
        config["dp"] = member.dp
        owner = member.identity if identity and member.identity else member.shard
        config["dp-ledger"] = str(owner.absolute().with_suffix(".dp.json"))
        Ledger(Path(config["dp-ledger"])).check()
    return config

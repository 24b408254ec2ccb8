"""Serve real clients: check what the user asked for, open the folder, listen, run."""

import logging
import shlex
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from server.background import Background
from server.checks import check_strategies
from server.members import RunMembers
from server.record import RunRecord
from server.results import RunFolder
from server.roster import Roster
from server.screen import open_screen
from server.start_policy import StartPolicy, start_policy
from server.stop import Broken
from task.address import is_loopback
from task.chatter import Chatter, console_on
from task.config import Positive, RunConfig, Seconds, parse
from task.errors import UserError, describe, describe_invalid
from task.logfile import log_to
from task.options import with_terms
from task.system_limits import check_limits

if TYPE_CHECKING:
    from server.link import Link
    from server.models import Shape
    from server.screen import Screen

INSECURE = "INSECURE: plain HTTP, no authentication. Anyone who reaches {address} can take part, read and change all."
_log = logging.getLogger("fedarena")


@dataclass(frozen=True)
class Service:
    """How real clients are served; see `python -m server --help`.

    Attributes:
        listen: HOST:PORT.
        test: the file with the test set.
        federation: the folder that `enroll` made.
        insecure: plain HTTP, anyone may come.
        round_deadline: seconds, None: none.
        patience: seconds for which a silent client is waited for.
        min_clients: how many clients suffice to begin, once `start_after` seconds are over; see `start_policy`.
        start_after: seconds since the server listens.
    """

    listen: str = "127.0.0.1:9092"
    test: str = "test.npz"
    federation: str = "federation"
    insecure: bool = False
    round_deadline: Seconds | None = None
    patience: Seconds = 60.0
    min_clients: Positive | None = None
    start_after: Seconds | None = None

    @classmethod
    def read(cls, saved: Mapping[str, Any], given: Mapping[str, Any]) -> "Service":
        """From run.json, with what the user gives anew on top.

        Raises:
            UserError: a value that cannot be.
        """
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in {**saved, **given}.items() if name in known}
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            raise UserError(f"the service that run.json or the options ask for: {describe_invalid(error)}") from None


def serve(
    config: RunConfig | None,
    folder: Path,
    given: Mapping[str, Any],
    *,
    quiet: bool,
    verbose: bool,
    command: list[str],
    started: float,
) -> int:
    """Serve one run.

    Args:
        config: what to compare; None: go on with the run in `folder`.
        folder: where the results go.
        given: fields of `Service` that the user gave.
        quiet: show failures only.
        verbose: show what Flower and TensorFlow say, too.
        command: how the user called, for run.json.
        started: Unix time of the start of the command.

    Returns:
        The exit status: 0 if every strategy finished, 1 if one did not, 130 after Ctrl-C.

    Raises:
        UserError: for everything that only the user can mend.
    """
    opened = RunFolder.resume(folder) if config is None else None
    saved = opened.read_run() if opened else {}
    if opened and "service" not in saved:
        raise UserError(f"{folder} holds a simulation: go on with python sim.py --resume {folder}")
    config = with_terms(opened.read_config(), given) if opened else config
    assert config is not None
    service = Service.read(saved.get("service", {}), given)
    check_strategies(config)
    check_limits()
    host, port = parse_listen(service.listen)
    test, shape, dataset, digest = read_test(Path(service.test))
    roster = _roster(service, host)
    members = RunMembers.resumed(saved, roster) if opened else RunMembers.new(config.clients, roster)
    config = parse({**config.model_dump(), "clients": len(members.numbers), "dataset": dataset})
    policy = _policy(service, members, config, folder)
    with ExitStack() as stack:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, at any time
        stack.callback(signal.signal, signal.SIGTERM, before)
        chatter = stack.enter_context(Chatter(verbose=verbose))
        console = console_on(chatter, live=not verbose)
        screen = open_screen(quiet, console, chatter.err)
        stack.callback(screen.close)
        results = stack.enter_context(opened or RunFolder.create(folder))
        chatter.redirect(results.log_path)
        log_to(results.events_path)
        data = {"sha256": digest, "shards": {"test": digest}}
        kept = asdict(service) | {"test": str(test), "federation": str(Path(service.federation).absolute())}
        record = RunRecord(
            results, config, data, command, resumed=opened is not None, service=kept, members=members.record()
        )
        try:
            record.begin()
            screen.step("starting the SuperLink")
            status = _host(host, port, roster, members, config, record, screen, test, shape, service, policy, started)
        except KeyboardInterrupt:
            record.interrupted()
            return 130
        except Broken:
            raise  # what is there is kept
        except UserError:
            record.discard()
            raise
        screen.close()
        if not quiet:
            record.tell(console)
        return status


def _host(
    host: str,
    port: int,
    roster: Roster | None,
    members: RunMembers,
    config: RunConfig,
    record: RunRecord,
    screen: "Screen",
    test: Path,
    shape: "Shape",
    service: Service,
    policy: StartPolicy,
    started: float,
) -> int:
    from server.admission import Admission, Refusals
    from server.hosting import Clients, Hosting
    from server.link import Link, Tls
    from server.rounds import majority, terms_of
    from task.greeting import SIGN_OF_LIFE_SECONDS

    refusals = Refusals(screen.warn, roster)
    link = Link(
        host,
        port,
        Tls(roster.certificate, roster.key) if roster else None,
        open_to_all=roster is None,
        patience=service.patience,
        refused=refusals,
    )
    admission = Admission(link, roster, len(members.numbers), screen.note)
    link.start()
    try:
        address = f"{host}:{link.port}"
        if roster:
            screen.note(f"listening on {address}: TLS, {len(roster.active)} clients enrolled")
            if warning := roster.warning():
                screen.warn(warning)
            for client in sorted(members.revoked()):
                name = members.names.get(client, "nobody")
                screen.warn(f"{name} (client {client}) is not enrolled any more: the run goes on without this client")
        else:
            screen.warn(INSECURE.format(address=address))
        if service.patience < 2 * SIGN_OF_LIFE_SECONDS:
            screen.warn(
                f"--patience {service.patience:g} may give up a client that is well: one that trains gives a sign of "
                f"life every {SIGN_OF_LIFE_SECONDS:g} s; {2 * SIGN_OF_LIFE_SECONDS:g} or more is safe"
            )
        _log.info("listening", extra={"fields": {"address": address, "tls": roster is not None}})
        offer = Background(lambda: _offer_app(link))
        terms = terms_of(config, majority(config), tries=3, deadline=service.round_deadline, recovery=service.patience)
        hosting = Hosting(config, record, screen, test, shape, terms, policy, started)
        offer.result()
        return hosting.run(Clients(link, members.numbers, members.names, admission.number_of, members.revoked))
    finally:
        admission.stop()
        link.stop()
        refusals.flush()


def _offer_app(link: "Link") -> None:
    """Flower's own SuperNodes fetch the app from here; our resident clients have it."""
    from server.bundle import build_bundle

    try:
        link.offer(build_bundle())
    except Exception as error:  # noqa: BLE001 - only clients with --runtime stock need it
        _log.warning("no app for Flower's own SuperNodes: %s", describe(error))


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of --listen.

    Raises:
        UserError: it is no address.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--listen {text} is no address; write HOST:PORT, such as 0.0.0.0:9092")
    return host, int(port)


def _roster(service: Service, host: str) -> Roster | None:
    """Who is enrolled; None where anyone may come."""
    folder = Path(service.federation)
    if service.insecure:
        return None
    if not (folder / "roster.json").exists() and is_loopback(host):
        return None
    if not (folder / "roster.json").exists():
        raise UserError(
            f"{service.listen} can be reached from other machines and {folder} holds no enrolled clients: "
            "enroll them (python -m server enroll NAME ... --host HOST), or give --insecure"
        )
    roster = Roster.open(folder)
    roster.check_certificate()
    return roster


def _policy(service: Service, members: RunMembers, config: RunConfig, folder: Path) -> StartPolicy:
    """When the run begins.

    Raises:
        UserError: it never could, or no round of it could count.
    """
    from server.rounds import majority, terms_of

    quorum = terms_of(config, majority(config)).quorum
    members.check_quorum(quorum)
    resume = shlex.join(["python", "-m", "server", "--resume", str(folder), "--min-clients", str(quorum)])
    advice = f"to begin with {quorum} clients, end this server (Ctrl-C) and go on: {resume}"
    return start_policy(service.min_clients, service.start_after, len(members.numbers), quorum, advice)


def read_test(file: Path) -> "tuple[Path, Shape, str, str]":
    """The test set's file, its shape, the data set's name, and a hash of its content.

    Raises:
        UserError: it is missing, damaged, or cannot be learned from.
    """
    from server.models import Shape
    from task.ready import Digest
    from task.shardfile import load_test, read_raw

    x, y = load_test(file)
    raw_x, raw_y, header = read_raw(file)
    digest = Digest()
    digest.add(raw_x, raw_y)
    classes = header.num_classes or int(y.max()) + 1
    return file.absolute(), Shape(x.shape[1:], classes), header.dataset or file.stem, digest.hexdigest()

"""Strangers at the open port: what they send, hold or leave open costs others nothing, and forges nothing."""

import asyncio
import errno
import io
import json
import logging
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from federation import PATIENCE, until
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from test_link import closing_link, pulled
from test_rounds import X

from client.status import Status
from server.admission import Refusals
from server.enroll import enroll
from server.files import PASSING, WriteError, writing
from server.link import Link, Tls
from server.link.gate import Budget, Gate
from server.link.visitors import BODY, CROWD, HEADER, IDLE, Limits, Visitors
from server.results import ClientRow, Entry, RunFolder
from server.roster import Roster
from server.screen import Silent
from server.screen_live import Live
from server.screen_plain import Plain
from task.command import run_command
from task.errors import UserError, one_line, printable, remedy, shown
from task.logfile import log_to
from task.open_key import open_key

FLEET = "/v1/fleet/"
NASTY = [
    "\x1b[2J\x1b]0;owned\x07",  # clears the terminal and renames its window
    "ok\r\x1b[Krefused: nobody",  # draws over the line
    'x\n2026-11-28 {"event": "refused"}',  # a line of its own
    "\u202egnp.exe\u202c",  # turns what follows
    "\u2066\u200b\u200d\ufeff",  # turns, hides
    "\x9b31m\x85\u2028\u2029",  # the same with one character of C1; other ends of lines
    "[/nothing] [red]",  # means something to rich
]


# -- sockets of strangers


class Stranger:
    """A raw connection to a link, through TLS if it has a context."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if tls:
            self.socket = tls.wrap_socket(self.socket)

    def send(self, *parts: bytes) -> int:
        """Send until it is hung up on; the bytes that were taken."""
        sent = 0
        with suppress(OSError):
            for part in parts:
                self.socket.sendall(part)
                sent += len(part)
        return sent

    def answer(self) -> bytes:
        """All that comes until it is hung up on."""
        got = b""
        with suppress(OSError):
            while part := self.socket.recv(65536):
                got += part
        return got

    def reply(self) -> bytes:
        """One answer, of which the body ends as the answer to a wrong path does."""
        got = b""
        while not got.endswith(b"python -m server"):
            part = self.socket.recv(65536)
            assert part, got
            got += part
        return got

    def is_closed(self) -> bool:
        """Whether the other end has hung up."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1) == b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)


class Told:
    """What a link tells of the refused."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, int, str]] = []

    def __call__(self, *call: Any) -> None:
        self.calls.append(call)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("port") / "federation"
    enroll(folder, ["ada", "bob"], ["127.0.0.1"])
    return folder


@pytest.fixture(params=["plain", "tls"])
def port(request: pytest.FixtureRequest, federation: Path) -> Iterator[Any]:
    """A link, and how strangers come to it."""
    told = Told()
    roster = Roster.open(federation)
    tls = Tls(roster.certificate, roster.key) if request.param == "tls" else None
    link = Link("127.0.0.1", 0, tls, open_to_all=True, patience=60, refused=told)
    link.start()
    trusting = ssl.create_default_context(cafile=str(federation / "ca.pem")) if tls else None
    if trusting:
        trusting.check_hostname = False
    came: list[Stranger] = []

    def comes() -> Stranger:
        came.append(Stranger(link.port, trusting))
        return came[-1]

    link.comes = comes
    link.told = told
    yield link
    for stranger in came:
        stranger.socket.close()
    link.stop()


HEAD = b"POST /v1/fleet/activate-node HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD, b"a: ", *[b"x" * 2**20] * 40],
        [HEAD, *[b"a: b\r\n"] * 5000],
        [b"GET /", *[b"x" * 2**20] * 40],
        [b"\r\n" * 2**20] * 40,
    ],
    ids=["one-line", "many-lines", "path", "no-request"],
)
def test_a_header_without_end_is_cut(port: Any, parts: list[bytes]):
    stranger = port.comes()
    sent = stranger.send(*parts)
    assert sent < 30 * 2**20  # of 40 MB; the kernel holds some itself
    answer = stranger.answer()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    until(lambda: (431, "") in [call[2:] for call in port.told.calls], "a refusal")


def test_every_request_of_a_connection_is_bounded_and_none_comes_before_the_answer_to_the_last(port: Any):
    stranger = port.comes()
    call = b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    for _ in range(2):
        stranger.send(call)
        assert b" 404 " in stranger.reply()
    stranger.send(b"POST /nowhere HTTP/1.1\r\n", b"a: " + b"x" * 40_000)
    assert b" 431 " in stranger.answer()
    stranger = port.comes()
    stranger.send(call * 50)
    assert stranger.answer().count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize("port", ["tls"], indirect=True)
@pytest.mark.parametrize("record", [b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", b"\x16\x03\x01\xff\xff", b"\x00"])
def test_a_handshake_without_end_is_cut(port: Any, record: bytes):
    stranger = Stranger(port.port)
    assert stranger.send(record, *[bytes(2**20)] * 40) < 30 * 2**20
    stranger.answer()
    until(lambda: port.told.calls, "a refusal")
    assert len(port._visitors) == 0 or until(lambda: len(port._visitors) == 0, "an empty house")


@pytest.mark.parametrize("status", [401])
def test_a_large_body_without_a_good_signature_is_not_read(port: Any, status: int):
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: x\r\ncontent-type: application/protobuf\r\n"
    strangers = [port.comes() for _ in range(20)]
    for stranger in strangers:
        stranger.send(head + b"content-length: 8388608\r\n\r\n" + bytes(1000))
        answer = stranger.answer()  # at once, with the body still to come
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in answer


def test_no_header_says_from_where_a_call_comes(port: Any):
    stranger = port.comes()
    stranger.send(b"GET /nowhere HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.1\r\n\r\n")
    assert b" 404 " in stranger.reply()
    assert {call[0] for call in port.told.calls} == {"127.0.0.1"}


def test_silent_connections_make_room_for_enrolled_clients_of_the_same_address():
    told = Told()
    link = Link("127.0.0.1", 0, None, open_to_all=True, patience=60, refused=told)
    link._visitors._limits = Limits(most=40, strangers=12, per_address=8)
    with closing_link(link) as line:
        strangers = [Stranger(link.port) for _ in range(100)]
        until(lambda: sum(stranger.is_closed() for stranger in strangers) >= 92, "closed connections")
        assert len(link._visitors) <= 20
        line.fleet.heartbeat()  # whoever was here still is
        message_id = line.send(X[0])
        line.fleet.push(line.answer(pulled(line.fleet)), 0.1)
        assert line.reply_to(message_id) is not None
        other = line.join(1)
        assert other.activate()  # and who comes gets in
        other.close()
        assert told.calls.count(("127.0.0.1", b"", 0, CROWD)) >= 92
        for stranger in strangers:
            stranger.socket.close()


# -- who may be connected


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Crowd(Visitors):
    """Visitors who are closed at once."""

    def __init__(self, **limits: int) -> None:
        self.clock, self.closed, self.why = Clock(), list[tuple[str, int]](), list[tuple[str, str]]()
        super().__init__(Limits(**limits), lambda *what: self.why.append(what), self.clock)

    def comes(self, host: str, number: int) -> Any:
        def hang_up() -> None:
            self.closed.append((host, number))
            self.leave(visitor)

        visitor: Any = self.enter((host, number), hang_up)
        return visitor


def test_the_oldest_stranger_goes_first_of_its_address_and_of_all_and_the_known_never():
    crowd = Crowd(most=10, strangers=5, per_address=3)
    for number in range(4):
        crowd.comes("a", number)
        if not number:
            crowd.welcome(("a", 0))
    assert crowd.closed == []
    crowd.comes("a", 4)
    assert crowd.closed == [("a", 1)]
    for number in range(3):
        crowd.comes("b", number)
    assert crowd.closed == [("a", 1), ("a", 2)]  # of all, not of its own address
    for number in range(10, 20):  # enrolled clients fill the house
        crowd.comes("c", number)
        crowd.welcome(("c", number))
    assert ("a", 0) in crowd and all(("c", number) in crowd for number in range(10, 19))
    assert len(crowd) == 10 and crowd.comes("d", 1) is None  # nobody is left who could make room
    assert crowd.why[-1] == ("d", CROWD)


def test_each_thing_that_a_connection_does_has_its_time():
    crowd = Crowd(most=10, strangers=9, per_address=9)
    slow, known = crowd.comes("a", 1), crowd.comes("a", 2)
    known.enters(IDLE)
    crowd.welcome(("a", 2))
    for phase in (IDLE, HEADER, BODY):
        crowd.clock.now += 9
        slow.enters(phase)
        crowd.sweep()
    known.enters(BODY)
    for _ in range(3):  # drop by drop
        crowd.clock.now += 4
        slow.enters(BODY)
        known.enters(BODY)
        crowd.sweep()
    assert crowd.closed == [("a", 1)] and crowd.why == [("a", BODY.what)]
    crowd.clock.now += 31
    crowd.sweep()
    assert crowd.closed[1:] == [("a", 2)] and len(crowd.why) == 1
    silent = [crowd.comes("b", number) for number in range(3)]
    silent[1].enters(IDLE)
    crowd.clock.now += 11
    crowd.sweep()
    assert len(crowd) == 0 and len(crowd.why) == 4


@pytest.mark.parametrize("descriptors", [64, 256, 1024, 65536])
def test_descriptors_are_kept_in_reserve(descriptors: int):
    limits = Limits.of(descriptors)
    assert descriptors - limits.most >= min(256, descriptors // 2)
    assert 0 < limits.per_address < limits.strangers <= limits.most // 2


# -- what is read of a request


def test_bodies_in_memory_are_bounded_in_all_and_per_key_and_who_waits_gets_its_turn():
    async def scene() -> None:
        budget, order = Budget(whole=10, each=6), list[str]()

        async def body(key: bytes, size: int, name: str, done: asyncio.Event) -> None:
            async with budget.taken(key, size):
                order.append(name)
                await done.wait()

        first, rest = asyncio.Event(), asyncio.Event()
        rest.set()
        tasks = [asyncio.create_task(body(b"a", 6, "a", first))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(body(*one, rest)) for one in [(b"a", 1, "a too"), (b"b", 5, "b"), (b"c", 4, "c")]]
        for _ in range(10):
            await asyncio.sleep(0)
        assert order == ["a", "c"]
        first.set()
        await asyncio.gather(*tasks)
        assert sorted(order) == ["a", "a too", "b", "c"] and budget._spent.total() == 0

    asyncio.run(asyncio.wait_for(scene(), PATIENCE))


class Call:
    """One request to a gate in this process, and its answer."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes, method: str = "POST") -> None:
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
        self.scope |= {"headers": raw, "client": ("192.0.2.7", 1), "server": ("127.0.0.1", 1), "scheme": "http"}
        self.scope |= {"http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"}}
        self.body, self.reads, self.sent = body, 0, list[Any]()

    async def receive(self) -> Any:
        self.reads += 1
        if self.reads == 1:
            return {"type": "http.request", "body": self.body, "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, event: Any) -> None:
        self.sent.append(event)

    async def at(self, gate: Gate) -> int:
        await asyncio.wait_for(gate(self.scope, self.receive, self.send), PATIENCE)
        assert [event["type"] for event in self.sent].count("http.response.start") == 1, (self.scope, self.body)
        return int(self.sent[0]["status"])

    @property
    def answer(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)


def signed(key: Any, *, at: datetime | None = None) -> dict[str, str]:
    """Headers as Flower's interceptor sends them."""
    stamp = (at or now()).isoformat()
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        signature = key.sign(stamp.encode())
    else:
        signature = b"?"
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(pem).decode(),
        TIMESTAMP_HEADER: stamp,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
    }


def with_body(headers: dict[str, str], body: bytes, kind: str = "application/protobuf") -> dict[str, str]:
    return {**headers, "content-type": kind, "content-length": str(len(body))}


@pytest.fixture
def house() -> Iterator[Any]:
    """A link that does not listen, with one node of `open_key(0)`."""
    told = Told()
    link = Link("127.0.0.1", 0, None, open_to_all=True, patience=60, refused=told)
    link.node = link.state.admit(signed_key(open_key(0)))
    link.told = told
    return link


def signed_key(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


KEYS: dict[str, Callable[[], Any]] = {
    "x25519": x25519.X25519PrivateKey.generate,
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "another curve": lambda: ec.generate_private_key(ec.SECP521R1()),
}


def test_whatever_is_sent_gets_a_short_refusal_and_no_line_of_its_own(house: Any, caplog: pytest.LogCaptureFixture):
    """Every call of the Fleet API with every kind of key, body and header that we could think of, and random ones."""
    random = np.random.default_rng(20261128)
    node, run = Node(node_id=house.node), house.run.run_id
    good, other = signed(open_key(0)), ec.generate_private_key(ec.SECP384R1())
    bodies: list[tuple[str, Any]] = [
        ("push-messages", PushMessagesRequest(node=node)),
        ("push-messages", PushMessagesRequest(node=node, messages_list=[{}])),
        ("push-object", PushObjectRequest(node=node)),
        ("push-object", PushObjectRequest(node=node, run_id=run, session_id="none", object_id="none")),
        ("push-object", PushObjectRequest(node=node, run_id=7, session_id=NASTY[0], object_content=b"x")),
        ("pull-object", PullObjectRequest(node=node)),
        ("pull-object", PullObjectRequest(node=node, run_id=7, object_id="none")),
        ("confirm-message-received", ConfirmMessageReceivedRequest(node=node, run_id=7, message_object_id="none")),
        ("confirm-message-received", ConfirmMessageReceivedRequest(node=node)),
        ("pull-messages", PullMessagesRequest(node=Node(node_id=999))),
        ("pull-messages", PullMessagesRequest()),
        ("send-node-heartbeat", SendNodeHeartbeatRequest(node=node, heartbeat_interval=float("nan"))),
        ("send-node-heartbeat", SendNodeHeartbeatRequest(node=node, heartbeat_interval=-1)),
        ("send-node-heartbeat", SendNodeHeartbeatRequest(node=Node(node_id=999), heartbeat_interval=20)),
        ("get-run", GetRunRequest(node=node, run_id=7)),
        ("get-fab", GetFabRequest(node=node, run_id=run, hash_str=NASTY[2])),
        ("get-fab", GetFabRequest(node=node)),
        ("deactivate-node", DeactivateNodeRequest(node_id=999)),
        ("unregister-node", UnregisterNodeFleetRequest(node_id=999)),
        ("activate-node", ActivateNodeRequest(public_key=signed_key(other), heartbeat_interval=20)),
        ("activate-node", ActivateNodeRequest()),
        ("register-node", RegisterNodeFleetRequest(public_key=b"no key")),
    ]
    calls: list[Call] = []
    for path, message in bodies:
        body = message.SerializeToString()
        calls.append(Call(FLEET + path, with_body(good, body), body))
        calls += [Call(FLEET + path, with_body(signed(make()), body), body) for make in KEYS.values()]
        calls.append(
            Call(FLEET + path, with_body(signed(open_key(0), at=datetime(2020, 1, 1, tzinfo=UTC)), body), body)
        )
        calls.append(Call(FLEET + path, with_body(good, body, "text/html; \x1b[31m"), body))
        calls.append(
            Call(FLEET + path, {**with_body(good, b"\x1f"), "content-encoding": "gzip", "host": "\xff"}, b"\x1f")
        )
        calls.append(Call(FLEET + path, {**good, "transfer-encoding": "chunked"}, body))
        calls.append(Call(FLEET + path, {**with_body(good, body), "content-length": "-1"}, body))
        calls.append(Call(FLEET + path, {**with_body(good, body), "content-length": str(60 * 2**20)}, body))
        calls.append(Call(FLEET + path, with_body(good, body), body, method="GET"))
        calls.append(Call(FLEET + path, with_body({**good, TIMESTAMP_HEADER: "9999-99-99\u00e9"}, body), body))
        for _ in range(5):
            noise = random.bytes(int(random.integers(1, 300)))
            calls.append(Call(FLEET + path, with_body(good, noise), noise))
    calls += [Call(path, with_body(good, b""), b"") for path in ["", "/", "*", "/v1/fleet/", FLEET + NASTY[1], "/docs"]]
    harmless = {"push-object", "pull-object", "confirm-message-received", "send-node-heartbeat", "pull-messages"}

    async def scene() -> None:
        for call in calls:
            status = await call.at(house._gate)
            what = (call.scope["path"], call.scope["headers"], call.body, status, call.answer)
            assert 400 <= status < 500 or (status == 200 and call.scope["path"].removeprefix(FLEET) in harmless), what
            assert len(call.answer) < 300, what

    with caplog.at_level(logging.WARNING):
        asyncio.run(scene())
    assert [record.getMessage() for record in caplog.records] == []
    assert len(calls) > 380 and len(house.told.calls) > 300


def test_a_body_is_read_only_when_its_header_is_in_order(house: Any):
    body = PullMessagesRequest(node=Node(node_id=house.node)).SerializeToString()
    stranger = ec.generate_private_key(ec.SECP384R1())
    large = {**signed(stranger), "content-type": "application/protobuf", "content-length": str(2**20)}
    for headers in (large, {**large, "content-length": str(60 * 2**20)}, {"transfer-encoding": "chunked"}):
        call = Call(FLEET + "push-object", headers, body)
        assert 400 <= asyncio.run(call.at(house._gate)) < 500
        assert call.reads == 0


# -- what is told of it


@pytest.fixture
def lines(federation: Path) -> Any:
    """Refusals, with a clock and what the user reads."""
    clock, told = Clock(), list[str]()
    refusals = Refusals(told.append, Roster.open(federation), clock)
    yield refusals, clock, told
    refusals.flush()


def test_refusals_are_counted_and_summed_up_whatever_varies(lines: Any):
    refusals, clock, told = lines
    for number in range(1500):
        refusals("127.0.0.1", b"", 404, f"/{number}")
    assert told == ["refused: a call of /0, which is not served here from 127.0.0.1"]
    clock.now += 60
    refusals("127.0.0.1", b"", 404, "/again")
    assert told[1:] == [
        "refused: 1,499 more refused calls in the last 60 s from 127.0.0.1 (1,499 different paths)",
        "refused: a call of /again, which is not served here from 127.0.0.1",
    ]
    told.clear()
    for number in range(30_000):  # other keys, addresses and ways to be refused
        refusals(f"2001:db8::{number:x}", b"key %d" % number, (401, 412, 431, 0)[number % 4], FLEET + "activate-node")
    assert len(told) <= 10
    assert len(refusals._told) + len(refusals._more) < 50
    ada = Roster.open(refusals._roster.folder).members[0]
    refusals("127.0.0.1", ada.public_key, 401, FLEET + "activate-node")
    assert "ada (client 0), whose signature does not hold" in told[-1]  # is not lost among them
    told.clear()
    refusals.flush()
    assert len(told) <= 6 and "10,000 or more other addresses" in told[-1]


# -- what came from outside, where it is shown


def is_clean(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


class _Reader:
    def __init__(self) -> None:
        self.file = io.StringIO()

    @property
    def text(self) -> str:
        """What was shown, without what rich itself draws with."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.file.getvalue())


ENTRY = Entry("iid", "fedavg", 0)


def row(reason: str) -> ClientRow:
    return ClientRow(*ENTRY, 1, 0, 1, 1, 1.0, 1.0, 1.0, "failed", reason)


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("kind", ["silent", "plain", "live"])
def test_no_screen_shows_what_a_terminal_obeys(nasty: str, kind: str):
    from rich.console import Console

    read = _Reader()
    console = Console(file=read.file, force_terminal=True, width=200, color_system=None)
    screen: Any = {"silent": Silent, "plain": Plain}[kind](read.file) if kind != "live" else Live(console)
    screen.step(nasty)
    screen.progress(nasty)
    screen.note(nasty)
    screen.warn(f"refused: {nasty}")
    screen.begin([ENTRY], 1, {})
    screen.client(row(nasty))
    screen.ended(ENTRY, nasty)
    screen.close()
    assert is_clean(read.text)
    assert not [line for line in read.text.split("\n") if line.startswith(("refused: nobody", "2026-11-28"))]
    assert sum(
        line.endswith(f"refused: {printable(nasty)}".rstrip()) for line in map(str.rstrip, read.text.split("\n"))
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_a_clients_terminal_and_log_show_no_more_of_what_its_server_says(terminal: bool, tmp_path: Path):
    from rich.console import Console

    read = _Reader()
    log_to(tmp_path / "client.jsonl")
    log = tmp_path / "client.jsonl"
    status = Status(Console(file=read.file, force_terminal=terminal, width=200, color_system=None), "here:1", log)
    for nasty in NASTY:
        status.trouble(nasty, expected=False)
        status.done(f"{nasty} 3", 0.1, nasty)
        status.over(nasty)
    status.begin(f"{''.join(NASTY)} 3")
    if status._spinner:
        until(lambda: "training" in read.file.getvalue(), "a live line")
    status.close()
    assert is_clean(read.text)
    content = (tmp_path / "client.jsonl").read_text("utf-8")
    assert is_clean(content)
    events = [json.loads(line) for line in content.splitlines()]
    assert [event["failure"] for event in events if "failure" in event] == NASTY  # a log loses nothing


@pytest.mark.parametrize("nasty", NASTY)
def test_logs_of_libraries_rows_pages_and_errors_are_printable(nasty: str, tmp_path: Path):
    log_to(tmp_path / "events.jsonl")
    for name in ("flwr", "uvicorn.error", "asyncio"):
        out = logging.StreamHandler(stream := io.StringIO())
        logging.getLogger(name).addHandler(out)
        logging.getLogger(name).error("[%s] failed", nasty)
        logging.getLogger(name).removeHandler(out)
        assert is_clean(stream.getvalue()) and stream.getvalue().count("\n") == 1
    with RunFolder.create(tmp_path / "run") as run:
        run.write_client(row(nasty))
        rows = run.read_clients()
    content = (tmp_path / "run" / "clients.csv").read_text("utf-8")
    assert is_clean(content) and content.count("\n") == 2
    assert [one.reason.strip() for one in rows] == [printable(nasty).strip()]
    for text in (str(UserError(nasty)), one_line(nasty), shown(nasty)):
        assert text.isprintable()


def test_a_page_shows_no_marks_of_others():
    from server.page_parts import page_environment

    page = page_environment().from_string("<p>{{ a }}</p>\n{{ b }}").render(a=NASTY[3], b="one\ntwo")
    assert page == "<p>?gnp.exe?</p>\none\ntwo"


# -- errors of the machine


@pytest.mark.parametrize(
    ("number", "helps", "status"),
    [
        (errno.ENOSPC, "make room", 2),
        (errno.EDQUOT, "make room", 2),
        (errno.EMFILE, "allow more open files (ulimit -n, or LimitNOFILE of the service)", PASSING),
        (errno.ENFILE, "allow more open files", PASSING),
        (errno.EROFS, "mend it", 2),
    ],
)
def test_an_error_of_the_machine_says_what_helps(number: int, helps: str, status: int, tmp_path: Path):
    def write() -> int:
        with writing(tmp_path):
            raise OSError(number, "why", "checkpoint")

    with pytest.raises(WriteError, match=re.escape(f"): {helps}")) as told:
        write()
    assert run_command("python -m server", write) == status
    assert ("make room" in str(told.value)) == (helps == "make room")
    assert remedy(OSError(number, "why"), "choose").startswith(helps if helps != "mend it" else "choose")

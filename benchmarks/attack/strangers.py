"""What strangers without an identity do to the open port. Bounded in time and count; loopback only.

Each attack is a function of a `Port`; it returns when it has done all that it does, or when the server has ended.
"""

import resource
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

LONGEST = 30.0  # seconds of one attack
_HEADER_BYTES = 130 * 10**6
_IDLE = 1100
_BODIES, _BODY_BYTES = 60, 8 * 2**20
_PATHS = 1500
_PIECE = b"x" * 2**20
# An escape sequence that clears the screen, a forged line, a mark that turns the direction of what follows.
NASTY = "\x1b[2J\x1b[31m/v1\r\nrefused: a forged line\u202egnp"


@dataclass(frozen=True)
class Port:
    """The open port of a server, on the loopback address.

    Attributes:
        port: TCP port.
        running: whether the server still runs.
    """

    port: int
    running: Callable[[], bool]

    def goes_on(self, since: float) -> bool:
        """Return whether an attack that began at this moment should go on."""
        return self.running() and time.monotonic() - since < LONGEST

    def plain(self) -> socket.socket:
        """Connect without a TLS handshake."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    @contextmanager
    def tls(self) -> Iterator[ssl.SSLSocket]:
        """Connect with TLS; strangers check no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with self.plain() as plain, context.wrap_socket(plain) as secured:
            yield secured

    def ask(self, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
        """Send one request; the status of the answer, 0 if there is none."""
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        with suppress(OSError), self.tls() as line:
            line.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            answer = line.recv(4096)
            return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0
        return 0


def long_header(port: Port) -> None:
    """Send one header of 130 MB in one connection, in TLS and before it."""
    since = time.monotonic()
    for secured in (True, False):
        with suppress(OSError), ExitStack() as opened:
            line = opened.enter_context(port.tls() if secured else port.plain())
            line.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
            for _ in range(_HEADER_BYTES // len(_PIECE)):
                if not port.goes_on(since):
                    return
                line.sendall(_PIECE)
            line.sendall(b"\r\n\r\n")
            line.recv(1)


def idle_connections(port: Port) -> None:
    """Hold 1,100 connections that never say a word."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * _IDLE)), hard))
    since, lines = time.monotonic(), list[socket.socket]()
    try:
        while len(lines) < _IDLE and port.goes_on(since):
            with suppress(OSError):
                lines.append(port.plain())
        while port.goes_on(since):
            time.sleep(0.1)
    finally:
        for line in lines:
            line.close()


def unfinished_bodies(port: Port) -> None:
    """Begin 60 requests with bodies of 8 MiB, send all but the last byte, and wait."""
    since, head = time.monotonic(), f"Content-Length: {_BODY_BYTES}\r\n\r\n".encode()
    with ExitStack() as opened:
        for _ in range(_BODIES):
            if not port.goes_on(since):
                return
            with suppress(OSError):
                line = opened.enter_context(port.tls())
                line.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\n" + head)
                for _ in range(_BODY_BYTES // len(_PIECE) - 1):
                    line.sendall(_PIECE)
                line.sendall(_PIECE[1:])
        while port.goes_on(since):
            time.sleep(0.1)


def nasty_paths(port: Port) -> None:
    """Ask for paths that a terminal would obey."""
    for path in (NASTY, f"/{NASTY}", f"/v1/fleet/{NASTY}", *(f"/%1B[2J%0D%0A{n}%E2%80%AE" for n in range(5))):
        port.ask(path.replace("\r\n", "\r"))
        port.ask(path)


def many_paths(port: Port) -> None:
    """Ask for 1,500 different paths that are not there."""
    since = time.monotonic()
    for number in range(_PATHS):
        if not port.goes_on(since):
            return
        port.ask(f"/nothing/{number}")


def malformed(port: Port) -> None:
    """Send keys of another kind, a body of 60 MB, and messages that mean nothing; nothing may be answered with 5xx.

    Raises:
        AssertionError: something was.
    """
    now = datetime.now(UTC).isoformat()
    x25519, p384 = X25519PrivateKey.generate().public_key(), generate_private_key(SECP384R1())

    def signed(public_key: bytes, signature: bytes) -> dict[str, str]:
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key).decode(),
            TIMESTAMP_HEADER: now,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
            "Content-Type": "application/protobuf",
        }

    calls = "register-node activate-node deactivate-node pull-messages push-messages pull-object push-object"
    calls += " confirm-message-received send-node-heartbeat get-run get-fab"
    keys = [
        signed(public_key_to_bytes(x25519), b"x"),  # type: ignore[arg-type]
        signed(public_key_to_bytes(p384.public_key()), sign_message(p384, now.encode())),
        {},
    ]
    wrong = []
    for call in calls.split():
        for headers in keys:
            for body in (b"", b"\x00" * 10, b"\x0a\x02\x08\x01", b"\xff" * 100):
                status = port.ask(f"/v1/fleet/{call}", body, headers)
                wrong += [(call, status)] if status >= 500 else []
    status = port.ask("/v1/fleet/push-object", b"x" * 60 * 10**6, keys[1])
    wrong += [("push-object of 60 MB", status)] if status >= 500 else []
    assert not wrong, f"answered with {wrong}"


ATTACKS: dict[str, Callable[[Port], None]] = {
    "a header of 130 MB": long_header,
    "1,100 idle connections, ulimit -n 1024": idle_connections,
    "60 unfinished bodies of 8 MiB": unfinished_bodies,
    "escape sequences in paths": nasty_paths,
    "1,500 different paths": many_paths,
    "malformed keys, bodies and messages": malformed,
}

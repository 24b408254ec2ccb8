"""What is read of a request at all: nothing but its header, before that says who asks and for how much.

Flower's clients sign the time of each request with their key and send both in the header (`flwr.supernode.
node_auth_http_interceptor`). So whose a request is can be known before its body is read.
"""

import asyncio
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.routers.fleet.node_auth import authenticate_node

from server.link.asgi import App, Receive, Scope, Send, again, answer, read_body
from server.link.visitors import Address

FLEET = "/v1/fleet/"
KEY = "fedarena.key"  # in a scope: the public key, PEM, that signed the request

_LARGEST = 8 * 2**20  # bytes of a request with a piece of an array; Flower's are of 5 MiB
_SMALL = 16 * 2**10  # bytes of any other
_LARGE_PATHS = {f"{FLEET}push-object", f"{FLEET}push-messages"}
_NEWCOMERS = {f"{FLEET}register-node", f"{FLEET}activate-node"}  # Flower says what is wrong with their keys
_PATHS = {path for method, path in PROTOBUF_REQUEST_TYPES if method == "POST" and path.startswith(FLEET)}
_ALL_BODIES, _BODIES_OF_ONE = 512 * 2**20, 64 * 2**20  # bytes in memory at once
_KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()
_ELSEWHERE = "only Flower's Fleet API is served here: start runs with python -m server"


class Refused(Exception):  # noqa: N818
    """A request that is not served, with its HTTP status and a line for whoever sent it."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Gate:
    """An ASGI application around another, which gets only whole requests of known size, each signed with some key.

    Args:
        app: gets them, with the key in the scope under `KEY`.
        is_known: whether a public key is of a node.
        welcome: told of a connection on which a known key was shown.
        refused: told of every request that was refused, here or by the app: address, public key (PEM, empty if none
            was sent), HTTP status, path.
    """

    def __init__(
        self,
        app: App,
        is_known: Callable[[bytes], bool],
        welcome: Callable[[Address], None],
        refused: Callable[[str, bytes, int, str], None],
    ) -> None:
        self._app, self._is_known, self._welcome, self._refused = app, is_known, welcome, refused
        self._budget = Budget(_ALL_BODIES, _BODIES_OF_ONE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        began = False

        async def watched(event: MutableMapping[str, Any]) -> None:
            nonlocal began
            if event["type"] == "http.response.start":
                began = True
                if event["status"] >= HTTPStatus.BAD_REQUEST:
                    self._refused(_address(scope), public_key(scope), event["status"], scope["path"])
            await send(event)

        try:
            await self._serve(scope, receive, watched)
        except Refused as refusal:
            await _refuse(refusal, scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - whatever was sent: one short answer
            if not began:
                text = f"this request cannot be served ({type(error).__name__})"
                await _refuse(Refused(status_of(error), text), scope, None, watched)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = checked_length(scope)
        key = signer(scope)
        known = key is not None and self._is_known(key)
        if key is None or not (known or scope["path"] in _NEWCOMERS):
            raise Refused(HTTPStatus.UNAUTHORIZED, "Invalid SuperNode authentication")
        if known and scope.get("client"):
            self._welcome(scope["client"])
        async with self._budget.taken(key, length if length > _SMALL else 0):
            body = await read_body(receive, length)
            if body is not None:  # else it hung up
                await self._app({**scope, KEY: key}, again(body, receive), send)


class Budget:
    """Memory that request bodies take, in all and for each key; who comes when it is spent waits, unread.

    Args:
        whole: bytes at once.
        each: bytes at once for one key.
    """

    def __init__(self, whole: int, each: int) -> None:
        self._whole, self._each = whole, each
        self._spent: Counter[bytes] = Counter()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, key: bytes, size: int) -> AsyncIterator[None]:
        """Have so many bytes while the context lasts."""
        if not size:
            yield
            return
        async with self._changed:
            await self._changed.wait_for(lambda: self._fits(key, size))
            self._spent[key] += size
        try:
            yield
        finally:
            async with self._changed:
                self._spent[key] -= size
                if not self._spent[key]:
                    del self._spent[key]
                self._changed.notify_all()

    def _fits(self, key: bytes, size: int) -> bool:
        return self._spent[key] + size <= self._each and self._spent.total() + size <= self._whole


def checked_length(scope: Scope) -> int:
    """The length of a request's body, from a header that is as it should be.

    Raises:
        Refused: it is not.
    """
    path, headers = scope["path"], dict(reversed(scope["headers"]))  # of several, the first counts, as for Flower
    if path not in _PATHS:
        raise Refused(HTTPStatus.NOT_FOUND, "no such call" if path.startswith(FLEET) else _ELSEWHERE)
    if scope["method"] != "POST":
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "calls are made with POST")
    if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != PROTOBUF_MEDIA_TYPE.encode():
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"calls are {PROTOBUF_MEDIA_TYPE}")
    length = headers.get(b"content-length", b"")
    if not length.isdigit():
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "calls say their Content-Length")
    if len(length) > 9 or int(length) > (_LARGEST if path in _LARGE_PATHS else _SMALL):
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large for this call")
    return int(length)


def signer(scope: Scope) -> bytes | None:
    """The public key, PEM, whose owner signed this request; None where nobody did, or another time than now."""
    key = public_key(scope)
    request = Request({**scope, "state": {}})
    request.state.protobuf_request = ActivateNodeRequest(public_key=key)  # what Flower's check compares the key with
    try:
        authenticate_node(request)
    except HTTPException:
        return None
    except Exception:  # noqa: BLE001 - of keys that are not on an elliptic curve
        return None
    return key


def public_key(scope: Scope) -> bytes:
    """The public key that the caller shows, PEM; empty when it shows none."""
    for name, value in scope["headers"]:
        if name == _KEY_HEADER:
            try:
                return b64decode(value, validate=True)
            except ValueError:
                return b""
    return b""


def status_of(error: Exception) -> HTTPStatus:
    """The HTTP status that fits an error in handling a request: the machine's, or, as a rule, what was sent."""
    mine = isinstance(error, OSError | MemoryError)
    return HTTPStatus.SERVICE_UNAVAILABLE if mine else HTTPStatus.BAD_REQUEST


async def _refuse(refusal: Refused, scope: Scope, receive: Receive | None, send: Send) -> None:
    """Answer, and hang up on a request of which more may come than is worth reading."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    small = receive is not None and length.isdigit() and len(length) < 9 and int(length) <= _SMALL
    if small:
        assert receive is not None
        await read_body(receive, _SMALL)
    await answer(send, refusal.status, str(refusal).encode(), close=not small)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""

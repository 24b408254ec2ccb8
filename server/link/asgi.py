"""What every ASGI application here needs: its types, reading a request's body, answering."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def read_body(receive: Receive, largest: int) -> bytes | None:
    """The request's body; None if the client hung up or sent too much."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        body += event.get("body", b"")
        if len(body) > largest:
            return None
        if not event.get("more_body", False):
            return bytes(body)


def bounded(receive: Receive, largest: int) -> Receive:
    """A `receive` that hangs up on a request that sends more than `largest` bytes."""
    left = largest

    async def limited() -> MutableMapping[str, Any]:
        nonlocal left
        event = await receive()
        left -= len(event.get("body", b""))
        return {"type": "http.disconnect"} if left < 0 else event

    return limited


def again(body: bytes) -> Receive:
    """A `receive` that gives a body that was already read."""
    events = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if events:
            return events.pop()
        await asyncio.Event().wait()  # the client stays on the line until it has its answer
        raise AssertionError("unreachable")

    return receive


async def answer(send: Send, status: int, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
    """Send a whole answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(content))],
        }
    )
    await send({"type": "http.response.body", "body": content})

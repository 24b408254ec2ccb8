"""What stands before Flower's Fleet API on the open port: polls that wait."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from flwr.proto.fleet_pb2 import PullMessagesRequest

from server.link.asgi import App, Receive, Scope, Send, again, read_body
from server.link.gate import FLEET, public_key
from server.link.lines import Lines

_ACTIVATE, _REGISTER = FLEET + "activate-node", FLEET + "register-node"
_PULL = FLEET + "pull-messages"
_LARGEST_POLL = 4096  # bytes of a request that names one node


class Door:
    """An ASGI application around Flower's.

    A poll of a node for which no message waits is held until one comes, so that nobody needs to ask often: a message
    is on its way at once, and an idle client costs one request in `hold` seconds.

    Args:
        app: Flower's Fleet API.
        waits: whether a message waits for a node.
        authentic: whether a poll comes from the node that it names; another is answered at once, by Flower.
        lines: told of every call that was found good.
        hold: the longest time in seconds that a poll is held; Flower's own SuperNode gives up after 30.
    """

    def __init__(
        self,
        app: App,
        waits: Callable[[int], bool],
        authentic: Callable[[Scope, PullMessagesRequest], bool],
        lines: Lines,
        hold: float = 5.0,
    ) -> None:
        self._app, self._waits, self._authentic = app, waits, authentic
        self._lines, self._hold = lines, hold
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bells: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._polling: Counter[int] = Counter()

    def is_polling(self, node: int) -> bool:
        """Whether a poll of this node is held right now: its process lives and can be reached."""
        return self._polling[node] > 0

    def ring(self, node: int) -> None:
        """A message waits for this node; callable from any thread."""
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bells[node].set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._loop = asyncio.get_running_loop()
        if scope["path"] == _PULL:
            body = await read_body(receive, _LARGEST_POLL)
            if body is None or not await self._wait(scope, body, receive):
                return
            receive = again(body, receive)
        if scope["path"] == _ACTIVATE:
            self._lines.calling(scope)
        await self._app(scope, receive, self._watched(scope, send))

    async def _wait(self, scope: Scope, body: bytes, receive: Receive) -> bool:
        """Until a message waits for the node that asks, or the time is over; False if it hung up."""
        try:
            poll = PullMessagesRequest.FromString(body)
        except Exception:  # noqa: BLE001 - Flower's own parser gives the answer to what cannot be parsed
            return True
        node = poll.node.node_id
        if self._waits(node) or not self._authentic(scope, poll):
            return True
        bell = self._bells[node]
        bell.clear()
        if self._waits(node):  # it came between the look and the clear
            return True
        rung, hung_up = asyncio.ensure_future(bell.wait()), asyncio.ensure_future(_hang_up(receive))
        self._polling[node] += 1
        try:
            await asyncio.wait({rung, hung_up}, timeout=self._hold, return_when=asyncio.FIRST_COMPLETED)
            return not hung_up.done()
        finally:
            self._polling[node] -= 1
            rung.cancel()
            hung_up.cancel()

    def _watched(self, scope: Scope, send: Send) -> Send:
        async def watched(event: MutableMapping[str, Any]) -> None:
            good = event["type"] == "http.response.start" and event["status"] == HTTPStatus.OK
            if good and scope["path"] != _REGISTER:
                self._lines.heard(scope, public_key(scope), activated=scope["path"] == _ACTIVATE)
            await send(event)

        return watched


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

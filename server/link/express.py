"""The calls that make up nearly all of a round, past the layers of a web framework, straight to Flower's handlers.

A message with the eight arrays of a small model is some 42 requests: each piece is one. Flower's application takes most
of its time in the layers around its handlers. What goes wrong here is given to it after all, for its answer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink.servicer.fleet import fleet_handlers
from starlette.concurrency import run_in_threadpool

from server.link.asgi import App, Receive, Scope, Send, again, answer, read_body
from server.link.gate import KEY
from server.link.state import LinkState

_LARGEST = 8 * 2**20  # bytes of a request
_SMALL = 2**16  # bytes of a request that is not worth a thread
_PUSH = "/v1/fleet/push-messages"


class _Call(NamedTuple):
    kind: Any  # the request's protobuf class
    handle: Callable[[Any], Any]


class Express:
    """An ASGI application around Flower's, which answers the most frequent calls itself.

    Args:
        app: Flower's Fleet API.
        state: what its handlers work on.
    """

    def __init__(self, app: App, state: LinkState) -> None:
        self._app, self._state = app, state
        store = state.object_store
        handlers = fleet_handlers
        self._calls = {
            "/v1/fleet/pull-object": _Call(PullObjectRequest, partial(handlers.pull_object, state=state)),
            "/v1/fleet/push-object": _Call(PushObjectRequest, partial(handlers.push_object, state=state)),
            "/v1/fleet/pull-messages": _Call(
                PullMessagesRequest, partial(handlers.pull_messages, state=state, store=store)
            ),
            "/v1/fleet/confirm-message-received": _Call(
                ConfirmMessageReceivedRequest, partial(handlers.confirm_message_received, state=state, store=store)
            ),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        call = self._calls.get(scope["path"])
        if call is None and scope["path"] != _PUSH:
            await self._app(scope, receive, send)
            return
        body = await read_body(receive, _LARGEST)
        if body is None:
            return
        if call is None:
            if _speaks_for_itself(body):
                await self._app(scope, again(body, receive), send)
            else:
                await answer(send, 403, b"a reply is pushed by the node that it comes from")
            return
        try:
            if len(body) > _SMALL:
                reply = await run_in_threadpool(self._serve, call, scope, body)
            else:
                reply = self._serve(call, scope, body)
        except Exception:  # noqa: BLE001 - Flower's application finds the same, and knows what to answer
            await self._app(scope, again(body, receive), send)
            return
        await answer(send, 200, reply, PROTOBUF_MEDIA_TYPE)

    def _serve(self, call: _Call, scope: Scope, body: bytes) -> bytes:
        message = call.kind.FromString(body)
        if not is_from(self._state, scope, message):
            raise PermissionError("another node's request")
        reply: bytes = call.handle(message).SerializeToString()
        return reply


def _speaks_for_itself(body: bytes) -> bool:
    """Whether a node pushes only what comes from itself, which Flower does not ask."""
    try:
        push = PushMessagesRequest.FromString(body)
    except Exception:  # noqa: BLE001 - Flower's own parser gives the answer to what cannot be parsed
        return True
    return all(message.metadata.src_node_id == push.node.node_id for message in push.messages_list)


def is_from(state: LinkState, scope: Scope, message: Any) -> bool:
    """Whether the node that a message names is that of the key which signed the request, see `server.link.gate`."""
    return bool(state.get_node_id_by_public_key(scope[KEY]) == message.node.node_id)

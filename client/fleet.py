"""The one adapter to Flower's Fleet protocol (flwr 1.41) for a client process that stays: pull, answer, pull.

Flower's SuperNode sleeps three seconds between two looks and starts a fresh process for every message. This speaks the
same protocol through Flower's own HTTP client, so a server cannot tell the two apart.
"""

import re
import secrets
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from task.errors import describe
from task.wire import PROCESS_HEADER

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_TIMEOUT = httpx.Timeout(12.0, connect=5.0)  # seconds; a held poll takes five, and a cut network should be noticed soon
_ONLINE_FOR = 10.0  # seconds between heartbeats that Flower is promised; the least it takes
_BEHIND, _AHEAD = 300, 5  # seconds that Flower lets a client's clock be behind and ahead of the server's


class Unreachable(Exception):  # noqa: N818
    """The server cannot be talked to right now; trying again makes sense."""


class Taken(Unreachable):
    """Another process takes part as this client."""


class Refused(Exception):  # noqa: N818
    """Trying again makes no sense.

    Attributes:
        by_server: whether the server said no to this client; else this client does not trust the server.
    """

    def __init__(self, text: str, *, by_server: bool = False) -> None:
        super().__init__(text)
        self.by_server = by_server


class Forgotten(Exception):  # noqa: N818
    """The server does not know this node, or this run, any more: it has started anew."""


class Fleet:
    """A node's connection to a SuperLink. Safe to use from several threads.

    Args:
        address: "HOST:PORT".
        key: this node's key; it signs every request.
        ca: PEM of who vouches for the server; None: plain HTTP.
        register: whether the node has to register its key itself, as with a SuperLink that does not authenticate.
    """

    def __init__(self, address: str, key: ec.EllipticCurvePrivateKey, ca: bytes | None, *, register: bool) -> None:
        self._address, self._register, self._secure = address, register, ca is not None
        self._key = public_key_to_bytes(key.public_key())
        self._client = FleetHttpClient(
            f"{'https' if ca else 'http'}://{address}",
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
                _Marked(),
            ],
            verify=_trusting(ca) if ca else True,
            timeout=_TIMEOUT,  # type: ignore[arg-type]  # passed on to httpx, which takes both
        )
        self._node = Node()
        self._closed = threading.Event()

    @property
    def node_id(self) -> int:
        """This node's id, 0 before it is known."""
        return int(self._node.node_id)

    def activate(self) -> int:
        """Say that this node is here; its id.

        Raises:
            Unreachable, Refused: with a line for the user.
        """
        if self._register:
            try:
                self._call(self._client.RegisterNode, RegisterNodeFleetRequest(public_key=self._key))
            except _Status as status:
                if status.code != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                    raise self._refusal(status) from None
        try:
            answer = self._call(
                self._client.ActivateNode,
                ActivateNodeRequest(public_key=self._key, heartbeat_interval=_ONLINE_FOR),
            )
        except _Status as status:
            raise self._refusal(status) from None
        self._node = Node(node_id=answer.node_id)
        TaskIdentity.node_id = TaskIdentity.task_id = answer.node_id
        return int(answer.node_id)

    def heartbeat(self) -> None:
        """A sign of life.

        Raises:
            Unreachable, Forgotten.
        """
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=_ONLINE_FOR)
        try:
            alive = self._call(self._client.SendNodeHeartbeat, request).success
        except _Status as status:
            raise Forgotten(str(status)) from None
        if not alive:
            raise Forgotten("the server does not know this node")

    def pull(self) -> Message | None:
        """The next message, whole; None if none came while the server held the line.

        Raises:
            Unreachable, Forgotten.
        """
        try:
            answer = self._call(self._client.PullMessages, PullMessagesRequest(node=self._node))
            if not answer.messages_list:
                return None
            header, tree = message_from_proto(answer.messages_list[0]), answer.message_object_trees[0]
            run_id, message_id = header.metadata.run_id, header.metadata.message_id
            contents = pull_objects(
                [part.object_id for part in iterate_object_tree(tree)],
                make_pull_object_fn_protobuf(
                    lambda request: self._call(self._client.PullObject, request), self._node, run_id
                ),
            )
            confirmation = ConfirmMessageReceivedRequest(node=self._node, run_id=run_id, message_object_id=message_id)
            self._call(self._client.ConfirmMessageReceived, confirmation)
        except _Status as status:
            raise Forgotten(str(status)) from None
        except ObjectPullError as error:
            raise Unreachable(str(error)) from None
        message = inflate_object_from_contents(message_id, contents)
        assert isinstance(message, Message)
        message.metadata.__dict__["_message_id"] = message_id
        return message

    def push(self, reply: Message, seconds: float) -> None:
        """Send a reply, whole; `seconds` is what the app took.

        Raises:
            Unreachable: and nothing is lost by sending it again.
            Forgotten: nobody waits for it any more.
        """
        run_id = reply.metadata.run_id
        try:
            with no_object_id_recompute():
                reply.metadata.__dict__["_message_id"] = reply.object_id
                header = remove_content_from_message(reply) if reply.has_content() else reply
                answer = self._call(
                    self._client.PushMessages,
                    PushMessagesRequest(
                        node=self._node,
                        messages_list=[message_to_proto(header)],
                        message_object_trees=[get_object_tree(reply)],
                        clientapp_runtime_list=[seconds],
                    ),
                )
                push_objects(
                    get_all_nested_objects(reply),
                    make_push_object_fn_protobuf(
                        lambda request: self._call(self._client.PushObject, request),
                        self._node,
                        run_id,
                        answer.session_id,
                    ),
                    object_ids_to_push=set(answer.objects_to_push),
                )
        except _Status as status:
            raise Forgotten(str(status)) from None
        except ObjectPushError as error:
            raise Unreachable(str(error)) from None

    def close(self) -> None:
        """Say goodbye and hang up; nothing is waited for long."""
        if not self._closed.is_set() and self._node.node_id:
            self._closed.set()
            with suppress(httpx.HTTPError, RuntimeError):  # the server may be gone, too
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
        self._client.close()

    def _call(self, method: Callable[[Asked], Answer], asked: Asked) -> Answer:
        try:
            return method(asked)
        except httpx.HTTPStatusError as error:
            raise _Status(error.response) from None
        except httpx.TransportError as error:
            raise self._told(error) from None
        except RuntimeError as error:  # httpx, of a client that was closed while this thread used it
            raise Unreachable(describe(error)) from None

    def _told(self, error: httpx.TransportError) -> Unreachable | Refused:
        """What a failure below HTTP means to the user."""
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            reason = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
            return Refused(f"the certificate of {self._address} is not to be trusted: {reason}; {self._mend(reason)}")
        if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER" in text:
            return Refused(
                f"{self._address} does not speak TLS: it is another service, or runs with --insecure, "
                "and then clients need --insecure as well"
            )
        if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and not self._secure and not self.node_id:
            return Refused(
                f"{self._address} hung up on plain HTTP: it wants TLS; start with --identity FILE, "
                "which its owner makes with: python -m server enroll"
            )
        reason = re.sub(r"^\[Errno -?\d+\] ", "", text).lower() or describe(error)
        return Unreachable(f"{self._address} cannot be reached ({reason})")

    def _mend(self, reason: str) -> str:
        """What helps against a certificate that is not trusted, from OpenSSL's words on it."""
        if "mismatch" in reason:
            host = self._address.rpartition(":")[0].strip("[]")
            return f"the server's owner adds this name with: python -m server renew --host {host}"
        if "expired" in reason or "not yet valid" in reason:
            return "if this machine's clock is right, the server's owner renews it with: python -m server renew"
        return "this identity belongs to another federation, or this is not its server: check --server and --identity"

    def _refusal(self, status: "_Status") -> Unreachable | Refused:
        if status.details:  # it may have lost power a moment ago, and the server not noticed yet
            return Taken(f"{self._address} says that this client is {status.details} from another process")
        if status.http >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Unreachable(str(status))
        if status.code == ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED:
            return Refused(
                f"{self._address} admits enrolled clients only: start with --identity FILE, "
                "which its owner makes with: python -m server enroll",
                by_server=True,
            )
        # An unknown key has another status, so this one leaves the clock; the server tells whole seconds of its own.
        if status.http == HTTPStatus.UNAUTHORIZED and not 1 - _BEHIND < status.clock_difference < _AHEAD - 1:
            return Refused(
                f"the clock of this machine is {status.clock_difference:+.0f} s off the server's: set it; "
                f"it may be {_BEHIND} s behind and {_AHEAD} s ahead"
            )
        return Refused(
            f"{self._address} refuses this identity: it is not enrolled there, or revoked; "
            "ask the server's owner for a new one (python -m server enroll)",
            by_server=True,
        )


class _Marked:
    """An interceptor that tells this process from another one of the same client."""

    def __init__(self) -> None:
        self._headers = {PROCESS_HEADER: secrets.token_hex(8)}

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        add_headers(context.request, self._headers)
        return call_next(context)


class _Status(Exception):  # noqa: N818
    """An HTTP status that says no."""

    def __init__(self, response: httpx.Response) -> None:
        error = FlowerError.from_json(response.text)
        self.http, self.code = response.status_code, error.code if error else None
        self.details = error.public_details if error else None
        super().__init__(error.message if error else f"HTTP status {response.status_code}")
        try:
            there = parsedate_to_datetime(response.headers["date"])
            self.clock_difference = (datetime.now(UTC) - there).total_seconds()
        except (KeyError, ValueError, TypeError):
            self.clock_difference = 0.0


def _trusting(ca: bytes) -> ssl.SSLContext:
    """TLS that trusts this authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca.decode("ascii"))
    return context

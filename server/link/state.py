"""Flower's message store, which wakes whoever waits and delivers again what a lost client had not answered."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.app import Message
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.supercore.constant import NodeStatus
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.federation import NoOpFederationManager

from server.link.limits import Limit, reply_limit
from task.errors import describe

TAKEN = "connected already"  # what a second process of the same client is told
_MOST_NODES = 100_000  # over the life of a server


@dataclass
class _Push:
    """A reply on its way: the message that it answers, and the bytes that may still come."""

    message_id: str
    left: int


@dataclass(frozen=True)
class _Parcel:
    """A message to a node, with everything that is needed to deliver it again."""

    header: Message  # without content
    tree: ObjectTree
    objects: dict[str, InflatableObject]
    limit: Limit  # of its reply

    @property
    def id(self) -> str:
        return self.header.metadata.message_id

    @property
    def node(self) -> int:
        return self.header.metadata.dst_node_id


class _Store(InMemoryObjectStore):
    """Flower's store of pieces, which tells when a message's own piece is gone: its receiver has confirmed it."""

    def __init__(self, deleted: Callable[[str], None]) -> None:
        super().__init__()
        self._deleted = deleted

    def delete(self, object_id: str) -> None:
        super().delete(object_id)
        self._deleted(object_id)


class LinkState(InMemoryLinkState):
    """What the SuperLink knows: nodes, messages, replies.

    A message stays its node's until the reply is here: delivered again when its delivery was not confirmed, or when the
    node starts anew. Training is a function of the message, so a second delivery changes no result.

    Args:
        to_node: told a node's id when a message waits for it, or it is refused from now on.
        from_node: told when a reply is complete.
        is_taken: whether another process than the one that calls takes part as a node.
    """

    def __init__(
        self, to_node: Callable[[int], None], from_node: Callable[[], None], is_taken: Callable[[int], bool]
    ) -> None:
        super().__init__(NoOpFederationManager(), _Store(self._confirmed))
        self._lock_object_push_sessions = self.lock  # Flower takes these two in either order, and could wait forever
        self._to_node, self._from_node, self._is_taken = to_node, from_node, is_taken
        self._waiting: defaultdict[int, dict[str, _Parcel]] = defaultdict(dict)  # by node; delivery not confirmed
        self._unanswered: dict[str, _Parcel] = {}
        self._pushes: dict[str, _Push] = {}  # by session
        self._refused: dict[str, str] = {}  # by message: why its reply is not taken
        self._seen: dict[int, float] = {}
        self._left: set[int] = set()
        self._expelled: set[int] = set()

    # -- the server's side

    def admit(self, public_key: bytes) -> int:
        """Let a node in; the id that it has for the life of this state."""
        node = self.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, 0)
        self.nodes[node].status = NodeStatus.OFFLINE  # so that messages can wait for it
        return node

    def create_node(self, *about: Any, **more: Any) -> int:
        """Register a key, of which anyone may bring new ones where nobody is enrolled.

        Raises:
            ValueError: the key is registered already, or there are too many.
        """
        if len(self.nodes) >= _MOST_NODES:
            raise ValueError("no more nodes can be registered")
        return int(super().create_node(*about, **more))

    def expel(self, node: int) -> None:
        """Refuse a node from now on, also the poll of it that may be held right now."""
        self._expelled.add(node)
        self.delete_node(NOOP_FLWR_AID, node)
        self._to_node(node)

    def post(self, message: Message) -> str:
        """Store a message for its node, whole, and wake the node's poll; the message's id.

        Call it inside Flower's `no_object_id_recompute`, so that arrays which several messages share are hashed once.
        """
        message.metadata.__dict__["_message_id"] = message.object_id
        parcel = _Parcel(
            remove_content_from_message(message),
            get_object_tree(message),
            get_all_nested_objects(message),
            reply_limit(message),
        )
        with self.lock:
            self._unanswered[parcel.id] = parcel
            self._store(parcel)
        self._to_node(parcel.node)
        return parcel.id

    def waits(self, node: int) -> bool:
        """Whether a message waits for this node."""
        return bool(self._waiting.get(node))  # asked of any number that a stranger says: leaves no entry

    def collect(self, message_id: str) -> Message | None:
        """The reply to a message, once: None while it is not complete, or if it is refused.

        Who sent it and what it answers is what the SuperLink has checked when it was announced; what its own pieces say
        of that is nobody's word.
        """
        with self.lock:
            reply_id = self.message_ins_id_to_message_res_id.get(message_id)
            if reply_id is None or not self._complete(reply_id):
                return None
            store = self.object_store
            tree = store.get_object_tree(reply_id)
            contents = {part.object_id: store.get(part.object_id) or b"" for part in iterate_object_tree(tree)}
            metadata = self.message_res_store[reply_id].metadata
            self.forget(message_id)
        try:
            sent = inflate_object_from_contents(reply_id, contents)
            if not isinstance(sent, Message):
                raise TypeError(f"a {type(sent).__name__}")
        except Exception as error:  # noqa: BLE001 - Flower's unpacking raises many kinds
            self._refused[message_id] = f"its reply cannot be unpacked ({describe(error)})"
            return None
        metadata.__dict__["_message_id"] = reply_id
        content, failure = (sent.content, None) if sent.has_content() else (None, sent.error)
        return make_message(metadata, content, failure)

    def refusal(self, message_id: str) -> str | None:
        """Why the reply to a message is not taken, if it is not."""
        return self._refused.get(message_id)

    def forget(self, message_id: str) -> None:
        """Drop a message and its reply, wherever they are."""
        with self.lock:
            parcel = self._unanswered.pop(message_id, None)
            if parcel:
                self._waiting[parcel.node].pop(message_id, None)
            self._drop_reply(message_id)
            self.object_store.delete(message_id)
            self.delete_messages({message_id})
            self._refused.pop(message_id, None)

    def seconds_since(self, node: int) -> float:
        """How long ago the node was heard of, infinite for one that never was."""
        seen = self._seen.get(node)
        return float("inf") if seen is None else time.monotonic() - seen

    def has_left(self, node: int) -> bool:
        """Whether the node has said goodbye and not come back, or was expelled."""
        return node in self._left or node in self._expelled

    def was_expelled(self, node: int) -> bool:
        """Whether the node is refused."""
        return node in self._expelled

    def activations(self) -> dict[int, str]:
        """The nodes that have come, each with the moment at which it started last."""
        with self.lock:
            return {node: str(info.last_activated_at) for node, info in self.nodes.items() if info.last_activated_at}

    # -- Flower's Fleet API

    def get_message_ins(self, node_id: int, limit: int | None, *, run_id: int | None = None) -> list[Message]:  # noqa: ARG002
        """The first message that the node has not confirmed, again if it asks again."""
        self._seen[node_id] = time.monotonic()
        with self.lock:
            return [parcel.header for parcel in list(self._waiting[node_id].values())[:1]]

    def acknowledge_node_heartbeat(self, node_id: int, heartbeat_interval: float) -> bool:
        """A sign of life."""
        self._seen[node_id] = time.monotonic()
        return bool(super().acknowledge_node_heartbeat(node_id, heartbeat_interval))

    def deactivate_node(self, node_id: int) -> bool:
        """A goodbye."""
        self._left.add(node_id)
        return bool(super().deactivate_node(node_id))

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """Take a node in, also one that is thought to be here: it was killed and has started anew.

        What it had not answered is delivered again.

        Raises:
            FlowerError: another process takes part as this node.
        """
        if self._is_taken(node_id):
            raise FlowerError(
                ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED,
                f"node {node_id} is connected already",
                public_details=TAKEN,
            )
        with self.lock:
            super().deactivate_node(node_id)
            if not super().activate_node(node_id, heartbeat_interval):
                return False
            self._left.discard(node_id)
            self._seen[node_id] = time.monotonic()
            for parcel in [p for p in self._unanswered.values() if p.node == node_id]:
                reply_id = self.message_ins_id_to_message_res_id.get(parcel.id)
                if reply_id is None or not self._complete(reply_id):
                    self._drop_reply(parcel.id)
                    self._store(parcel)
        return True

    def store_message_res(self, message: Message) -> str | None:
        """Store a reply, whose pieces may still be on their way."""
        self._seen[message.metadata.src_node_id] = time.monotonic()
        stored: str | None = super().store_message_res(message)
        return stored

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        """Store a reply; tell when nothing more is to come. What is no reply, or has too many pieces, is not taken."""
        answers, root = message.metadata.reply_to_message_id, message.metadata.message_id
        with self.lock:
            asked = self._unanswered.get(answers)
            if asked is None or asked.node != message.metadata.src_node_id or object_tree.object_id != root:
                self._cleanup_push_session(session_id, cleanup_messages=False)
                return False, []
            pieces = sum(1 for _ in iterate_object_tree(object_tree))
            if pieces > asked.limit.pieces:
                self._refuse(answers, f"its reply has {pieces} pieces, at most {asked.limit.pieces} are taken")
                self._cleanup_push_session(session_id, cleanup_messages=False)
                return False, []
            self._pushes[session_id] = _Push(answers, asked.limit.bytes)
        stored, missing = super().store_message_and_object_tree(message, object_tree, session_id)
        if not missing:
            self._cleanup_push_session(session_id, cleanup_messages=False)
        return stored, missing

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        """Store a piece of a reply, as long as the reply is not larger than it may be."""
        with self.lock:
            push = self._pushes.get(session_id)
            if push is None:
                return False
            push.left -= len(object_content)
            if push.left < 0:
                self._refuse(push.message_id, "its reply is more than twice as large as its message")
                return False
        return bool(super().store_object(run_id, session_id, object_id, object_content))

    def _cleanup_push_session(self, session_id: str, *, cleanup_messages: bool) -> None:
        self._pushes.pop(session_id, None)
        super()._cleanup_push_session(session_id, cleanup_messages=cleanup_messages)
        self._from_node()  # Flower ends a session when its last piece is stored, and no other one before the run's end

    # -- within

    def _refuse(self, message_id: str, reason: str) -> None:
        """Take no reply to this message any more."""
        self._drop_reply(message_id)
        self._refused[message_id] = reason
        self._from_node()

    def _store(self, parcel: _Parcel) -> None:
        """Pieces first: a node may ask for them as soon as the message is there."""
        run = parcel.header.metadata.run_id
        for piece in self.object_store.preregister(run, parcel.tree):
            self.object_store.put(piece, parcel.objects[piece].deflate())
        if self.store_message_ins(parcel.header) is None:
            return  # the node was expelled; the log says so
        self._waiting[parcel.node][parcel.id] = parcel

    def _confirmed(self, object_id: str) -> None:
        if parcel := self._unanswered.get(object_id):
            self._waiting[parcel.node].pop(object_id, None)

    def _complete(self, reply_id: str) -> bool:
        store = self.object_store
        try:
            tree = store.get_object_tree(reply_id)
        except NoObjectInStoreError:  # its pieces did not come in time; the client sends it again
            return False
        return all(store.get(part.object_id) for part in iterate_object_tree(tree))

    def _drop_reply(self, message_id: str) -> None:
        reply_id = self.message_ins_id_to_message_res_id.pop(message_id, None)
        if reply_id is not None:
            self.message_res_store.pop(reply_id, None)
            self.object_store.delete(reply_id)
            if session := self._object_push_session_by_root.get(reply_id):  # of a reply that came in part
                self._cleanup_push_session(session, cleanup_messages=False)

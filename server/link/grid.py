"""The ServerApp's side of the SuperLink: Flower's Grid, straight on the message store."""

import time
from collections.abc import Callable, Iterable

from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute
from flwr.supercore.run import Run

from server.link.state import LinkState

_LOOK_SECONDS = 0.05


class LinkGrid(Grid):
    """One contestant's grid. Its messages are told apart from other contestants' by a label that clients can show.

    Args:
        state: the SuperLink's.
        run: the run that all messages belong to.
        label: put before the round into each message's group id.
        lost: why a node is given up, None while there is hope; asked of nodes that owe a reply.
        wait: `wait(seconds)` returns when a reply may have come, at the latest after that time.
    """

    def __init__(
        self,
        state: LinkState,
        run: Run,
        label: str,
        lost: Callable[[int], str | None],
        wait: Callable[[float], None],
    ) -> None:
        self._state, self._run, self._label, self._lost, self._wait = state, run, label, lost, wait
        self._sent: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """The run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message; Flower would rather have it constructed."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes that are online."""
        return list(self._state.get_nodes(self._run.run_id))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Store messages for their nodes; their ids."""
        ids = []
        with no_object_id_recompute():
            for message in messages:
                message.metadata.group_id = f"{self._label} {message.metadata.group_id}".strip()
                ids.append(self._state.post(message))
                self._sent[ids[-1]] = make_message(metadata=message.metadata, content=message.content)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are complete, and an error in the place of one that is refused or whose node is given up."""
        replies = []
        for message_id in list(message_ids):
            sent = self._sent[message_id]
            reply = self._state.collect(message_id)
            if reply is None and (reason := self._state.refusal(message_id) or self._lost(sent.metadata.dst_node_id)):
                reply = Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason=reason), reply_to=sent)
            if reply is not None:
                self.drop([message_id])
                replies.append(reply)
        return replies

    def drop(self, message_ids: Iterable[str]) -> None:
        """Nobody waits for the replies to these messages any more."""
        for message_id in list(message_ids):
            self._state.forget(message_id)
            self._sent.pop(message_id, None)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, and pull until all replies are there or the time is over; for strategies that talk themselves."""
        until = float("inf") if timeout is None else time.monotonic() + timeout
        waiting, replies = set(self.push_messages(messages)), list[Message]()
        while waiting and time.monotonic() < until:
            new = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in new}
            replies += new
            if waiting and not new:
                self._wait(_LOOK_SECONDS)
        self.drop(waiting)
        return replies

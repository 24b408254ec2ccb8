"""Replies to messages that were pushed, as they come."""

import time
from collections.abc import Callable, Iterator

from flwr.app import Message

from server.federation import Federation
from server.stop import Stop, Stopped
from strategies.gate import Verdict

_LOOK_SECONDS = 0.05  # between two looks for replies where nothing wakes us earlier


def replies(
    federation: Federation,
    waiting: dict[str, int],
    report: Callable[[Verdict], None],
    stop: Stop,
    deadline: float | None = None,
) -> Iterator[Message]:
    """Replies as they come, whatever they are, until all are there or the deadline is over.

    Args:
        federation: who was asked.
        waiting: the node of each message, by the message's id; emptied.
        report: told of nodes from which no reply comes.
        stop: whether to wait any longer.
        deadline: seconds from now; None: no end.

    Raises:
        Stopped: if `stop` is set.
    """
    until = time.monotonic() + deadline if deadline else None
    try:
        while waiting:
            if stop.is_set():
                raise Stopped(stop.reason)
            messages = list(federation.grid.pull_messages(waiting))
            for message in messages:
                waiting.pop(message.metadata.reply_to_message_id, None)
                yield message
            if not messages:
                federation.wait(_LOOK_SECONDS)
            if until and waiting and time.monotonic() >= until:
                for node in waiting.values():
                    report(Verdict(node, "failed", f"no answer within the deadline of {deadline:g} s"))
                return
    finally:
        federation.drop(waiting)

"""`python -m benchmarks.attack.client KIND ...`: an enrolled client that lies; the rest is `python -m client`.

It changes each train reply after the client's own filter, just before the reply leaves. It serves to attack a server
of one's own on the loopback address.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode

from client import fleet
from client.__main__ import main
from task import wire
from task.leave import leave

Lie = Callable[[Message], Message]


def _claim(**facts: float) -> Lie:
    """Return a lie that replaces facts of a reply; names with underscores."""

    def lie(reply: Message) -> Message:
        said = reply.content.metric_records[wire.METRICS]
        claimed: dict[str, Any] = {**said, **{name.replace("_", "-"): value for name, value in facts.items()}}
        reply.content[wire.METRICS] = MetricRecord(claimed)
        return reply

    return lie


def _far(reply: Message) -> Message:
    """Send an update whose every value is 1e30: finite, and fatal to a mean."""
    arrays = wire.arrays_of(reply.content.array_records[wire.ARRAYS])
    far = [np.full_like(array, 1e30) for array in arrays]
    return _with(reply, RecordDict({**reply.content, wire.ARRAYS: wire.record(far)}))


def _with(reply: Message, content: RecordDict | None) -> Message:
    """Return the same reply with another content; None: the error of a client whose training failed."""
    error = None if content else Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "RuntimeError")
    return make_message(reply.metadata, content, error)


LIES: dict[str, Lie] = {
    "failure": lambda reply: _with(reply, None),
    "examples": _claim(num_examples=-5),
    "steps": _claim(local_steps=-3),
    "large-norm": _claim(local_norm=1e300),
    "epsilon": _claim(num_examples=-5, dp_epsilon=float("inf")),
    "small-norm": _claim(local_norm=1e-300),
    "far": _far,
}


def _lie(lie: Lie) -> None:
    """Have every train reply of this process changed just before it leaves."""
    honest = fleet.Fleet.push

    def push(self: fleet.Fleet, reply: Message, seconds: float) -> None:
        trained = reply.has_content() and wire.ARRAYS in reply.content.array_records
        honest(self, lie(reply) if trained else reply, seconds)

    fleet.Fleet.push = push  # type: ignore[method-assign]


if __name__ == "__main__":
    _lie(LIES[sys.argv[1]])
    leave(main(sys.argv[2:]))

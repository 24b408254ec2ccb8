"""The only reader and writer of Flower messages' records: both ends agree here on keys and types."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from task.update import Arrays, Facts, Update

# Flower's own strategies look for these keys; keep theirs.
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
NUM_EXAMPLES, DP_EPSILON = "num-examples", "dp-epsilon"
NEEDS = "needs"  # in a train message's configuration: the fields of `Update` that the strategy needs beside the arrays
# What a client may ever be asked for by it; other names are not answered.
ASKABLE = {"num_examples": NUM_EXAMPLES, "local_norm": "local-norm"}
# The documented facts of a reply: nothing else leaves a client (`client.privacy`).
TRAIN_FACTS = (NUM_EXAMPLES, "client", "local-steps", "local-norm", "train-loss", "seconds", "cpu-seconds")
EVALUATE_FACTS = (NUM_EXAMPLES, "client", "loss", "accuracy")

PROCESS_HEADER = "x-fedarena-process"  # drawn at random at a client's start; tells two processes of one client apart

Scalars = dict[str, Any]  # values of type bool, int, float, str, bytes


def record(arrays: Arrays) -> ArrayRecord:
    """Arrays as Flower sends them; keys are their positions."""
    return ArrayRecord([np.asarray(array) for array in arrays])  # a NumPy scalar would be refused


def arrays_of(arrays: ArrayRecord) -> Arrays:
    """The arrays of a record in order, as fresh writable copies."""
    return arrays.to_numpy_ndarrays()


def array_bytes(message: Message) -> int:
    """Bytes of the model arrays in a message, 0 for an error reply."""
    if not message.has_content():
        return 0
    return sum(len(array.data) for part in message.content.array_records.values() for array in part.values())


def read(message: Message) -> tuple[Arrays, Scalars]:
    """Client side: the global arrays and the configuration of a train or evaluate message."""
    return arrays_of(message.content.array_records[ARRAYS]), dict(message.content.config_records[CONFIG])


def reply(message: Message, arrays: Arrays, num_examples: int, facts: Mapping[str, Any]) -> Message:
    """Client side: the answer to a train message, from what `NumPyClient.fit` returned."""
    content = RecordDict({ARRAYS: record(arrays), METRICS: metrics(num_examples, facts)})
    return Message(content=content, reply_to=message)


def reply_metrics(message: Message, loss: float, num_examples: int, facts: Mapping[str, Any]) -> Message:
    """Client side: the answer to an evaluate message, from what `NumPyClient.evaluate` returned."""
    return Message(content=RecordDict({METRICS: metrics(num_examples, {"loss": loss, **facts})}), reply_to=message)


def metrics(num_examples: int, facts: Mapping[str, Any]) -> MetricRecord:
    """Facts as Flower sends them: numbers only, names with hyphens as Flower spells them."""
    return MetricRecord(
        {NUM_EXAMPLES: num_examples, **{name.replace("_", "-"): value for name, value in facts.items()}}
    )


def read_reply(message: Message) -> tuple[Update, Facts]:
    """Server side: the update and the facts of a train reply; nothing is trusted yet.

    Raises:
        ValueError: for a reply that has not exactly one record of arrays and one of metrics, arrays that cannot be
            read, or a fact that is not one number.
    """
    content = message.content
    if len(content.array_records) != 1 or len(content.metric_records) != 1:
        raise ValueError(
            f"expected one record of arrays and one of metrics, got {len(content.array_records)} and "
            f"{len(content.metric_records)}"
        )
    facts = cast(Mapping[str, Any], next(iter(content.metric_records.values())))
    for name in (*TRAIN_FACTS, DP_EPSILON):
        if isinstance(facts.get(name), list):
            raise ValueError(f"{name} is a list where one number is expected")
    try:
        arrays = arrays_of(next(iter(content.array_records.values())))
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise ValueError(f"the arrays cannot be read: {error}") from error
    client = facts.get("client")
    if not isinstance(client, int | None):
        raise ValueError(f"client must be an integer, not {client!r}")
    # A rule that needs the number never sees the 1: the gate refuses replies without it (`strategies.base.screen`).
    update = Update(arrays, facts.get(NUM_EXAMPLES, 1), facts.get("local-norm"), client)
    return update, Facts(
        num_examples=facts.get(NUM_EXAMPLES),
        local_steps=facts.get("local-steps"),
        train_loss=facts.get("train-loss"),
        seconds=facts.get("seconds"),
        cpu_seconds=facts.get("cpu-seconds"),
        dp_epsilon=facts.get(DP_EPSILON),
    )


def train_message(node: int, arrays: ArrayRecord, config: ConfigRecord) -> Message:
    """A train message, as Flower's strategies make it."""
    return Message(RecordDict({ARRAYS: arrays, CONFIG: config}), dst_node_id=node, message_type="train")


def train_config(values: Mapping[str, Any]) -> ConfigRecord:
    """The configuration of a round's messages."""
    return ConfigRecord(dict(values))

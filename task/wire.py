"""The only reader and writer of Flower messages' records: both ends agree here on keys and types."""

from collections.abc import Mapping
from copy import copy
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from task.npy import read_npy, read_npy_like
from task.update import Arrays, Facts, Update

# Flower's own strategies look for these keys; keep theirs.
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
NUM_EXAMPLES, DP_EPSILON = "num-examples", "dp-epsilon"
MEASURE = "measure"  # in a train message's configuration: test on the own training data before and after training
WORK_SHARE = "work-share"  # in a train message's configuration: make only this share of the planned local steps
PROXIMAL_MU = "proximal-mu"  # in a train message's configuration: mu of FedProx
CORRECTION = "correction"  # a record of arrays in a train message: what to add to every gradient (SCAFFOLD)
NEEDS = "needs"  # in a train message's configuration: the fields of `Update` that the strategy needs beside the arrays
# What a client may ever be asked for by it; other names are not answered.
ASKABLE = {"num_examples": NUM_EXAMPLES, "local_norm": "local-norm", "local_steps": "local-steps"}
# The documented facts of a reply: nothing else leaves a client (`client.privacy`).
TRAIN_FACTS = (
    NUM_EXAMPLES,
    "client",
    "local-steps",
    "local-norm",
    "train-loss",
    "seconds",
    "cpu-seconds",
    "accuracy-before",
    "accuracy-after",
)
EVALUATE_FACTS = (NUM_EXAMPLES, "client", "loss", "accuracy")

_NUMPY = "numpy.ndarray"  # how Flower calls an array that np.save has written

PROCESS_HEADER = "x-fedarena-process"  # drawn at random at a client's start; tells two processes of one client apart

Scalars = dict[str, Any]  # values of type bool, int, float, str, bytes


def record(arrays: Arrays) -> ArrayRecord:
    """Arrays as Flower sends them; keys are their positions."""
    return ArrayRecord([np.asarray(array) for array in arrays])  # a NumPy scalar would be refused


def arrays_of(arrays: ArrayRecord) -> Arrays:
    """The arrays of a record in order, as fresh writable copies.

    Raises:
        ValueError: one of them is no array as `np.save` writes it.
    """
    return [read_npy(array.data) for array in arrays.values()]


def array_bytes(message: Message) -> int:
    """Bytes of the model arrays in a message, 0 for an error reply."""
    if not message.has_content():
        return 0
    return sum(map(record_bytes, message.content.array_records.values()))


def record_bytes(arrays: ArrayRecord) -> int:
    """Bytes of arrays as they are sent."""
    return sum(len(array.data) for array in arrays.values())


def read(message: Message) -> tuple[Arrays, Scalars]:
    """Client side: the global arrays and the configuration of a train or evaluate message."""
    return arrays_of(message.content.array_records[ARRAYS]), dict(message.content.config_records[CONFIG])


def correction_of(message: Message) -> dict[int, np.ndarray]:
    """Client side: what a train message tells to add to the gradients, by the position of the array; mostly nothing.

    Raises:
        ValueError: for a name that is no position.
    """
    sent = message.content.array_records.get(CORRECTION) or ArrayRecord()
    return {int(position): read_npy(array.data) for position, array in sent.items()}


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


def read_reply(message: Message, like: Arrays) -> tuple[Update, Facts]:
    """Server side: the update and the facts of a train reply; nothing else is trusted yet.

    Args:
        message: the reply.
        like: the global arrays. An array that says that it is of another kind or size is not even read.

    Raises:
        ValueError: for a reply that has not exactly one record of arrays and one of metrics, arrays of another number,
            shape, dtype or size than the model's. Facts are as they were sent: `strategies.gate` checks them.
    """
    content = message.content
    if len(content.array_records) != 1 or len(content.metric_records) != 1:
        raise ValueError(
            f"expected one record of arrays and one of metrics, got {len(content.array_records)} and "
            f"{len(content.metric_records)}"
        )
    facts = cast(Mapping[str, Any], next(iter(content.metric_records.values())))
    sent = list(next(iter(content.array_records.values())).values())
    if len(sent) != len(like):
        raise ValueError(f"{len(sent)} arrays where the model has {len(like)}")
    arrays = [_read_array(i, array, expected) for i, (array, expected) in enumerate(zip(sent, like, strict=True))]
    # A rule that needs the number never sees the 1: the gate refuses replies without it (`strategies.gate.screen`).
    update = Update(
        arrays,
        facts.get(NUM_EXAMPLES, 1),
        facts.get("local-norm"),
        facts.get("client"),
        facts.get("local-steps"),
    )
    return update, Facts(
        num_examples=facts.get(NUM_EXAMPLES),
        local_steps=facts.get("local-steps"),
        train_loss=facts.get("train-loss"),
        seconds=facts.get("seconds"),
        cpu_seconds=facts.get("cpu-seconds"),
        accuracy_before=facts.get("accuracy-before"),
        accuracy_after=facts.get("accuracy-after"),
        dp_epsilon=facts.get(DP_EPSILON),
    )


def _read_array(i: int, array: Array, like: np.ndarray) -> np.ndarray:
    if array.stype != _NUMPY:
        raise ValueError(f"array {i} cannot be read: it is packed as {array.stype!r} and not as {_NUMPY!r}")
    return read_npy_like(i, array.data, like)


def train_message(node: int, arrays: ArrayRecord, config: ConfigRecord) -> Message:
    """A train message, as Flower's strategies make it."""
    return Message(RecordDict({ARRAYS: arrays, CONFIG: config}), dst_node_id=node, message_type="train")


def alike(replies: list[Message]) -> list[Message]:
    """The same replies with the same names for their arrays and facts, without what only some of them say.

    Flower's own strategies end the run over a reply whose names are not those of the others.

    Args:
        replies: that passed the gate, each with one record of arrays and one of metrics.
    """
    said = [next(iter(reply.content.metric_records.values())) for reply in replies]
    shared = [name for name in TRAIN_FACTS if all(isinstance(facts.get(name), int | float) for facts in said)]
    same = []
    for reply, facts in zip(replies, said, strict=True):
        (arrays,) = reply.content.array_records.values()
        named = ArrayRecord({str(i): array for i, array in enumerate(arrays.values())})
        content = RecordDict({ARRAYS: named, METRICS: MetricRecord({name: facts[name] for name in shared})})
        same.append(_holding(reply, content))
    return same


def with_arrays(message: Message, arrays: Arrays) -> Message:
    """The same reply with other arrays under the same keys; the one that came stays as it is."""
    ((name, came),) = message.content.array_records.items()
    sent = ArrayRecord({key: Array(array) for key, array in zip(came, arrays, strict=True)})
    return _holding(message, RecordDict({**message.content, name: sent}))


def _holding(reply: Message, content: RecordDict) -> Message:
    """A reply to the same message, from the same node, with another content."""
    other = copy(reply)
    other.content = content
    return other


def with_config(message: Message, values: Mapping[str, Any]) -> Message:
    """The same train message with other values in its configuration, which Flower's strategies share between nodes."""
    return _with(
        message, CONFIG, ConfigRecord({**message.content.config_records.get(CONFIG, ConfigRecord()), **values})
    )


def with_correction(message: Message, correction: Mapping[int, np.ndarray]) -> Message:
    """The same train message with arrays to be added to the gradients, by the position of the array in the model."""
    return _with(message, CORRECTION, ArrayRecord({str(i): Array(array) for i, array in correction.items()}))


def _with(message: Message, name: str, part: ArrayRecord | ConfigRecord) -> Message:
    metadata = message.metadata
    changed = Message(
        RecordDict({**message.content, name: part}),
        dst_node_id=metadata.dst_node_id,
        message_type=metadata.message_type,
    )
    changed.metadata.group_id = metadata.group_id
    return changed


def train_config(values: Mapping[str, Any]) -> ConfigRecord:
    """The configuration of a round's messages."""
    return ConfigRecord(dict(values))

"""Replies as a broken or hostile client may send them: a valid one, with something about it changed."""

import copy
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from task import wire

Mutant = Callable[[Message, np.random.Generator], Message | None]

_NUMBERS = [0, -1, 1, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63), 0.5, -0.0, 1e308, 5e-324, 1e-300]
_NUMBERS += [float("nan"), float("inf"), -float("inf")]
_VALUES = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 1e30, -0.0]
_DTYPES = ["f2", "f4", ">f4", "f8", "c8", "i4", "u8", "?", "S4", "U2", "V4", "M8[s]", "m8[s]", "O"]


def _arrays(reply: Message) -> ArrayRecord:
    return reply.content.array_records[wire.ARRAYS]


def _one(reply: Message, random: np.random.Generator) -> Array:
    return list(_arrays(reply).values())[random.integers(len(_arrays(reply)))]


def _packed(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = BytesIO()
    np.lib.format.write_array(stream, array, version=version, allow_pickle=array.dtype == object)
    return stream.getvalue()


def value(reply: Message, random: np.random.Generator) -> None:
    """One value of an array."""
    one = _one(reply, random)
    array = one.numpy()
    if array.size:
        array.reshape(-1)[random.integers(array.size)] = random.choice(_VALUES)
    one.data = _packed(array)


def values(reply: Message, random: np.random.Generator) -> None:
    """All values of an array."""
    one = _one(reply, random)
    with np.errstate(all="ignore"):
        one.data = _packed(one.numpy() * np.float32(random.choice(_VALUES)))


def shape(reply: Message, random: np.random.Generator) -> None:
    """Another shape: of as many values, or of others."""
    one = _one(reply, random)
    array = one.numpy()
    flat = array.reshape(-1)
    shapes = [flat, array[None], flat[:1], np.tile(flat, 3), flat[:0]]
    one.data = _packed([*shapes, np.float32(1)[()], array.T][random.integers(7)] if array.size else array[None])


def dtype(reply: Message, random: np.random.Generator) -> None:
    """Another dtype, pickled objects among them."""
    one = _one(reply, random)
    kind = np.dtype(str(random.choice(_DTYPES)))
    one.data = _packed(np.zeros(one.numpy().shape, kind))


def header(reply: Message, random: np.random.Generator) -> None:
    """A header that says what is not so."""
    said = [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2.5), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': ('<f4', (1000000,)), 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "(" * 200 + ")" * 200 + "), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 10 ** 10 ** 10, }",
        "__import__('os').system('true')",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }",
        "\x00" * 40,
    ]
    text = said[random.integers(len(said))].encode()
    length = [len(text), 0, 2**16 - 1][random.choice(3, p=[0.8, 0.1, 0.1])]
    body = bytes(random.integers(0, 60, dtype=np.uint8))
    _one(reply, random).data = b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + text + body


def order(reply: Message, random: np.random.Generator) -> None:
    """The same array in another order of bytes, or by another version of the format: harmless."""
    one = _one(reply, random)
    array = one.numpy()
    one.data = [_packed(np.asfortranarray(array)), _packed(array, (2, 0)), _packed(array, (3, 0))][random.integers(3)]


def data(reply: Message, random: np.random.Generator) -> None:
    """Bytes of an array: flipped, cut off, added, doubled, none."""
    one = _one(reply, random)
    raw, at = bytearray(one.data), int(random.integers(max(1, len(one.data))))
    match int(random.integers(6)):
        case 0 if raw:
            raw[at] ^= 1 << int(random.integers(8))
        case 1:
            del raw[at:]
        case 2:
            raw += bytes(random.integers(0, 256, int(random.integers(1, 99)), dtype=np.uint8))
        case 3:
            raw *= 2
        case 4:
            raw = bytearray(random.integers(0, 256, len(raw), dtype=np.uint8))
        case _:
            raw.clear()
    one.data = bytes(raw)


def packing(reply: Message, random: np.random.Generator) -> None:
    """What Flower says of an array beside its bytes."""
    one = _one(reply, random)
    one.stype, one.dtype = ["", "torch", "pickle", "numpy.ndarray"][random.integers(4)], "object"
    one.shape = (2**40,)


def count(reply: Message, random: np.random.Generator) -> None:
    """An array more, less, or none."""
    arrays = _arrays(reply)
    names = list(arrays)
    match int(random.integers(3)):
        case 0:
            del arrays[names[random.integers(len(names))]]
        case 1:
            arrays["extra"] = copy.deepcopy(arrays[names[0]])
        case _:
            for name in names:
                del arrays[name]


def number(reply: Message, random: np.random.Generator) -> None:
    """One fact has another number."""
    facts = reply.content.metric_records[wire.METRICS]
    name = str(random.choice([*wire.TRAIN_FACTS, wire.DP_EPSILON]))
    picked: Any = _NUMBERS[random.integers(len(_NUMBERS))]
    facts[name] = [picked, picked] if random.random() < 0.2 else picked


def missing(reply: Message, random: np.random.Generator) -> None:
    """A fact is not there."""
    facts = reply.content.metric_records[wire.METRICS]
    del facts[str(random.choice(list(facts)))]


def records(reply: Message, random: np.random.Generator) -> None:
    """Another set of records."""
    arrays, metrics = _arrays(reply), reply.content.metric_records[wire.METRICS]
    sets: list[dict[str, Any]] = [
        {},
        {wire.ARRAYS: arrays},
        {wire.METRICS: metrics},
        {wire.ARRAYS: metrics, wire.METRICS: arrays},
        {wire.ARRAYS: arrays, wire.METRICS: metrics, "more": arrays},
        {wire.ARRAYS: arrays, wire.METRICS: metrics, "more": MetricRecord()},
        {wire.ARRAYS: arrays, wire.METRICS: metrics, "more": ConfigRecord({"a": b"\x80\x04."})},
        {wire.ARRAYS: ArrayRecord(), wire.METRICS: MetricRecord()},
    ]
    reply.content = RecordDict(sets[random.integers(len(sets))])


def sender(reply: Message, random: np.random.Generator) -> None:
    """From somebody else, to another message, in another round, of another kind."""
    metadata = reply.metadata.__dict__
    match int(random.integers(5)):
        case 0:
            metadata["_src_node_id"] = int(random.choice([0, 1, 101, 102, 2**62, -1]))
        case 1:
            metadata["_reply_to_message_id"] = str(random.choice(["", "1-0", "1-1", "0-0", "x" * 999]))
        case 2:
            metadata["_group_id"] = str(random.choice(["", "0", "999", "\n"]))
        case 3:
            metadata["_message_type"] = str(random.choice(["evaluate", "query", "system"]))
        case _:
            metadata["_run_id"] = metadata["_dst_node_id"] = 2**60


def failure(reply: Message, random: np.random.Generator) -> Message:
    """An error with any code and text."""
    reason = [None, "", "a\nb" * 500, "\udcff", "[31mred"][random.integers(5)]
    return Message(Error(code=int(random.choice([0, 1, -5, 2**31])), reason=reason), reply_to=reply_target(reply))


def reply_target(reply: Message) -> Message:
    """A message that this reply would answer."""
    metadata = reply.metadata
    asked = Message(RecordDict(), dst_node_id=metadata.src_node_id, message_type="train")
    asked.metadata.__dict__["_message_id"] = metadata.reply_to_message_id
    return asked


MUTANTS: list[Mutant] = [
    *(value, values, shape, dtype, header, order, data, packing, count, number, missing, records, sender, failure),
    *(number, data, value),  # more often
]


def mutated(reply: Message, random: np.random.Generator) -> Message:
    """A copy of the reply with one to three things changed."""
    result = copy.deepcopy(reply)
    for _ in range(int(random.integers(1, 4))):
        try:
            result = MUTANTS[random.integers(len(MUTANTS))](result, random) or result
        except Exception:  # noqa: BLE001 - what an earlier change left cannot be changed like this
            continue
    return result

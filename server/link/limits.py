"""How large a reply may be, by the arrays of the message that it answers."""

from dataclasses import dataclass

from flwr.app import Message
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

# A reply holds the model's arrays once; other clients may cut them into smaller pieces, or pack them otherwise.
_TIMES = 2
_SPARE_BYTES, _SPARE_PIECES = 2**20, 64  # for everything that is no array: records of metrics, the message itself
_BYTES_OF_A_PIECE = 512  # its header, and its name and description in the pieces above it


@dataclass(frozen=True)
class Limit:
    """The most that a reply may have.

    Attributes:
        pieces: objects in its tree, as often as they occur there.
        bytes: of these objects together.
    """

    pieces: int
    bytes: int


def reply_limit(message: Message) -> Limit:
    """Return the limit of the reply to a message.

    It follows from the number and the sizes of the arrays in the message. The pieces that were sent would be too few to
    go by: equal ones travel once, and a model has many equal arrays before its first round and few after it.

    Args:
        message: as it is sent, with its content.
    """
    records = message.content.array_records.values() if message.has_content() else ()
    sizes = [len(array.data) for record in records for array in record.values()]
    pieces = sum(1 + max(1, -(-size // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE)) for size in sizes)
    return Limit(_TIMES * pieces + _SPARE_PIECES, _TIMES * (sum(sizes) + _BYTES_OF_A_PIECE * pieces) + _SPARE_BYTES)

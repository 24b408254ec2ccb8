"""What server and clients say to each other besides training: who is there, who is refused, when it is over.

These travel as Flower messages of type `query`, so any SuperNode that runs the ClientApp understands them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flwr.app import ConfigRecord, Message, RecordDict

from task.errors import shown
from task.limits import check_number

Topic = Literal["hello", "refused", "over"]

_RECORD = "greeting"
_MOST_SIDES = 16  # of an example


@dataclass(frozen=True)
class Greeting:
    """What the server says.

    Attributes:
        topic: `hello` asks who is there; `refused` says why this client may not take part; `over` ends a run.
        text: for the user.
        config: of the train messages to come, so that a client can prepare; empty where there are none.
    """

    topic: Topic
    text: str = ""
    config: Mapping[str, Any] | None = None

    def message(self, node: int) -> Message:
        """As a Flower message to a node."""
        records = RecordDict({_RECORD: ConfigRecord({"topic": self.topic, "text": self.text})})
        if self.config:
            records["config"] = ConfigRecord(dict(self.config))
        return Message(records, dst_node_id=node, message_type="query")

    @classmethod
    def read(cls, message: Message) -> "Greeting":
        """From a Flower message.

        Raises:
            KeyError: it is none.
        """
        records = message.content.config_records
        said: Any = records[_RECORD]
        return cls(said["topic"], str(said["text"]), dict(records["config"]) if "config" in records else None)


@dataclass(frozen=True)
class Presence:
    """What a client says of itself: enough to see that its data fit the others', nothing about their content.

    Attributes:
        client: the number of its shard.
        input_shape: one example as the model sees it.
        num_classes: labels are in 0..num_classes-1; 0 where the shard does not say.
        num_examples: no update of it may count for more; 0: it does not say.
        tensorflow: its version; another one may come to other bits.
    """

    client: int
    input_shape: tuple[int, ...]
    num_classes: int
    num_examples: int
    tensorflow: str

    def reply(self, message: Message) -> Message:
        """As the answer to a greeting."""
        said = ConfigRecord(
            {
                "client": self.client,
                "input-shape": list(self.input_shape),
                "num-classes": self.num_classes,
                "num-examples": self.num_examples,
                "tensorflow": self.tensorflow,
            }
        )
        return Message(RecordDict({_RECORD: said}), reply_to=message)

    @classmethod
    def read(cls, reply: Message) -> "Presence":
        """From a client's answer.

        Raises:
            ValueError: it is none.
        """
        try:
            said: Any = reply.content.config_records[_RECORD]
            presence = cls(
                said["client"],
                tuple(said["input-shape"]),
                said["num-classes"],
                said["num-examples"],
                shown(said["tensorflow"], 40),
            )
            presence.check()
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"an answer that says nothing known ({shown(str(error))})") from error
        return presence

    def check(self) -> None:
        """Refuse, with a ValueError, a number that there cannot be (`task.limits`)."""
        if len(self.input_shape) > _MOST_SIDES:
            raise ValueError(f"input_shape has {len(self.input_shape)} sides")
        for name in ("client", "num_classes", "num_examples"):
            check_number(name, getattr(self, name))
        for side in self.input_shape:
            check_number("input_shape", side)

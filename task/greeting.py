"""What server and clients say to each other besides training: who is there, who is refused, when it is over.

These travel as Flower messages of type `query`, so any SuperNode that runs the ClientApp understands them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flwr.app import ConfigRecord, Message, RecordDict

from task.errors import shown
from task.limits import check_number

Topic = Literal["hello", "prepare", "wait", "refused", "over"]

PROTOCOL = 2
"""Of these queries. A side that speaks another one is refused; the fields that tell it stay what they are."""

SIGN_OF_LIFE_SECONDS = 5.0  # between two signs of life of a resident client, also while it trains
_RECORD = "greeting"
_LONGEST = 60  # characters of a text that a client sends
_MOST_SIDES = 16  # of an example


@dataclass(frozen=True)
class Greeting:
    """What the server says.

    Attributes:
        topic: `hello` asks who is there; `prepare` has the client build the model and train one batch before round 1;
            `wait` says that this client takes part in the next run; `refused` says why it may not take part; `over`
            ends a run.
        text: for the user.
        config: of the train messages to come, so that a client can check and prepare; empty where there are none.
        protocol: of the server.
    """

    topic: Topic
    text: str = ""
    config: Mapping[str, Any] | None = None
    protocol: int = PROTOCOL

    def message(self, node: int) -> Message:
        """As a Flower message to a node."""
        said = ConfigRecord({"topic": self.topic, "text": self.text, "protocol": self.protocol})
        records = RecordDict({_RECORD: said})
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
        config = dict(records["config"]) if "config" in records else None
        return cls(said["topic"], str(said["text"]), config, int(said.get("protocol", 1)))


@dataclass(frozen=True)
class Presence:
    """What a client says of itself: enough to see that its data fit the others', nothing about their content.

    Attributes:
        client: the number of its shard.
        input_shape: one example as the model sees it.
        num_classes: labels are in 0..num_classes-1; 0 where the shard does not say.
        num_examples: no update of it may count for more; 0: it does not say.
        tensorflow: its version; another one may come to other bits.
        keras: likewise.
        numpy: likewise.
        trouble: why the client cannot take part, one of the words of `server.arrivals`; "" where it can.
        error: the class of the exception that says so.
        layout: of the model that the client has built, see `task.model.layout_of`; "" before that.
        protocol: of the client.
    """

    client: int
    input_shape: tuple[int, ...]
    num_classes: int
    num_examples: int
    tensorflow: str
    keras: str = ""
    numpy: str = ""
    trouble: str = ""
    error: str = ""
    layout: str = ""
    protocol: int = PROTOCOL

    def reply(self, message: Message) -> Message:
        """As the answer to a greeting."""
        said = ConfigRecord(
            {
                "client": self.client,
                "input-shape": list(self.input_shape),
                "num-classes": self.num_classes,
                "num-examples": self.num_examples,
                "tensorflow": self.tensorflow,
                "keras": self.keras,
                "numpy": self.numpy,
                "trouble": self.trouble,
                "error": self.error,
                "layout": self.layout,
                "protocol": self.protocol,
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
            texts = {name: shown(str(said.get(name, "")), _LONGEST) for name in _TEXTS}
            presence = cls(
                said["client"],
                tuple(said["input-shape"]),
                said["num-classes"],
                said["num-examples"],
                protocol=said.get("protocol", 1),
                **texts,
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


_TEXTS = ("tensorflow", "keras", "numpy", "trouble", "error", "layout")

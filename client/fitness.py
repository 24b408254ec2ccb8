"""Check what can be known of a client before round 1: its shard, its labels, and the model of the run.

Each check has a word, the only thing beside the error's class that the server is told (`server.arrivals` knows what the
words mean).
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from flwr.app import Context

from client.trainer import build, warm_up
from task.arrays import input_shape, scale_of
from task.errors import UserError
from task.greeting import PROTOCOL, Greeting
from task.shardfile import read_raw

_reading = threading.Lock()


class Summary(NamedTuple):
    """What a shard is like.

    Attributes:
        input_shape: of one example as the model sees it.
        num_classes: as the file declares them; 0 where it does not.
        num_examples: how many it holds.
        top: its largest label.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    num_examples: int
    top: int


class Check(NamedTuple):
    """One thing that can be wrong.

    Attributes:
        word: for the server.
        doing: for the owner, put before an error that is not the user's.
        run: raises if it is wrong.
    """

    word: str
    doing: str
    run: Callable[[], object]


def checks(greeting: Greeting, file: Path, context: Context) -> list[Check]:
    """Return what a greeting has this client check, in order: at `hello` what is quick, at `prepare` what takes Keras.

    Args:
        greeting: the server's; its configuration is that of the train messages to come.
        file: the shard.
        context: of this node.
    """
    config = dict(greeting.config or {})
    model = str(config.get("model", "cnn"))
    if greeting.topic == "hello":
        return [
            Check("protocol", "reading the greeting", lambda: check_protocol(greeting.protocol)),
            Check("shard", "reading the shard", lambda: summary(file)),
            Check("labels", "reading the labels", lambda: check_labels(file, int(config.get("num-classes") or 0))),
            Check("model-not-allowed", "reading the model's name", lambda: check_model(model, context)),
        ]
    if greeting.topic == "prepare":
        return [
            Check("model-not-allowed", "reading the model's name", lambda: check_model(model, context)),
            Check("model", f"building the model {model}", lambda: build(file, config)),
            Check("training", f"training one batch with the model {model}", lambda: warm_up(file, config)),
        ]
    return []


def summary(file: Path) -> Summary:
    """Read a shard once and return what it is like.

    Raises:
        UserError: it cannot be read, or not be trained on.
    """
    with _reading:  # two threads ask for it at the start
        return _summary(file)


@lru_cache(maxsize=8)
def _summary(file: Path) -> Summary:
    x, y, header = read_raw(file)
    scale_of(x, header.scale, str(file))
    return Summary(input_shape(x.shape), header.num_classes or 0, len(x), int(y.max()))


def check_protocol(server: int) -> None:
    """Refuse a server whose queries are other ones.

    Raises:
        UserError: they are.
    """
    if server != PROTOCOL:
        raise UserError(
            f"the server's FedArena speaks protocol {server}, this client's {PROTOCOL}: install the same version of "
            "FedArena on both machines"
        )


def check_labels(file: Path, num_classes: int) -> None:
    """Refuse labels that a run's model has no output for; of a file that declares its classes the server sees it.

    Raises:
        UserError: there are some.
    """
    shard = summary(file)
    if num_classes and not shard.num_classes and shard.top >= num_classes:
        raise UserError(
            f"{file}: has the label {shard.top}, and this run has {num_classes} classes, 0 to {num_classes - 1}: "
            "number the classes as the server's test set does"
        )


def check_model(name: str, context: Context) -> None:
    """Let the server name its own models, and those of the user's that this client's owner allows: naming one runs it.

    Raises:
        UserError: it is not allowed here.
    """
    allowed = context.node_config.get("models")
    if ":" in name and allowed is not None and name not in str(allowed).split():
        raise UserError(f"the server asks for the model {name}, which this client was not started with: --model {name}")

"""The ClientApp: Flower messages <-> NumPyClient. The same in simulation and on real machines.

A node's configuration says everything that is its own:

    partition-id   the client's number
    shard          the file with its private data
    models         names of own models that the server may ask for, separated by spaces; absent: any
    notices        a file that takes down what the server says, for Flower's own SuperNode, whose apps cannot
    facts, errors, dp, dp-ledger: see `client.privacy`
"""

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.privacy import guard
from client.trainer import ShardClient
from task import wire
from task.errors import UserError
from task.greeting import Greeting, Presence
from task.shardfile import load_shard, read_header

app = ClientApp(mods=[guard])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Local training on this node's shard."""
    arrays, config = wire.read(message)
    check_model(str(config.get("model", "")), context)
    return wire.reply(message, *client_of(context).fit(arrays, config, wire.correction_of(message)))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluation on this node's shard."""
    arrays, config = wire.read(message)
    check_model(str(config.get("model", "")), context)
    return wire.reply_metrics(message, *client_of(context).evaluate(arrays, config))


@app.query()
def query(message: Message, context: Context) -> Message:
    """Who this is, when the server asks; what else it says is passed on to whoever runs this node."""
    greeting = Greeting.read(message)
    if notices := context.node_config.get("notices"):
        with Path(str(notices)).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps([greeting.topic, greeting.text])}\n")
    told = context.node_config.get("facts", "all") == "all"
    return presence(*_own(context), told).reply(message)


@cache
def presence(file: Path, client: int, told: bool) -> Presence:
    """What a client says of itself; `told`: whether also how many examples it has."""
    x, _ = load_shard(file)
    classes, examples = read_header(file).num_classes or 0, len(x) if told else 0
    return Presence(client, x.shape[1:], classes, examples, version("tensorflow"))


def client_of(context: Context) -> ShardClient:
    """The client of a node."""
    return ShardClient(*_own(context))


def check_model(name: str, context: Context) -> None:
    """Let the server name its own models, and those of the user's that this client's owner allows: naming one runs it.

    Raises:
        UserError: it is not allowed here.
    """
    allowed = context.node_config.get("models")
    if ":" in name and allowed is not None and name not in str(allowed).split():
        raise UserError(f"the server asks for the model {name}, which this client was not started with: --model {name}")


def _own(context: Context) -> tuple[Path, int]:
    return Path(str(context.node_config["shard"])), int(context.node_config["partition-id"])

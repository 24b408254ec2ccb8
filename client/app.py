"""The ClientApp: Flower messages <-> NumPyClient. The same in simulation and on real machines.

A node's configuration says everything that is its own:

    partition-id   the client's number
    shard          the file with its private data
    models         names of own models that the server may ask for, separated by spaces; absent: any
    notices        a file that takes down what the server says and what fails, for Flower's own SuperNode, whose apps
                   have no terminal
    facts, errors, dp, dp-ledger: see `client.privacy`
"""

from importlib.metadata import version
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import owner
from client.fitness import check_model, checks, summary
from client.privacy import guard
from client.trainer import ShardClient, layout
from task import wire
from task.greeting import PROTOCOL, Greeting, Presence

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
    """Who this is and whether it can take part; what else the server says is passed on to whoever runs this node."""
    greeting = Greeting.read(message)
    owner.notice(context, greeting.topic, greeting.text)
    return presence(message, greeting, context).reply(message)


def presence(message: Message, greeting: Greeting, context: Context) -> Presence:
    """Check what the greeting asks for, and return what the client says of itself; of trouble a word and the class."""
    file, client = _own(context)
    shape: tuple[int, ...] = ()
    classes, examples, trouble, raised, built = 0, 0, "", "", ""
    asked = checks(greeting, file, context)
    for check in asked:
        try:
            check.run()
        except Exception as error:  # noqa: BLE001 - of any kind: the owner is told, the server gets its class
            owner.tell(message, context, error, f"{check.doing} failed")
            trouble, raised = check.word, type(error).__name__
            break
    if asked and trouble not in ("protocol", "shard"):
        shape, classes, examples, _ = summary(file)
    if context.node_config.get("facts", "all") != "all":
        examples = 0
    if greeting.topic == "prepare" and not trouble:
        built = layout(file, dict(greeting.config or {}))
    texts = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
    texts |= {"trouble": trouble, "error": raised, "layout": built}
    return Presence(client, shape, classes, examples, protocol=PROTOCOL, **texts)


def client_of(context: Context) -> ShardClient:
    """The client of a node."""
    return ShardClient(*_own(context))


def _own(context: Context) -> tuple[Path, int]:
    return Path(str(context.node_config["shard"])), int(context.node_config["partition-id"])

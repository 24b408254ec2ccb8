"""The ClientApp: Flower messages <-> NumPyClient. The same in simulation and on real machines."""

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.trainer import ShardClient
from task import wire
from task.shardfile import shard_name

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Local training on this node's shard."""
    arrays, config = wire.read(message)
    return wire.reply(message, *client_of(context).fit(arrays, config))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluation on this node's shard."""
    arrays, config = wire.read(message)
    return wire.reply_metrics(message, *client_of(context).evaluate(arrays, config))


def client_of(context: Context) -> ShardClient:
    """The client of a node: its configuration names the folder of shards and which one is its own."""
    folder, client = Path(str(context.node_config["shards"])), int(context.node_config["partition-id"])
    return ShardClient(folder / shard_name(client))

"""Stock Flower with the arrays of the product's CNN and nothing to compute; TensorFlow is not even imported."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

SHAPES = ((3, 3, 1, 16), (16,), (3, 3, 16, 64), (64,), (1600, 64), (64,), (64, 10), (10,))

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, _context: Context) -> Message:
    """New arrays, so that no piece of them is known at the server already."""
    random = np.random.default_rng()
    received = message.content.array_records["arrays"].to_numpy_ndarrays()
    arrays = [array + random.normal(size=array.shape).astype(array.dtype) for array in received]
    metrics = MetricRecord({"num-examples": 800})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message: Message, _context: Context) -> Message:
    """A number."""
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 800, "loss": 0.5})}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's own loop; the unix time after each round goes to a file."""
    config = context.run_config
    ends: list[float] = []

    def take_down(server_round: int, _arrays: ArrayRecord) -> MetricRecord:
        ends.append(time.time())
        Path(str(config["times"])).write_text(json.dumps(ends))
        return MetricRecord({"round": server_round})

    fraction = float(config["fraction-evaluate"])
    strategy = FedAvg(
        fraction_evaluate=fraction, min_train_nodes=5, min_evaluate_nodes=5 if fraction else 1, min_available_nodes=5
    )
    random = np.random.default_rng(0)
    arrays = ArrayRecord([random.normal(size=shape).astype(np.float32) for shape in SHAPES])
    strategy.start(grid, arrays, num_rounds=int(config["rounds"]), evaluate_fn=take_down)

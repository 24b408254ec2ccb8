"""The server's memory when 200 clients report: for mean-like rules one model, not one for each client.

Measured twice. Once the aggregation alone, in a process of its own that is fed replies one by one, as the round loop
feeds them. Once the whole server process of a simulation, where Flower's and Ray's own copies count too.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks import synthetic
from benchmarks.command import resident_bytes, run, simulate
from benchmarks.rounds import STRATEGIES
from benchmarks.table import Table

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

FEW, MANY = 10, 200
HIDDEN = 1500  # of the wide model: 784 x 1500 + 1500 x 10 weights and 1,510 biases, 1.2 million parameters
MODEL_BYTES = 4 * (784 * HIDDEN + HIDDEN + HIDDEN * 10 + 10)
FLOWER = "flwr.serverapp.strategy.FedAvg"


def wide_model(input_shape: tuple[int, ...], num_classes: int) -> Any:
    """A Keras model of 1.2 million parameters that is cheap to train."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(HIDDEN, activation="relu"),
            layers.Dense(num_classes),
        ]
    )


def measure(quick: bool = False) -> list[Table]:
    """Measure the rules alone and the whole server; `quick`: the latter with one strategy only."""
    with tempfile.TemporaryDirectory(prefix="fedarena-benchmark-") as name:
        folder = Path(name)
        alone = [_alone(strategy, folder) for strategy in (*STRATEGIES, FLOWER)]
        whole = [_whole(strategy, folder) for strategy in (STRATEGIES[:1] if quick else STRATEGIES)]
    head = ("strategy", f"{FEW} clients", f"{MANY} clients", "growth per client")
    model = f"One model has {MODEL_BYTES / 2**20:.1f} MiB"
    return [
        Table(
            "Aggregation alone: peak memory above what the process held before the replies, in models",
            head,
            tuple(alone),
            (
                f"{model}; replies come one by one, each in Flower's message; one that is being read counts too.",
                "fedmedian needs every client's values at once; Flower's FedAvg keeps all replies.",
            ),
        ),
        Table(
            "The whole server process of a simulation: peak resident memory, MiB",
            head,
            tuple(whole),
            (f"{model}; two rounds, every client takes part in each. Flower's message store is in this process.",),
        ),
    ]


def _alone(strategy: str, folder: Path) -> tuple[str, ...]:
    models = []
    for clients in (FEW, MANY):
        facts = folder / f"{strategy}-{clients}.json"
        arguments = ("-m", "benchmarks.memory", strategy, str(clients), "--json", str(facts))
        done = run(*arguments, log=facts.with_suffix(".log"), watch=True)
        models.append((done.peak_bytes - json.loads(facts.read_text())["before"]) / MODEL_BYTES)
    few, many = models
    return (strategy, f"{few:.1f}", f"{many:.1f}", f"{(many - few) / (MANY - FEW):.3f}")


def _whole(strategy: str, folder: Path) -> tuple[str, ...]:
    peaks = []
    for clients in (FEW, MANY):
        data = folder / f"{clients}.npz"
        if not data.exists():
            synthetic.write(data, clients, 32)
        out = folder / f"{strategy}-{clients}"
        options = ("--strategies", strategy, "--clients", str(clients), "--rounds", "2", "--dataset", str(data))
        done = simulate(out, *options, "--model", "benchmarks.memory:wide_model", watch=True)
        peaks.append(done.peak_bytes / 2**20)
    few, many = peaks
    growth = (many - few) * 2**20 / MODEL_BYTES / (MANY - FEW)
    return (strategy, f"{few:.0f}", f"{many:.0f}", f"{growth:.3f} models")


def _aggregate(strategy: str, clients: int, facts: Path) -> None:
    """Aggregate replies that are made one by one; write the resident memory before the first."""
    import os

    import numpy as np
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from strategies.specify import make_strategy
    from task import wire

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # a message names its run and sender
    rng = np.random.default_rng(0)
    shapes = ((784, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,))
    start = [rng.standard_normal(shape, np.float32) for shape in shapes]
    sent = Message(RecordDict({wire.ARRAYS: wire.record(start), wire.CONFIG: ConfigRecord()}), 1, "train")

    def reply(client: int) -> "Message":
        arrays = [array + np.float32(client) for array in start]
        return wire.reply(sent, arrays, 100 + client, {"client": client, "local_norm": 3.0 + client})

    def replies(count: int) -> Iterator["Message"]:
        return (reply(client) for client in range(count))

    contestant = make_strategy(strategy)
    contestant.configure_train(1, wire.record(start), ConfigRecord(), cast("Grid", _Nodes()))
    contestant.aggregate_train(1, replies(2))  # imports, compiled kernels and the allocator's first pages
    facts.write_text(json.dumps({"before": resident_bytes(os.getpid())}))
    contestant.aggregate_train(1, replies(clients))


class _Nodes:
    """As much of Flower's Grid as a strategy asks before it samples."""

    def get_node_ids(self) -> list[int]:
        """Two nodes; what is sent to them is of no interest here."""
        return [1, 2]


def main() -> None:
    """Aggregate in this process, for the benchmark to watch."""
    parser = argparse.ArgumentParser(description="Aggregate synthetic replies, one by one.")
    parser.add_argument("strategy")
    parser.add_argument("clients", type=int)
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    options = parser.parse_args()
    _aggregate(options.strategy, options.clients, options.json)


if __name__ == "__main__":
    main()

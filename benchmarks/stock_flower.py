"""Opponent: stock Flower, as its TensorFlow tutorial writes it.

A NumPyClient that builds its Keras model and calls `fit`, Flower's own FedAvg with a central `evaluate_fn`, Flower's
simulation on Ray with one CPU for each client, so that all cores work. Nothing is slower than in the tutorial, and two
things are cheaper: a worker process reads a shard once, and the clients do not evaluate, as they do not in the product.

`python -m benchmarks.stock_flower --rounds N --runs 4 --json OUT` runs one simulation after the other in one process,
which spares all but the first Python's start and the server's imports. Two variants tell how much the choice of the
opponent matters: `--variant tutorial` lets the clients evaluate too, as the tutorial does, on a fifth of their shard;
`--variant kept` is what an expert does first, to keep the model in the worker process instead of building it anew for
every message.
"""

import argparse
import logging
import os
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

os.environ.update(
    FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0", TF_CPP_MIN_LOG_LEVEL="3"
)
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns about its own default otherwise

import keras
from flwr.client import Client, ClientApp, NumPyClient
from flwr.common import Context, NDArrays, Scalar, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.command import ensure_shards
from benchmarks.plain import BATCH_SIZE, CLIENTS, build_cnn, load, write_times

kept_cnn = cache(build_cnn)


class FlowerClient(NumPyClient):
    """The tutorial's client."""

    def __init__(self, model: Any, shard: int) -> None:
        self.model = model
        self.x, self.y = load(f"shard-{shard}")

    def fit(self, parameters: NDArrays, _config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train one epoch on the shard."""
        self.model.set_weights(parameters)
        self.model.fit(self.x, self.y, epochs=1, batch_size=BATCH_SIZE, verbose=0)
        return self.model.get_weights(), len(self.x), {}

    def evaluate(self, parameters: NDArrays, _config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Evaluate on a fifth of the shard; only called in the variant "tutorial"."""
        self.model.set_weights(parameters)
        part = len(self.x) // 5
        loss, accuracy = self.model.evaluate(self.x[:part], self.y[:part], verbose=0)
        return loss, part, {"accuracy": accuracy}


def client_fn(context: Context) -> Client:
    """The client of one partition, with a model of its own."""
    return FlowerClient(build_cnn(), int(context.node_config["partition-id"])).to_client()


def keeping_client_fn(context: Context) -> Client:
    """The client of one partition, with the model that the process has already."""
    return FlowerClient(kept_cnn(), int(context.node_config["partition-id"])).to_client()


def server_app(rounds: int, fraction_evaluate: float, ends: list[float]) -> ServerApp:
    """A server of `rounds` rounds that appends to `ends` the unix time at which each has been evaluated."""

    def server_fn(_context: Context) -> ServerAppComponents:
        keras.utils.set_random_seed(0)
        model = build_cnn()
        x, y = load("test")

        def evaluate(
            server_round: int, weights: NDArrays, _config: dict[str, Scalar]
        ) -> tuple[float, dict[str, Scalar]]:
            model.set_weights(weights)
            loss, accuracy = model.evaluate(x, y, verbose=0)
            if server_round:
                ends.append(time.time())
            return loss, {"accuracy": accuracy}

        strategy = FedAvg(
            fraction_evaluate=fraction_evaluate,
            min_fit_clients=CLIENTS,
            min_available_clients=CLIENTS,
            initial_parameters=ndarrays_to_parameters(model.get_weights()),
            evaluate_fn=evaluate,
        )
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))

    return ServerApp(server_fn=server_fn)


def main() -> None:
    """Run the simulations and write their times."""
    parser = argparse.ArgumentParser(description="Stock Flower with Keras: time per round.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=4, help="simulations, one after the other")
    parser.add_argument("--variant", choices=("lean", "tutorial", "kept"), default="lean")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    ensure_shards()
    runs: list[list[float]] = []
    for _ in range(options.runs):
        runs.append([])
        run_simulation(
            server_app=server_app(options.rounds, 1.0 if options.variant == "tutorial" else 0.0, runs[-1]),
            client_app=ClientApp(client_fn=keeping_client_fn if options.variant == "kept" else client_fn),
            num_supernodes=CLIENTS,
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": {"log_to_driver": False},
            },
        )
        if len(runs[-1]) != options.rounds:
            raise RuntimeError(f"stock Flower finished {len(runs[-1])} of {options.rounds} rounds")
    write_times(options.json, runs)


if __name__ == "__main__":
    # Ray sends what a script defines as bytes with every message; an importable module it loads once.
    from benchmarks import stock_flower

    stock_flower.main()

"""Opponent: no federation at all. One process trains the five shards in turn, averages with NumPy, evaluates.

`python -m benchmarks.bare_loop --rounds N --json OUT`: what remains of a round when everything that a federation adds
costs nothing, but with Keras' own `fit` and TensorFlow's own use of the cores.
"""

import argparse
import os
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np

from benchmarks.command import ensure_shards
from benchmarks.plain import BATCH_SIZE, CLIENTS, build_cnn, load, write_times


def run(rounds: int) -> list[float]:
    """Train `rounds` rounds of federated averaging in one loop; return the unix time at which each was evaluated."""
    keras.utils.set_random_seed(0)
    model = build_cnn()
    weights = model.get_weights()
    ends: list[float] = []
    for _ in range(rounds):
        trained = []
        for shard in range(CLIENTS):
            x, y = load(f"shard-{shard}")
            model.set_weights(weights)
            model.fit(x, y, epochs=1, batch_size=BATCH_SIZE, verbose=0)
            trained.append(model.get_weights())
        weights = [np.mean(arrays, axis=0) for arrays in zip(*trained, strict=True)]
        model.set_weights(weights)
        model.evaluate(*load("test"), verbose=0)
        ends.append(time.time())
    return ends


def main() -> None:
    """Run the loop and write its times."""
    parser = argparse.ArgumentParser(description="A sequential Keras loop over five shards: time per round.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=1, help="repetitions, one after the other")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    options = parser.parse_args()
    ensure_shards()
    write_times(options.json, [run(options.rounds) for _ in range(options.runs)])


if __name__ == "__main__":
    main()

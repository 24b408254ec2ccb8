"""What the opponents learn: the project's CNN and shards, written down once more in plain Keras.

Nothing here uses the project's own training, so a mistake there cannot slow both sides of a comparison down.
"""

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.command import SHARDS

CLIENTS = 5
BATCH_SIZE = 32
LEARNING_RATE = 0.1

Examples = tuple[NDArray[np.float32], NDArray[np.int32]]


def build_cnn() -> Any:
    """The compiled CNN (112,554 parameters) with Glorot weights from Keras' global seed."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


@cache
def load(name: str) -> Examples:
    """The examples of one file of `SHARDS` ("shard-0" ... "shard-4", "test"), read once per process.

    Returns:
        Images, float32 of shape (n, 28, 28, 1) in 0..1, and labels, int32 of shape (n,).
    """
    with np.load(SHARDS / f"{name}.npz", allow_pickle=False) as file:
        return file["x"][..., None].astype(np.float32) / np.float32(file["scale"]), file["y"]


def write_times(path: Path, runs: list[list[float]]) -> None:
    """Write an opponent's measurements as JSON.

    Args:
        path: the file to write.
        runs: for each run the unix times at which its rounds 1, 2 ... had been trained, averaged and evaluated.
    """
    path.write_text(json.dumps({"finished": time.time(), "runs": runs}))

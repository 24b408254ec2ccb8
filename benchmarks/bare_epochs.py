"""Yardstick: compiled epochs and nothing else, one single-threaded process for each core, side by side.

`python -m benchmarks.bare_epochs --epochs N --json OUT`. An epoch is one call of a compiled loop over 25 steps of
gather, gradient and update with the shard resident in TensorFlow: no messages, no weights in or out. What the
project's clients need on top of it is what the federation costs them.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import ensure_shards
from benchmarks.machine import available_cores

WARM_UP = 3
SHARDS_THERE = 5


def epochs_alone(count: int, shard: int, together: Any) -> tuple[float, float]:
    """Train `count` epochs on one shard when every process has met at the barrier `together`.

    Returns:
        Wall seconds and CPU seconds (user and system, all threads of this process) per epoch.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from benchmarks.plain import BATCH_SIZE, LEARNING_RATE, build_cnn, load

    keras.utils.set_random_seed(0)
    model = build_cnn()
    optimizer = keras.optimizers.SGD(LEARNING_RATE)
    optimizer.build(model.trainable_variables)
    x, y = (tf.constant(array) for array in load(f"shard-{shard}"))

    def step(batch: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(tf.gather(x, batch), training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(y, batch), logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def epoch(batches: Any) -> Any:
        steps = tf.shape(batches)[0]
        loop = (tf.constant(0), tf.constant(0.0))
        return tf.while_loop(
            lambda i, _: i < steps,
            lambda i, total: (i + 1, total + step(batches[i])),
            loop,
            parallel_iterations=1,
        )[1]

    rng = np.random.default_rng(shard)
    orders = [rng.permutation(len(x)).reshape(-1, BATCH_SIZE).astype(np.int32) for _ in range(count + WARM_UP)]
    for order in orders[:WARM_UP]:
        epoch(tf.constant(order)).numpy()
    together.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for order in orders[WARM_UP:]:
        epoch(tf.constant(order)).numpy()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def main() -> None:
    """Run the epochs in as many processes as there are cores and write seconds per epoch."""
    parser = argparse.ArgumentParser(description="Bare compiled epochs, one process a core: seconds per epoch.")
    parser.add_argument("--epochs", type=int, default=200, help="over all processes")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    options = parser.parse_args()
    ensure_shards()
    each = max(1, options.epochs // options.processes)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(options.processes) as pool:
        together = manager.Barrier(options.processes)
        times = pool.starmap(
            epochs_alone, [(each, k % SHARDS_THERE, together) for k in range(options.processes)], chunksize=1
        )
    wall, cpu = (float(np.mean(seconds)) for seconds in zip(*times, strict=True))
    options.json.write_text(json.dumps({"epochs": each * options.processes, "seconds": wall, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()

"""Data sets as large as a benchmark needs, at the same cost for each client."""

from pathlib import Path

import numpy as np

TEST_EXAMPLES = 1000


def write(path: Path, clients: int, examples: int) -> None:
    """Write an .npz data set that splits into `clients` shards of `examples` random 28 x 28 images, ten classes alike.

    What is trained on does not matter to time and memory; that every shard has the same size does.
    """
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", clients * examples), ("test", TEST_EXAMPLES)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"y_{part}"] = np.arange(count, dtype=np.int32) % 10
    np.savez(path, allow_pickle=False, **arrays)

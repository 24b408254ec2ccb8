"""Which examples each local step of a round sees."""

from typing import NamedTuple

import numpy as np

from task import seeds


class Batches(NamedTuple):
    """Local steps of one round: step s trains on `order[starts[s]:ends[s]]`."""

    order: np.ndarray  # int32, indices into the shard
    starts: np.ndarray  # int32, one a step
    ends: np.ndarray  # int32, one a step

    @property
    def steps(self) -> int:
        """tau, the number of local steps."""
        return len(self.starts)


def plan(
    num_examples: int, batch_size: int, epochs: int, steps: int | None, *, seed: int, server_round: int, client: int
) -> Batches:
    """Shuffled passes over the shard; the same for every strategy, from (seed, round, client) alone.

    Args:
        num_examples: size of the shard, >= 1.
        batch_size: examples a step; the last one of a pass may be smaller.
        epochs: passes, when `steps` is None.
        steps: local steps; passes repeat until they are reached.
        seed: the run's.
        server_round: of this round; with seed and client it names the shuffle's random stream.
        client: the client's number.
    """
    random = seeds.stream(seed, "shuffle", server_round, client)
    a_pass = np.arange(0, num_examples, batch_size, dtype=np.int32)
    passes = epochs if steps is None else -(-steps // len(a_pass))
    order = np.concatenate([random.permutation(num_examples) for _ in range(passes)]).astype(np.int32)
    offsets = np.arange(passes, dtype=np.int32)[:, None] * num_examples
    starts = (a_pass + offsets).ravel()[:steps]
    ends = (np.minimum(a_pass + batch_size, num_examples) + offsets).ravel()[:steps]
    return Batches(order, starts, ends)

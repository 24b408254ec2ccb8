"""A Flower NumPyClient that trains on one private shard."""

import time
from collections.abc import Mapping
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flwr.client import NumPyClient

from client.batches import Batches, plan
from client.engine import Engine, engine_for
from client.local_norm import local_norm
from task import wire
from task.config import Training
from task.errors import UserError
from task.evaluation import resident
from task.model import build_model, initial_arrays, layout_of
from task.shardfile import Header, load_shard, read_header
from task.update import Arrays


class Shard(NamedTuple):
    """One client's private data, in memory."""

    x: Any  # tensor, float32 (n, *input_shape)
    y: Any  # tensor, int32 (n,)
    header: Header


@cache
def open_shard(file: Path) -> Shard:
    """Read a shard file, once per process; how many processes there may be is reckoned with all shards in each."""
    return Shard(*resident(*load_shard(file)), read_header(file))


class ShardClient(NumPyClient):
    """Trains and evaluates the arrays that it is given on its own shard; keeps no state between rounds.

    Args:
        file: the shard, as `task.shards` writes it.
        client: the client's number; None: what the shard says, 0 if it does not.
    """

    def __init__(self, file: Path, client: int | None = None) -> None:
        self._file, self._client = file, client

    @cached_property
    def shard(self) -> Shard:
        """The private data; opened at first use."""
        return open_shard(self._file)

    @property
    def client(self) -> int:
        """The client's number, which its shuffles are drawn from."""
        return (self.shard.header.client or 0) if self._client is None else self._client

    def fit(
        self, parameters: Arrays, config: dict[str, Any], correction: Mapping[int, np.ndarray] | None = None
    ) -> tuple[Arrays, int, dict[str, Any]]:
        """Local training: from the global arrays to this client's.

        Args:
            parameters: the global arrays.
            config: the fields of `task.config.Training`, and `seed`, `server-round`, `model`,
                `num-classes` (where the shard does not say), `proximal-mu` (FedProx), `init` ("independent": in round
                1 this client's own initial weights take the place of the global arrays), `work-share` (only this share
                of the local steps is made, in (0, 1], and at least one), `measure` (whether to test on the shard).
            correction: SCAFFOLD's c - c_i, by the position of the array; None: none.

        Returns:
            The new arrays, num_examples, and the facts `client`, `local_steps`, `local_norm` (left out where it is not
            defined), `train_loss` (nats), `seconds` and `cpu_seconds` of this call; if asked to measure,
            `accuracy_before` of the given arrays and `accuracy_after` of the new ones (0..1), on the training data.

        Raises:
            UserError: a correction for another optimizer than plain SGD, or a share of work that is none.
            ValueError: arrays or a correction that do not fit the model.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        training, mu = training_of(config), float(config.get(wire.PROXIMAL_MU, 0.0))
        seed, server_round = int(config.get("seed", 0)), int(config.get("server-round", 0))
        if correction and (training.optimizer != "sgd" or training.momentum):
            raise UserError("the server corrects gradients (scaffold), which is defined for plain sgd without momentum")
        shard = self.shard
        engine = self._engine(config, training, mu)
        received = parameters
        if config.get("init") == "independent" and server_round == 1:
            parameters = own_start(str(config.get("model", "cnn")), *self._shape(config), seed, self.client)
        examples = int(shard.y.shape[0])
        planned = plan(
            examples,
            training.batch_size,
            training.epochs,
            training.steps,
            seed=seed,
            server_round=server_round,
            client=self.client,
        )
        batches = share_of(planned, config.get(wire.WORK_SHARE, 1.0))
        new, loss = engine.train(
            parameters,
            shard.x,
            shard.y,
            batches,
            seed=seed,
            server_round=server_round,
            client=self.client,
            correction=correction,
        )
        facts: dict[str, Any] = {"client": self.client, "local_steps": batches.steps, "train_loss": loss}
        if training.norm_undefined is None:
            norm = local_norm(batches.steps, training.momentum, training.learning_rate, mu)
            if norm is not None:
                facts["local_norm"] = norm
        if config.get(wire.MEASURE):
            facts["accuracy_before"] = engine.evaluate(received, shard.x, shard.y)[0]
            facts["accuracy_after"] = engine.evaluate(new, shard.x, shard.y)[0]
        facts["seconds"] = time.perf_counter() - wall
        facts["cpu_seconds"] = time.process_time() - cpu
        return new, examples, facts

    def evaluate(self, parameters: Arrays, config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Loss (nats), num_examples and accuracy (0..1) of the given arrays on the shard: the training data."""
        shard = self.shard
        engine = self._engine(config, training_of(config), 0.0)
        accuracy, loss = engine.evaluate(parameters, shard.x, shard.y)
        return loss, int(shard.y.shape[0]), {"client": self.client, "accuracy": accuracy}

    def _engine(self, config: dict[str, Any], training: Training, mu: float) -> Engine:
        return engine_for(str(config.get("model", "cnn")), *self._shape(config), training, mu)

    def _shape(self, config: dict[str, Any]) -> tuple[tuple[int, ...], int]:
        """Of one example, and the number of classes."""
        shape = tuple(int(side) for side in self.shard.x.shape[1:])
        return shape, int(config.get("num-classes") or self.shard.header.num_classes or 0)


@lru_cache(maxsize=4)  # the strategies of a run ask for the same ones at about the same time
def own_start(model: str, input_shape: tuple[int, ...], num_classes: int, seed: int, client: int) -> Arrays:
    """A client's own initial weights, which depend on seed and client only; not to be changed."""
    return initial_arrays(build_model(model, input_shape, num_classes, seed, client))


def share_of(batches: Batches, share: float) -> Batches:
    """The first floor(share * steps) local steps of a round, at least one.

    Raises:
        UserError: unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise UserError(f"{wire.WORK_SHARE} must be above 0 and at most 1, not {share!r}")
    steps = max(1, int(share * batches.steps))
    return batches._replace(starts=batches.starts[:steps], ends=batches.ends[:steps])


def training_of(config: dict[str, Any]) -> Training:
    """The local training that a round's configuration asks for."""
    return Training.model_validate({name: config[name] for name in Training.model_fields if name in config})


def build(file: Path, config: dict[str, Any]) -> Engine:
    """Build the model of a run for a shard."""
    return ShardClient(file)._engine(config, training_of(config), 0.0)


def layout(file: Path, config: dict[str, Any]) -> str:
    """Return a hash of the shapes and dtypes of the model's arrays."""
    return layout_of(build(file, config).initial)


def warm_up(file: Path, config: dict[str, Any]) -> None:
    """Import, build and trace before the first round asks: train one step on a shard and drop the result."""
    client, engine = ShardClient(file), build(file, config)
    batch = int(config.get("batch_size", 32))
    shard = client.shard
    batches = plan(int(shard.y.shape[0]), batch, 1, 1, seed=0, server_round=0, client=client.client)
    engine.train(engine.initial, shard.x, shard.y, batches, seed=0, server_round=0, client=client.client)

"""One warm model and one compiled training function per process, reused by every shard, round and strategy.

Building and tracing a Keras model costs more than an epoch on a shard, so it is done once: a round passes the global
arrays in, runs all local steps inside one TensorFlow graph, and gets the new arrays out.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from client.batches import Batches
from task import seeds
from task.backend import load
from task.config import Training
from task.evaluation import Evaluator
from task.model import build_model, initial_arrays
from task.update import Arrays


class Engine:
    """A model that trains and evaluates whatever arrays and shard it is given; nothing lasts between two calls.

    Args:
        model: name, as in `task.model.build_model`.
        input_shape: of one example.
        num_classes: width of the output.
        training: the optimizer and its parameters; epochs, steps and batch size come with each call's batches.
        proximal_mu: FedProx's mu, 0 for none.
    """

    def __init__(
        self, model: str, input_shape: tuple[int, ...], num_classes: int, training: Training, proximal_mu: float = 0.0
    ) -> None:
        self._keras, self._tf = load()
        self._model = build_model(model, input_shape, num_classes)
        self._evaluator = Evaluator(self._model)
        self._optimizer = self._make_optimizer(training)
        self._optimizer.build(self._model.trainable_variables)
        # Everything the optimizer remembers, with what it starts from; the learning rate is not state.
        self._slots = [(v, v.numpy()) for v in self._optimizer.variables if v is not self._optimizer._learning_rate]
        exchanged = {id(v) for v in self._model.weights}
        self._seed_states = [v for v in self._model.variables if id(v) not in exchanged]
        self._mu = proximal_mu
        self.initial: Arrays = initial_arrays(self._model)
        self._train = self._tf.function(self._train_graph, autograph=False, reduce_retracing=True)

    def train(
        self, arrays: Arrays, x: Any, y: Any, batches: Batches, *, seed: int, server_round: int, client: int
    ) -> tuple[Arrays, float]:
        """Train from `arrays` on the batches of a resident shard.

        Returns:
            The new arrays, in the order, shapes and dtypes of the given ones, and the mean training loss per example
            over all local steps (nats).

        Raises:
            ValueError: if the arrays do not fit the model.
        """
        self._evaluator.fits(arrays)
        for i, state in enumerate(self._seed_states):
            draw = seeds.stream(seed, "dropout", server_round, client, i)
            state.assign(draw.integers(2**31, size=state.shape).astype(state.dtype))
        new, loss = self._train(arrays, x, y, batches.order, batches.starts, batches.ends)
        return [np.array(a.numpy()) for a in new], float(loss.numpy())

    def evaluate(self, arrays: Arrays, x: Any, y: Any) -> tuple[float, float]:
        """Accuracy (0..1) and mean loss (nats) of `arrays` on resident data."""
        return self._evaluator(arrays, x, y)

    def _make_optimizer(self, t: Training) -> Any:
        config: dict[str, Any] = {"learning_rate": t.learning_rate}
        if t.optimizer == "sgd":
            config |= {"momentum": t.momentum, "nesterov": t.nesterov}
        return self._keras.optimizers.get({"class_name": t.optimizer, "config": config})

    def _train_graph(self, arrays: Any, x: Any, y: Any, order: Any, starts: Any, ends: Any) -> Any:
        tf, variables = self._tf, self._model.trainable_variables
        self._evaluator.assign(arrays)
        for slot, start in self._slots:
            slot.assign(tf.constant(start) if start.any() else tf.zeros_like(slot.value))
        begun = [tf.identity(v.value) for v in variables] if self._mu else []

        def step(s: Any, total: Any) -> Any:
            batch = order[starts[s] : ends[s]]
            with tf.GradientTape() as tape:
                losses = self._evaluator.losses(self._model(tf.gather(x, batch), training=True), tf.gather(y, batch))
                objective = tf.reduce_mean(losses)
                for penalty in self._model.losses:
                    objective += penalty
            gradients = tape.gradient(objective, variables)
            if self._mu:
                gradients = [g + self._mu * (v.value - b) for g, v, b in zip(gradients, variables, begun, strict=True)]
            self._optimizer.apply(gradients, variables)
            return s + 1, total + tf.reduce_sum(losses)

        last = tf.shape(starts)[0]
        _, total = tf.while_loop(lambda s, _: s < last, step, (0, 0.0), parallel_iterations=1)
        seen = tf.cast(tf.reduce_sum(ends - starts), tf.float32)
        return [tf.identity(v.value) for v in self._model.weights], total / seen


@lru_cache(maxsize=4)
def engine_for(
    model: str, input_shape: tuple[int, ...], num_classes: int, training: Training, proximal_mu: float = 0.0
) -> Engine:
    """This process's engine for one combination; a run needs one, several user runs in one process a few."""
    return Engine(model, input_shape, num_classes, training, proximal_mu)

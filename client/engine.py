"""One warm model and one compiled training function per process, reused by every shard, round and strategy.

Building and tracing a Keras model costs more than an epoch on a shard, so it is done once: a round passes the global
arrays in, runs all local steps inside one TensorFlow graph, and gets the new arrays out.
"""

from collections.abc import Mapping
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
        training: the optimizer and its parameters; epochs, steps and batch size are of no matter here, since they come
            with each call's batches.
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
        places = {id(v): i for i, v in enumerate(self._model.weights)}
        self._trained = [places[id(v)] for v in self._model.trainable_variables]
        self._train = self._tf.function(self._train_graph, autograph=False, reduce_retracing=True)
        # A function of its own, traced at its first call: who corrects nothing neither waits for it nor computes more.
        self._train_corrected = self._tf.function(self._train_graph, autograph=False, reduce_retracing=True)

    def train(
        self,
        arrays: Arrays,
        x: Any,
        y: Any,
        batches: Batches,
        *,
        seed: int,
        server_round: int,
        client: int,
        correction: Mapping[int, np.ndarray] | None = None,
    ) -> tuple[Arrays, float]:
        """Train from `arrays` on the batches of a resident shard.

        Args:
            arrays: the model's, in its order; not changed.
            x: examples.
            y: their classes.
            batches: what each local step sees.
            seed: the run's; with round and client it names the random streams.
            server_round: of this round.
            client: the client's number.
            correction: added to the gradient of every local step, by the position of the array; 0 for others. Where it
                is for an array that gradients do not move, it has no effect.

        Returns:
            The new arrays, in the order, shapes and dtypes of the given ones, and the mean training loss per example
            over all local steps (nats).

        Raises:
            ValueError: if the arrays or the correction do not fit the model.
        """
        self._evaluator.fits(arrays)
        added = self._added(correction, arrays) if correction else ()
        for i, state in enumerate(self._seed_states):
            draw = seeds.stream(seed, "dropout", server_round, client, i)
            state.assign(draw.integers(2**31, size=state.shape).astype(state.dtype))
        run = self._train_corrected if correction else self._train
        new, loss = run(arrays, x, y, batches.order, batches.starts, batches.ends, added)
        return [np.array(a.numpy()) for a in new], float(loss.numpy())

    def evaluate(self, arrays: Arrays, x: Any, y: Any) -> tuple[float, float]:
        """Accuracy (0..1) and mean loss (nats) of `arrays` on resident data."""
        return self._evaluator(arrays, x, y)

    def _added(self, correction: Mapping[int, np.ndarray], arrays: Arrays) -> list[np.ndarray]:
        """The correction for each trainable variable."""
        if wrong := [i for i, a in correction.items() if not (0 <= i < len(arrays) and a.shape == np.shape(arrays[i]))]:
            raise ValueError(f"the correction for array {wrong[0]} does not fit the model")
        return [
            np.asarray(correction.get(i, np.zeros_like(arrays[i])), self._model.weights[i].dtype) for i in self._trained
        ]

    def _make_optimizer(self, t: Training) -> Any:
        config: dict[str, Any] = {"learning_rate": t.learning_rate}
        if t.optimizer == "sgd":
            config |= {"momentum": t.momentum, "nesterov": t.nesterov}
        return self._keras.optimizers.get({"class_name": t.optimizer, "config": config})

    def _train_graph(self, arrays: Any, x: Any, y: Any, order: Any, starts: Any, ends: Any, added: Any) -> Any:
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
            if added:
                gradients = [g + c for g, c in zip(gradients, added, strict=True)]
            self._optimizer.apply(gradients, variables)
            return s + 1, total + tf.reduce_sum(losses)

        last = tf.shape(starts)[0]
        _, total = tf.while_loop(lambda s, _: s < last, step, (0, 0.0), parallel_iterations=1)
        seen = tf.cast(tf.reduce_sum(ends - starts), tf.float32)
        return [tf.identity(v.value) for v in self._model.weights], total / seen


def engine_for(
    model: str, input_shape: tuple[int, ...], num_classes: int, training: Training, proximal_mu: float = 0.0
) -> Engine:
    """This process's engine for one combination; a run needs one, and one more for each proximal mu.

    Epochs, steps and batch size make no difference, so clients that do unequal work share it.
    """
    alike = training.model_copy(update={name: Training.model_fields[name].default for name in _OF_THE_BATCHES})
    return _engine(model, input_shape, num_classes, alike, proximal_mu)


_OF_THE_BATCHES = ("epochs", "steps", "batch_size")
_engine = lru_cache(maxsize=8)(Engine)

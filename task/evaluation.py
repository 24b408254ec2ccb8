"""Accuracy and loss of a model on data that stays in memory, in one compiled call."""

from typing import Any

import numpy as np

from task.backend import load
from task.model import gives_logits
from task.update import Arrays


def resident(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    """Data as tensors that stay in this process: x float32 (n, ...), y int32 (n,)."""
    _, tf = load()
    return tf.constant(x), tf.constant(y)


class Evaluator:
    """Evaluates whatever arrays it is given; leaves them in the model, which belongs to it.

    Args:
        model: a built Keras model.
    """

    def __init__(self, model: Any) -> None:
        self._keras, self._tf = load()
        self.model = model
        self._logits = gives_logits(model)
        self._compiled = self._tf.function(self._graph, autograph=False, reduce_retracing=True)

    def __call__(self, arrays: Arrays, x: Any, y: Any, batch_size: int = 100) -> tuple[float, float]:
        """Accuracy (0..1) and mean cross-entropy (nats) of `arrays` on resident data.

        Raises:
            ValueError: if the arrays do not fit the model.
        """
        self.fits(arrays)
        right, total = self._compiled(arrays, x, y, self._tf.constant(batch_size))
        return int(right.numpy()) / len(y), float(total.numpy()) / len(y)

    def fits(self, arrays: Arrays) -> None:
        """Refuse, with a ValueError, arrays of other shapes than the model's."""
        got, want = [np.shape(a) for a in arrays], [tuple(v.shape) for v in self.model.weights]
        if got != want:
            raise ValueError(f"arrays of shapes {got} do not fit the model, which has {want}")

    def losses(self, output: Any, y: Any) -> Any:
        """Cross-entropy per example of a batch, nats."""
        return self._keras.losses.sparse_categorical_crossentropy(y, output, from_logits=self._logits)

    def assign(self, arrays: Any) -> None:
        """Set the model's weights."""
        for variable, array in zip(self.model.weights, arrays, strict=True):
            variable.assign(array)

    def _graph(self, arrays: Any, x: Any, y: Any, batch_size: Any) -> Any:
        tf = self._tf
        self.assign(arrays)
        n = tf.shape(y)[0]

        def step(start: Any, right: Any, total: Any) -> Any:
            xs, ys = x[start : start + batch_size], y[start : start + batch_size]
            output = self.model(xs, training=False)
            hits = tf.equal(tf.argmax(output, axis=1, output_type=tf.int32), ys)
            loss = tf.reduce_sum(self.losses(output, ys))
            return start + batch_size, right + tf.reduce_sum(tf.cast(hits, tf.int32)), total + loss

        _, right, total = tf.while_loop(lambda start, *_: start < n, step, (0, 0, 0.0), parallel_iterations=1)
        return right, total

"""The ensemble of finished models: the mean of their logits; the ceiling of every merge, and the teacher."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.backend import load
from task.model import gives_logits
from task.update import Arrays

Floats = NDArray[np.float32]

TINY = 1e-7
"""Probabilities are clipped to it before their logarithm is taken, as Keras does in its losses."""


class Logits:
    """Logits of whatever arrays it is given; leaves them in the model. One compiled function for all of them.

    Args:
        model: a built Keras model whose output is (n, classes): logits, or probabilities where its last activation is
            softmax, of which the logarithm is taken.
    """

    def __init__(self, model: Any) -> None:
        _, self._tf = load()
        self._model = model
        self._forward = self._tf.function(self._graph, autograph=False, reduce_retracing=True)

    def __call__(self, arrays: Arrays, x: Any, batch_size: int = 100) -> Floats:
        """Logits (n, classes) of a model.

        Args:
            arrays: in the order of `model.get_weights()`.
            x: examples (n, *input_shape), float32, array or tensor.
            batch_size: how many go through the model at once.
        """
        self._model.set_weights(arrays)
        parts = [self._forward(x[start : start + batch_size]).numpy() for start in range(0, len(x), batch_size)]
        return np.concatenate(parts)

    def _graph(self, x: Any) -> Any:
        return as_logits(self._model, self._model(x, training=False))


def as_logits(model: Any, output: Any) -> Any:
    """The model's output (n, classes) as logits, up to a constant for each example, which softmax does not see."""
    if gives_logits(model):
        return output
    _, tf = load()
    return tf.math.log(tf.clip_by_value(output, TINY, 1.0))


def ensemble(logits: Logits, models: Sequence[Arrays], x: Any) -> Floats:
    """The mean of the models' logits on x, shape (n, classes)."""
    total = np.zeros(1)
    for arrays in models:
        total = total + logits(arrays, x)  # float64: the order of the models leaves no trace in float32
    return (total / len(models)).astype(np.float32)


def score(logits: Floats, y: Any) -> tuple[float, float]:
    """Accuracy (0..1) and mean cross-entropy (nats) of logits (n, classes) against labels (n,)."""
    labels = np.asarray(y)
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    losses = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(labels)), labels]
    return float(np.mean(logits.argmax(axis=1) == labels)), float(losses.mean())

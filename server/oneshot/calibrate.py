"""REPAIR (Jordan et al. 2023, arXiv:2211.08403): give each unit of a merged model the mean and the spread that it had.

Averaging models whose units only roughly agree cancels a part of every activation: the spread shrinks from layer to
layer until little is left for the last. The statistics are taken on unlabelled examples; no label, no gradient.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.backend import load
from task.update import Arrays

Statistics = list[tuple[NDArray[np.float64], NDArray[np.float64]]]  # of each layer its units' means and variances

KERNELS = {
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"), "kernel"),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), "pointwise_kernel"),
}
"""Layers whose units can be scaled, and the attribute that holds the weights to scale."""

DEAD = 1e-6
"""A unit with a smaller standard deviation never changes: there is nothing to scale."""


@dataclass(frozen=True)
class _Layer:
    """A layer that can be corrected.

    Attributes:
        layer: the Keras layer.
        axis: the axis of its statistic's tensor that runs over the units.
        places: where its arrays stand: kernel and bias, or a BatchNorm's moving mean and variance.
        normalises: whether it is a BatchNorm.
    """

    layer: Any
    axis: int
    places: tuple[int, int]
    normalises: bool


def calibrate(model: Any, merged: Arrays, models: Sequence[Arrays], x: Any) -> Arrays:
    """The merged model with every unit's pre-activation set to the models' average mean and standard deviation on x.

    One layer after the other, each behind the corrected ones: Dense, Conv and separable or depthwise convolutions with
    a bias, the logits included; a BatchNorm's moving mean and variance become those that its input has in the merged
    model. Layers that are used more than once, that have no bias, or of other kinds, keep their weights, and so does
    the scale of a unit that never changes.

    Args:
        model: a built Keras model of the architecture; its weights are overwritten.
        merged: what is corrected; not changed.
        models: the models that were merged, their units in the order of `merged`.
        x: unlabelled examples, (n, *input_shape) float32.

    Returns:
        New arrays in the order, shapes and dtypes of `merged`.
    """
    probe = _Probe(model, x)
    targets = [probe(arrays) for arrays in models]
    result = [array.copy() for array in merged]
    for k, layer in enumerate(probe.layers):
        mean, variance = probe(result)[k]
        if layer.normalises:
            _put(result, layer.places, mean, variance)
            continue
        wanted = np.mean([target[k][0] for target in targets], axis=0)
        spread = np.mean([np.sqrt(target[k][1]) for target in targets], axis=0)
        found = np.sqrt(variance)
        scale = np.where(found > DEAD, spread / np.maximum(found, DEAD), 1.0)
        kernel, bias = (result[place] for place in layer.places)
        _put(result, layer.places, kernel * _along_units(layer.layer, scale), (bias - mean) * scale + wanted)
    return result


def _put(arrays: Arrays, places: tuple[int, int], *values: NDArray[np.float64]) -> None:
    for place, value in zip(places, values, strict=True):
        arrays[place] = value.reshape(arrays[place].shape).astype(arrays[place].dtype)


def _along_units(layer: Any, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The units' factors in a shape that multiplies the kernel."""
    if type(layer).__name__.startswith("Depthwise"):  # (..., channels, multiples) makes channels * multiples units
        return scale.reshape(-1, layer.depth_multiplier)
    return scale


def _all_layers(model: Any) -> Iterator[Any]:
    """The layers of a model and of models in it, each once."""
    pending, seen = [model], set()
    while pending:
        layer = pending.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer
            pending.extend(getattr(layer, "layers", ()))


class _Probe:
    """Each layer's mean and variance of every unit on fixed examples, for whatever arrays it is given."""

    def __init__(self, model: Any, x: Any) -> None:
        _, self._tf = load()
        self._model, self._x = model, x
        self._seen: list[tuple[Any, Any]] = []  # (layer, tensor) in the order of the graph
        self._sums = self._tf.function(self._graph, autograph=False, reduce_retracing=True)
        self.layers: list[_Layer] = []

    def __call__(self, arrays: Arrays, batch_size: int = 100) -> Statistics:
        """The statistics of `self.layers`, which is known after the first call."""
        self._model.set_weights(arrays)
        totals: list[NDArray[np.float64]] = []
        for start in range(0, len(self._x), batch_size):
            sums = [part.numpy() for part in self._sums(self._x[start : start + batch_size])]
            totals = [total + part for total, part in zip(totals, sums, strict=True)] if totals else sums
        return [self._moments(count, one, two) for count, one, two in zip(*[iter(totals)] * 3, strict=True)]

    @staticmethod
    def _moments(count: Any, one: Any, two: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mean = one / count
        return mean, np.maximum(two / count - mean**2, 0.0)

    def _graph(self, x: Any) -> Any:
        tf = self._tf
        self._seen.clear()
        with self._watching():
            self._model(x, training=False)
        known = [layer for layer, _ in self._seen]
        once = [(layer, tensor) for layer, tensor in self._seen if known.count(layer) == 1]
        self.layers = [self._describe(layer, tensor) for layer, tensor in once]
        sums = []
        for (_, tensor), layer in zip(once, self.layers, strict=True):
            wide = tf.cast(tensor, tf.float64)
            others = [axis for axis in range(wide.shape.rank) if axis != layer.axis]
            count = tf.cast(tf.size(wide) // tf.shape(wide)[layer.axis], tf.float64)
            sums += [count, tf.reduce_sum(wide, others), tf.reduce_sum(wide * wide, others)]
        return sums

    def _describe(self, layer: Any, tensor: Any) -> _Layer:
        rank = tensor.shape.rank
        order = {id(variable): place for place, variable in enumerate(self._model.weights)}
        if type(layer).__name__ == "BatchNormalization":
            axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
            places = order[id(layer.moving_mean)], order[id(layer.moving_variance)]
            return _Layer(layer, axis % rank, places, normalises=True)
        axis = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
        shape = getattr(layer, KERNELS[type(layer).__name__]).shape
        kernel = next(v for v in layer.weights if v.path.endswith(KERNELS[type(layer).__name__]) and v.shape == shape)
        return _Layer(layer, axis, (order[id(kernel)], order[id(layer.bias)]), normalises=False)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """While the context is open, layers tell what comes into a BatchNorm, or what goes into an activation."""
        with ExitStack() as undo:
            for layer in _all_layers(self._model):
                if type(layer).__name__ == "BatchNormalization":
                    undo.enter_context(self._watch_input(layer))
                elif type(layer).__name__ in KERNELS and layer.bias is not None:
                    undo.enter_context(self._watch_sum(layer))
            yield

    @contextmanager
    def _watch_sum(self, layer: Any) -> Iterator[None]:
        activation = layer.activation

        def watched(tensor: Any) -> Any:
            self._seen.append((layer, tensor))
            return tensor if activation is None else activation(tensor)

        layer.activation = watched
        try:
            yield
        finally:
            layer.activation = activation

    @contextmanager
    def _watch_input(self, layer: Any) -> Iterator[None]:
        call = layer.call

        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self._seen.append((layer, inputs))
            return call(inputs, *args, **kwargs)

        layer.call = watched
        try:
            yield
        finally:
            del layer.call

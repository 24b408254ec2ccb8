"""The hidden units of a Keras model, read off its graph.

A layer that is known here treats all its units alike, so that they may be permuted; whatever else there is keeps the
units that it takes and gives in order, which is always right.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from task.structure import Structure
from task.unit_groups import Channels, Groups, joined

_ELEMENTWISE = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "tanh", "sigmoid"),
    *("hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "log_sigmoid", "exponential", "softplus", "softsign"),
    *("mish", "squareplus", "soft_shrink", "hard_shrink", "tanh_shrink", "threshold"),
}
_ELEMENTWISE_OPERATIONS = {  # of keras.ops, on one tensor
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu", "Softplus"),
    *("Softsign", "Tanh", "Exp", "Absolute", "Square", "Negative"),
}
_ALIKE = {  # layers without arrays along the last axis, which they keep and treat alike
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", "GaussianNoise"),
    *("AlphaDropout", "ActivityRegularization", "Identity", "ReLU", "LeakyReLU", "ELU"),
}
_SPATIAL = {
    *(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for n in (1, 2, 3)),
}
_MERGING = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
_CONVOLUTIONS = {f"Conv{n}D{kind}" for n in (1, 2, 3) for kind in ("", "Transpose")}
_STATISTICS = ("moving_mean", "moving_variance", "adapt_mean", "adapt_variance", "count")
_DEPTHWISE = {"DepthwiseConv1D", "DepthwiseConv2D"}
_SEPARABLE = {"SeparableConv1D", "SeparableConv2D"}


def structure_of(model: Any) -> Structure:
    """The hidden units of a built Keras 3 model, Sequential or Functional; others nested in it are entered.

    Known are Dense, convolutions in 1 to 3 dimensions (transposed ones too, but for groups > 1), depthwise and
    separable ones, BatchNormalization and LayerNormalization over the last axis, PReLU, Flatten, Reshape that keeps the
    last axis, pooling, padding, cropping, upsampling, dropout and noise, element-wise activations, scalar Rescaling,
    Concatenate, and sums, products, means, maxima and minima of tensors, which unite the groups of what they add.

    Any other layer, `channels_first`, softmax inside the model, and a graph that is not known (a model with a `call`
    of its own) keep the order of the units that they touch; `notes` names them. So do the inputs and outputs.
    """
    walk = _Walk()
    if (graph := _graph(model)) is None:
        walk.note(model, "is no Sequential or Functional graph")
    else:
        for tensor in graph.inputs:
            walk.channels[id(tensor)] = walk.groups.frozen(_width(tensor), "input")
        walk.finals = {id(tensor) for tensor in graph.outputs}
        walk.through(graph)
        walk.groups.freeze(*(walk.channels[id(tensor)] for tensor in graph.outputs))
    for variable in walk.opaque:
        walk.groups.freeze_array(variable)
    weights = list(model.weights)
    groups = walk.groups.collected({id(weight): i for i, weight in enumerate(weights)})
    statistics = {
        id(variable)
        for layer in model._flatten_layers()  # also those inside nested models
        if type(layer).__name__ in ("BatchNormalization", "Normalization")
        for variable in (getattr(layer, name, None) for name in _STATISTICS)
        if variable is not None
    }
    counted = tuple(id(weight) not in statistics and "float" in str(weight.dtype) for weight in weights)
    return Structure(groups, counted, tuple(walk.notes))


class _UnknownError(Exception):
    """Why an operation is not known."""


class _Walk:
    """One walk over a graph.

    Attributes:
        groups: what was found.
        channels: of each tensor by id.
        notes: what is not known.
        opaque: ids of variables of unknown layers.
        finals: ids of the tensors that are outputs of the model.
    """

    def __init__(self) -> None:
        self.groups = Groups()
        self.channels: dict[int, Channels] = {}
        self.notes: list[str] = []
        self.opaque: list[int] = []
        self.finals: set[int] = set()
        self._final = False  # whether the operation at hand gives an output of the model
        self._made: dict[int, Channels] = {}  # by id of the layer: a layer that is called again makes the same units

    def note(self, operation: Any, reason: str) -> None:
        """Say once why units of an operation keep their order."""
        line = f"{operation.name} ({type(operation).__name__}) {reason}: its units keep their order"
        if line not in self.notes:
            self.notes.append(line)

    def through(self, graph: Any) -> None:
        """All operations between inputs, whose channels are known, and outputs."""
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if not node.is_input and all(id(x) in self.channels for x in node.input_tensors):
                    self._operation(node)

    def _operation(self, node: Any) -> None:
        operation, inputs = node.operation, [self.channels[id(x)] for x in node.input_tensors]
        self._final = any(id(x) in self.finals for x in node.outputs)
        if (inner := _graph(operation)) is not None and len(inner.inputs) == len(inputs):
            self.channels |= {id(x): channels for x, channels in zip(inner.inputs, inputs, strict=True)}
            self.finals |= {id(y) for x, y in zip(node.outputs, inner.outputs, strict=True) if id(x) in self.finals}
            self.through(inner)
            outputs = [self.channels[id(x)] for x in inner.outputs]
        else:
            held = self.groups.are_frozen(*inputs)
            try:
                outputs = [self._output(node, inputs)]
                if len(node.outputs) != 1 or len(outputs[0]) != _width(node.outputs[0]):
                    raise _UnknownError("gives another number of values than expected")
            except _UnknownError as error:
                variables = [id(variable) for variable in getattr(operation, "variables", ())]
                if variables or not held:  # else nothing is lost
                    self.note(operation, str(error))
                self.groups.freeze(*inputs)
                self.opaque += variables
                outputs = [self.groups.frozen(_width(x), operation.name) for x in node.outputs]
        self.channels |= {id(x): channels for x, channels in zip(node.outputs, outputs, strict=True)}

    def _output(self, node: Any, inputs: list[Channels]) -> Channels:
        """The channels of an operation's one output.

        Raises:
            _UnknownError: where it is not known what it does to its units.
        """
        operation = node.operation
        kind, module = type(operation).__name__, type(operation).__module__
        if not module.startswith(("keras.src.layers.", "keras.src.ops.")):
            raise _UnknownError("is a layer of its own kind")
        in_layers = module.startswith("keras.src.layers.")
        if getattr(operation, "data_format", None) == "channels_first":
            raise _UnknownError("has its channels first")
        if kind in (_MERGING if in_layers else _MERGING - {"Average"}):  # keras.ops.average is another matter
            return self._merged(node, inputs)
        if kind == "Concatenate":
            return self._concatenated(node, inputs)
        if len(inputs) != 1 or not (in_layers or kind in _ELEMENTWISE_OPERATIONS):
            raise _UnknownError("is an operation that is not known here")
        if kind in _ELEMENTWISE_OPERATIONS or kind in _ALIKE or kind in _SPATIAL:
            return inputs[0]
        if kind in _CONVOLUTIONS:
            return self._convolution(operation, inputs[0], kind.endswith("Transpose"))
        rules: dict[str, Callable[[Any, Channels], Channels]] = {
            "Dense": self._dense,
            **dict.fromkeys(_DEPTHWISE, self._depthwise),
            **dict.fromkeys(_SEPARABLE, self._separable),
            "Activation": self._activation,
            "Softmax": self._softmax,
            "PReLU": self._prelu,
            "Rescaling": self._rescaled,
        }
        if kind in ("BatchNormalization", "LayerNormalization"):
            return self._normalised(node, inputs[0])
        if kind in ("Flatten", "Reshape"):
            return self._flattened(node, inputs[0])
        if kind not in rules:
            raise _UnknownError("is a layer that is not known here")
        return rules[kind](operation, inputs[0])

    def _dense(self, layer: Any, inputs: Channels) -> Channels:
        self._only(layer, ("kernel", "bias"))
        self._stand(layer.kernel, 0, inputs)
        return self._units(layer, layer.units, [(layer.kernel, 1), (layer.bias, 0)])

    def _convolution(self, layer: Any, inputs: Channels, transposed: bool) -> Channels:
        self._only(layer, ("kernel", "bias"))
        if getattr(layer, "groups", 1) != 1:
            raise _UnknownError("is a convolution in groups")
        rank = layer.rank
        into, out = (rank + 1, rank) if transposed else (rank, rank + 1)
        self._stand(layer.kernel, into, inputs)
        return self._units(layer, layer.filters, [(layer.kernel, out), (layer.bias, 0)])

    def _depthwise(self, layer: Any, inputs: Channels) -> Channels:
        self._only(layer, ("kernel", "bias"))
        outputs = inputs.repeated(layer.depth_multiplier)
        self._stand(layer.kernel, layer.rank, inputs)
        self._stand(layer.bias, 0, outputs)
        self._after(layer, outputs)
        return outputs

    def _separable(self, layer: Any, inputs: Channels) -> Channels:
        self._only(layer, ("depthwise_kernel", "pointwise_kernel", "bias"))
        self._stand(layer.depthwise_kernel, layer.rank, inputs)
        self._stand(layer.pointwise_kernel, layer.rank, inputs.repeated(layer.depth_multiplier))
        return self._units(layer, layer.filters, [(layer.pointwise_kernel, layer.rank + 1), (layer.bias, 0)])

    def _normalised(self, node: Any, inputs: Channels) -> Channels:
        layer, last = node.operation, len(node.outputs[0].shape) - 1
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        self._only(layer, names)
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0] if len(layer.axis) == 1 else None
        if axis not in (-1, last):
            raise _UnknownError("does not normalise the last axis alone")
        for name in names:
            self._stand(getattr(layer, name, None), 0, inputs)
        return inputs

    def _activation(self, layer: Any, inputs: Channels) -> Channels:
        self._after(layer, inputs)
        return inputs

    def _softmax(self, _: Any, inputs: Channels) -> Channels:
        if not self._final:
            raise _UnknownError("compares units with each other")
        self.groups.freeze(inputs)
        return inputs

    def _prelu(self, layer: Any, inputs: Channels) -> Channels:
        self._only(layer, ("alpha",))
        shape = layer.alpha.shape
        if shape[-1] != 1:
            self._stand(layer.alpha, len(shape) - 1, inputs)
        return inputs

    def _rescaled(self, layer: Any, inputs: Channels) -> Channels:
        if np.ndim(layer.scale) or np.ndim(layer.offset):
            raise _UnknownError("scales each unit in its own way")
        return inputs

    def _flattened(self, node: Any, inputs: Channels) -> Channels:
        before, after = node.input_tensors[0].shape, node.outputs[0].shape
        if len(before) < 2:  # one value an example
            raise _UnknownError("makes an axis of its own")
        if after[-1] == before[-1]:
            return inputs
        places = before[1:-1]
        if len(after) == 2 and None not in places:
            return inputs.tiled(int(np.prod(places)))
        raise _UnknownError("mixes its last axis with others")

    def _merged(self, node: Any, inputs: list[Channels]) -> Channels:
        others = [x for x in node.arguments._flat_arguments if not any(x is t for t in node.input_tensors)]
        if any(x is not None and np.ndim(x) for x in others):
            raise _UnknownError("has a constant for each unit")
        width = _width(node.outputs[0])
        whole = [one for one in inputs if len(one) == width]  # one value beside many is the same for all of them
        if not whole or any(len(one) not in (1, width) for one in inputs):
            raise _UnknownError("joins tensors that do not correspond")
        return self._united(whole)

    def _concatenated(self, node: Any, inputs: list[Channels]) -> Channels:
        axis, rank = node.operation.axis, len(node.outputs[0].shape)
        if axis % rank == rank - 1:
            return joined(inputs)
        return self._united(inputs)

    def _united(self, inputs: list[Channels]) -> Channels:
        for other in inputs[1:]:
            if not self.groups.unite(inputs[0], other):
                raise _UnknownError("joins units that do not correspond")
        return inputs[0]

    def _units(self, layer: Any, size: int, places: list[tuple[Any, int]]) -> Channels:
        """The units that a layer makes, which stand at these places."""
        outputs = self._made.setdefault(id(layer), self.groups.new(size, layer.name))
        for variable, axis in places:
            self._stand(variable, axis, outputs)
        self._after(layer, outputs)
        return outputs

    def _stand(self, variable: Any, axis: int, channels: Channels) -> None:
        if variable is None:
            return
        if variable.shape[axis] != len(channels):
            raise _UnknownError("has an array of another size than expected")
        if not self.groups.stand(id(variable), axis, channels):
            raise _UnknownError("meets units in different orders")

    def _after(self, layer: Any, outputs: Channels) -> None:
        """Freeze what an activation may not treat alike."""
        activation = getattr(layer, "activation", None)
        name, module = getattr(activation, "__name__", ""), getattr(activation, "__module__", "")
        if activation is None or (module.startswith("keras.") and name in _ELEMENTWISE):
            return
        self.groups.freeze(outputs)
        if not self._final:  # what the model gives keeps its order anyway
            self.note(layer, f"has the activation {name or type(activation).__name__}, not known as element-wise")

    def _only(self, layer: Any, names: tuple[str, ...]) -> None:
        """Refuse a layer with arrays beside these."""
        known = {id(getattr(layer, name, None)) for name in names}
        if any(id(variable) not in known for variable in layer.weights):
            raise _UnknownError("has arrays that are not known here")


def _graph(model: Any) -> Any | None:
    """The graph of a Sequential or Functional model without a `call` of its own; None for anything else."""
    call = getattr(type(model), "call", None)
    origin = getattr(call, "__module__", "")
    if origin == "keras.src.models.sequential":
        return model._functional
    return model if origin == "keras.src.models.functional" else None


def _width(tensor: Any) -> int:
    """The length of the last axis, 1 where there is none or it is not known."""
    return int(tensor.shape[-1] or 1) if len(tensor.shape) > 1 else 1

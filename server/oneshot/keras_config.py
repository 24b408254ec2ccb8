"""What config.json of a `.keras` file may name, and whether two of them describe one architecture.

Keras imports and calls what a config names. Its own safe mode stops lambdas only, so nothing goes to Keras here that
is not on these lists: no custom class, no function but the usual activations, no layer that reads files or carries a
program of its own.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from server.oneshot.keras_archive import Archive
from task.errors import UserError, shown

LAYERS = frozenset(
    {
        *("InputLayer", "Dense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose"),
        *("Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
        *("EinsumDense", "Embedding", "BatchNormalization", "LayerNormalization", "GroupNormalization"),
        *("RMSNormalization", "UnitNormalization", "Normalization", "Rescaling", "Activation", "ReLU"),
        *("LeakyReLU", "PReLU", "ELU", "Softmax", "Identity", "Dropout", "AlphaDropout", "GaussianDropout"),
        *("GaussianNoise", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
        *("ActivityRegularization", "Flatten", "Reshape", "Permute", "RepeatVector", "Add", "Subtract"),
        *("Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot", "MaxPooling1D", "MaxPooling2D"),
        *("MaxPooling3D", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "GlobalMaxPooling1D"),
        *("GlobalMaxPooling2D", "GlobalMaxPooling3D", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
        *("GlobalAveragePooling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Cropping1D"),
        *("Cropping2D", "Cropping3D", "UpSampling1D", "UpSampling2D", "UpSampling3D", "Resizing", "CenterCrop"),
    }
)
"""Layers that compute something out of their input and their weights, and nothing else."""

MODELS = {
    ("keras", "Sequential"),
    ("keras", "Functional"),
    ("keras.models", "Sequential"),
    ("keras.models", "Functional"),
    ("keras.src.models.sequential", "Sequential"),
    ("keras.src.models.functional", "Functional"),
}

ACTIVATIONS = frozenset(
    {
        *("celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu"),
        *("hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu"),
        *("relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus"),
        *("sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink", "threshold"),
    }
)

HELPERS = frozenset({"keras.initializers", "keras.regularizers", "keras.constraints"})
"""Modules of which any class may be named: they hold nothing but small formulas."""

_IGNORED = frozenset(
    {"name", "trainable", "seed", "shared_object_id", "build_config", "build_input_shape", "compile_config", "dtype"}
    | {"registered_name", "module"}
)
_ENDINGS = ("_initializer", "_regularizer", "_constraint")


def check_config(archive: Archive) -> None:
    """Refuse a config that names anything but plain layers.

    Raises:
        UserError: a lambda, a custom or unlisted class or function, or other numbers than float32.
    """
    path, config = archive.path, archive.config
    kind = config.get("module"), config.get("class_name")
    if not _are_texts(kind) or kind not in MODELS:
        raise UserError(
            f"{path}: is a {_named(config)}, not a Sequential or Functional model; rebuild it as one and save it anew"
        )
    for node in _dicts({**config, "compile_config": None}):
        if "class_name" in node or "module" in node:
            _check_object(node, path)
        for key in ("dtype", "compute_dtype", "variable_dtype"):
            if isinstance(node.get(key), str) and node[key] != "float32":
                raise UserError(
                    f"{path}: computes in {shown(node[key])}; only float32 is combined: save it with that dtype"
                )
        if node.get("quantization_config") is not None or node.get("lora_rank") is not None:
            raise UserError(f"{path}: holds a quantised or LoRA layer; save the plain float32 model")


def _check_object(node: dict[str, Any], path: Path) -> None:
    module, name, inner = node.get("module"), node.get("class_name"), node.get("config")
    registered = node.get("registered_name")
    if module is None and name == "__keras_tensor__":
        return
    if name in ("Lambda", "__lambda__"):
        raise UserError(f"{path}: holds a Lambda, which is code and never run; use a plain Keras layer instead")
    known = registered in (None, "", name) or (name == "function" and registered == inner)
    if known and isinstance(module, str) and isinstance(name, str):
        if module == "keras.layers" and name in LAYERS:
            return
        if (module, name) in MODELS:
            return
        if (
            name == "function"
            and module in ("builtins", "keras.activations")
            and _are_texts([inner])
            and inner in ACTIVATIONS
        ):
            return
        if module == "keras" and name == "DTypePolicy":
            if isinstance(inner, dict) and inner.get("name") == "float32":
                return
            raise UserError(f"{path}: has a dtype policy other than float32; save the model in plain float32")
        if module in HELPERS and name.isidentifier() and _is_class(module, name):
            return
    raise UserError(
        f"{path}: names {_named(node)}, which is no plain Keras layer and is never loaded; "
        "build the model of layers of keras.layers alone"
    )


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_class(module: str, name: str) -> bool:
    from task.backend import load

    keras, _ = load()
    return isinstance(getattr(getattr(keras, module.split(".")[1]), name, None), type)


def check_same(one: Archive, other: Archive) -> None:
    """Refuse two files of different architectures.

    Raises:
        UserError: names both files, the first layer that differs, and in what.
    """
    first, second = _layers(one.config), _layers(other.config)
    for position, (a, b) in enumerate(zip(first, second, strict=False)):
        if difference := _difference(a, b):
            raise UserError(
                f"{other.path} and {one.path} are of different architectures: layer {position} {difference}; "
                "only models of one architecture can be combined"
            )
    if len(first) != len(second):
        raise UserError(
            f"{other.path} and {one.path} are of different architectures: {len(second)} layers and {len(first)}; "
            "only models of one architecture can be combined"
        )


def _layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers without names and without what matters to training only, in order, wired by position."""
    inner = config.get("config") or {}
    layers = inner.get("layers") or []
    names = [str((layer.get("config") or {}).get("name", layer.get("name"))) for layer in layers]
    if names and config.get("class_name") == "Sequential" and layers[0].get("class_name") != "InputLayer":
        layers = [{"class_name": "InputLayer", "config": {"batch_shape": inner.get("build_input_shape")}}, *layers]
    places = {name: f"#{place}" for place, name in enumerate(names)}
    wiring = [{"class_name": "outputs", "config": inner.get("output_layers")}] if "output_layers" in inner else []
    return [_plain(layer, places) for layer in (*layers, *wiring)]


def _plain(node: Any, places: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            key: _plain(value, places)
            for key, value in node.items()
            if key not in _IGNORED and not key.endswith(_ENDINGS)
        }
    if isinstance(node, list):
        return [_plain(value, places) for value in node]
    return places.get(node, node) if isinstance(node, str) else node


def _difference(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    if a.get("class_name") != b.get("class_name"):
        return f"is {shown(b.get('class_name'))} in the one and {shown(a.get('class_name'))} in the other"
    mine, theirs = a.get("config") or {}, b.get("config") or {}
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                values = (shown(theirs.get(key), 60), shown(mine.get(key), 60))
                return f"({a.get('class_name')}) has {key} {values[0]} in the one and {values[1]} in the other"
    return None if a == b else f"({a.get('class_name')}) is wired differently"


def _dicts(node: Any) -> Iterator[dict[str, Any]]:
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _named(node: dict[str, Any]) -> str:
    inner = node.get("config")
    name = inner if node.get("class_name") == "function" and isinstance(inner, str) else node.get("class_name")
    words = f"{node.get('module') or '(no module)'}.{name}"
    registered = node.get("registered_name")
    return shown(words if registered in (None, name) else f"{words} (registered as {registered})")

"""The architectures, used locally and globally, and the user's own by name."""

import hashlib
import importlib
import inspect
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from task import seeds
from task.backend import load
from task.errors import UserError, describe
from task.update import Arrays

MODELS = ("cnn", "mlp")
_SENDABLE = {
    np.dtype(code).name for code in f"?efd{np.typecodes['AllInteger']}"
}  # what `np.save` writes and reads back

_building = threading.Lock()


def build_model(
    name: str, input_shape: tuple[int, ...], num_classes: int, seed: int = 0, client: int | None = None
) -> Any:
    """A Keras model with initial weights that depend on the seed, and the client where one is given, only.

    Args:
        name: "cnn" (conv 16, pool, conv 64, pool, dense 64; 112,554 parameters on 28 x 28 images), "mlp" (dense
            128, dense 64), or "package.module:function" for the user's own: a function that returns a Keras model,
            called with those of `input_shape` and `num_classes` that it takes.
        input_shape: of one example, without the batch axis.
        num_classes: width of the output.
        seed: the run's seed.
        client: whose own initial weights; None: the common ones.

    Returns:
        A built, uncompiled model that maps (batch, *input_shape) float32 to (batch, num_classes): logits, or
        probabilities when its last activation is softmax.

    Raises:
        UserError: unknown name, a function that cannot be imported or raises, or a result that does not fit.
    """
    keras, _ = load()
    # Not `seeds.integer(seed, "model", client)`: client 0 would draw the common ones, as NumPy pads seeds with zeros.
    drawn = seeds.integer(seed, "model") if client is None else seeds.integer(seed, "own model", client)
    with _seeded(keras, drawn):
        if name == "cnn":
            return _cnn(keras, input_shape, num_classes)
        if name == "mlp":
            return _mlp(keras, input_shape, num_classes)
        if ":" not in name:
            raise UserError(
                f"unknown model {name!r}; there are {', '.join(MODELS)}, or your own as package.module:function"
            )
        return _own(keras, name, input_shape, num_classes)


@contextmanager
def _seeded(keras: Any, drawn: int) -> Iterator[None]:
    """All initial weights are drawn from this seed, whatever other threads do.

    Keras draws the seed of each initializer from Python's global generator, which other threads draw from, too: Ray's
    do while they connect. So it gets a generator of its own, in the same state, for as long as a model is built.
    """
    from keras.src.random import seed_generator

    with _building:
        keras.utils.set_random_seed(drawn)
        everyones = seed_generator.python_random
        seed_generator.python_random = random.Random(drawn)  # noqa: S311 - initial weights are no secret
        try:
            yield
        finally:
            seed_generator.python_random = everyones


def initial_arrays(model: Any) -> Arrays:
    """What is exchanged and averaged: `model.get_weights()`, trainable and not.

    Keras counts BatchNorm's running statistics among them, but neither the state of seed generators nor metrics.
    """
    return [np.asarray(array) for array in model.get_weights()]


def layout_of(arrays: Arrays) -> str:
    """Return a hash of the shapes and dtypes of a model's arrays, by which two machines see that theirs differ."""
    layout = repr([(np.shape(array), np.asarray(array).dtype.str) for array in arrays])
    return hashlib.sha256(layout.encode()).hexdigest()[:16]


def trainable_mask(model: Any) -> list[bool]:
    """For each exchanged array whether gradients move it."""
    trained = {id(v) for v in model.trainable_variables}
    return [id(v) in trained for v in model.weights]


def gives_logits(model: Any) -> bool:
    """Whether the output still needs a softmax."""
    last = model.layers[-1]
    return not (
        type(last).__name__ == "Softmax"
        or getattr(last.get_config().get("activation"), "__name__", None) == "softmax"
        or last.get_config().get("activation") == "softmax"
    )


def _cnn(keras: Any, input_shape: tuple[int, ...], num_classes: int) -> Any:
    if len(input_shape) != 3 or min(input_shape[:2]) < 4:
        raise UserError(f"the model cnn needs images of at least 4 x 4, not examples of shape {input_shape}; use mlp")
    # Small images keep their border, or the second convolution would find nothing left.
    padding = "valid" if min(input_shape[:2]) >= 16 else "same"
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(16, 3, padding=padding, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding=padding, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(num_classes),
        ],
        name="cnn",
    )


def _mlp(keras: Any, input_shape: tuple[int, ...], num_classes: int) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(num_classes),
        ],
        name="mlp",
    )


def _own(keras: Any, name: str, input_shape: tuple[int, ...], num_classes: int) -> Any:
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        wanted = inspect.signature(function).parameters
        known = {"input_shape": input_shape, "num_classes": num_classes}
        model = function(**{key: value for key, value in known.items() if key in wanted})
    except (Exception, SystemExit) as error:  # whatever the user's code raises is the user's to mend
        raise UserError(f"model {name}: {describe(error, 1000)}") from error
    if not isinstance(model, keras.Model):
        raise UserError(f"model {name}: the function returned {type(model).__name__}, not a Keras model")
    try:
        output = tuple(model.compute_output_shape((None, *input_shape)))
        if not model.built:
            model.build((None, *input_shape))
    except Exception as error:
        raise UserError(
            f"model {name} does not take examples of shape {input_shape}: {' '.join(str(error).split())}"
        ) from error
    if output != (None, num_classes):
        raise UserError(f"model {name} gives {output} where (None, {num_classes}) is needed: one value a class")
    if not model.trainable_variables:
        raise UserError(f"model {name} has nothing to train")
    for variable in model.weights:
        if str(variable.dtype) not in _SENDABLE:
            raise UserError(
                f"model {name}: {variable.path} is of {variable.dtype}, which arrays cannot be sent in; keep weights "
                "in float32 (the dtype policy mixed_bfloat16 computes in bfloat16 and does)"
            )
    return model

"""Finished `.keras` files, loaded without trust: no code of theirs ever runs."""

import copy
import json
import math
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from server.oneshot.keras_archive import CONFIG, WEIGHTS, Archive, read_archive
from server.oneshot.keras_config import check_config, check_same
from task.backend import load
from task.errors import UserError, describe, shown
from task.update import Arrays


def load_models(paths: Sequence[Path]) -> tuple[Any, list[Arrays]]:
    """Models of one architecture.

    Args:
        paths: the files, at least one.

    Returns:
        A Keras model of the architecture, uncompiled, with the weights of the first file; and the arrays of each file
        in the order of `model.get_weights()`.

    Raises:
        UserError: naming the file, what is wrong with it and how to mend it; nothing that a file holds was run.
    """
    template, arrays = None, []
    first: Archive | None = None
    for path in paths:
        archive = read_archive(path)
        check_config(archive)
        if first:
            check_same(first, archive)
        model = _load(archive)
        arrays.append(_arrays(model, path))
        if template is None:
            first, template = replace(archive, weights=b""), model
            _check_shape(model, path)
        elif shapes(arrays[-1]) != shapes(arrays[0]):
            raise UserError(f"{path} and {paths[0]} have weights of other shapes; give models of one architecture")
    return template, arrays


def shapes(arrays: Arrays) -> list[tuple[int, ...]]:
    """The shape of each array."""
    return [array.shape for array in arrays]


def _load(archive: Archive) -> Any:
    """Hand the checked parts, and nothing else of the file, to Keras."""
    keras, _ = load()
    config = {**archive.config, "compile_config": None}
    with tempfile.TemporaryDirectory(prefix="fedarena-") as folder:
        clean = Path(folder) / "model.keras"
        with zipfile.ZipFile(clean, "w") as target:
            target.writestr("metadata.json", "{}")
            target.writestr(CONFIG, json.dumps(config))
            target.writestr(WEIGHTS, archive.weights)
        try:
            needed = _numbers(keras, config)
            if needed > archive.numbers:
                raise UserError(
                    f"{archive.path}: its config describes {needed:,} weights, but it holds {archive.numbers:,}; "
                    "save the model anew with model.save"
                )
            model = keras.saving.load_model(clean, compile=False, safe_mode=True)
        except UserError:
            raise
        except Exception as error:  # whatever Keras makes of a config and weights that do not fit
            raise UserError(
                f"{archive.path}: Keras cannot load it ({shown(describe(error), 200)}); save it with a current Keras 3"
            ) from error
    model.trainable = True  # what was frozen for its training is no less a weight
    return model


def _numbers(keras: Any, config: dict[str, Any]) -> int:
    """How many numbers the weights of a config's model are, without making room for any of them."""
    from keras.src.backend.common import global_state

    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)
    global_state.set_global_attribute("uninitialized_variables", [])  # or Keras makes them at the next occasion
    return sum(math.prod(variable.shape) for variable in model.weights)


def _arrays(model: Any, path: Path) -> Arrays:
    arrays = [np.array(array) for array in model.get_weights()]
    for array, variable in zip(arrays, model.weights, strict=True):
        if array.dtype != np.float32:
            raise UserError(
                f"{path}: its weight {shown(variable.path)} is {array.dtype}; save the model in plain float32"
            )
        if not np.isfinite(array).all():
            raise UserError(
                f"{path}: its weight {shown(variable.path)} holds NaN or infinity: training diverged; repeat it"
            )
    return arrays


def _check_shape(model: Any, path: Path) -> None:
    if not model.built or len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        raise UserError(f"{path}: a model with one input and one output is needed; build and save such a one")
    if None in model.inputs[0].shape[1:]:
        raise UserError(f"{path}: takes {model.inputs[0].shape[1:]}; fix the size of its input and save it anew")
    shape = tuple(model.outputs[0].shape)
    if len(shape) != 2 or not isinstance(shape[1], int) or shape[1] < 2:
        raise UserError(f"{path}: gives {shape} where (None, classes) is needed, one value for each of two or more")
    if not model.trainable_variables and not model.weights:
        raise UserError(f"{path}: has no weights; there is nothing to combine")

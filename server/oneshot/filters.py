"""The first layer's filters of several models as small images, so that one sees which hidden units are alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.oneshot.combination import Combination

_MOST_MODELS = 6  # rows of a picture
_MOST_UNITS = 16  # columns

Images = NDArray[np.float64]


@dataclass(frozen=True)
class Filters:
    """Incoming weights of the first hidden units.

    Attributes:
        layer: its name.
        what: what one image is, for people.
        before: (models, units, height, width), columns in the same order as those of `after`.
        after: with the units matched, columns from those that agree best to those that agree least.
        units: numbers of the units in the first model, one for each column.
        all_units: how many units the layer has.
        agreement: before and after, over all units: mean cosine between two models' filters of one position, -1..1.
    """

    layer: str
    what: str
    before: Images
    after: Images
    units: tuple[int, ...]
    all_units: int
    agreement: tuple[float, float]


def filters(combination: Combination) -> Filters | str:
    """The filters of the first models before and after matching, or a sentence that says why there are none to see."""
    found = _first(combination)
    if isinstance(found, str):
        return found
    layer, index, what, (height, width) = found

    def images(models: Sequence[Sequence[np.ndarray]]) -> Images:
        kernels = np.stack([np.asarray(model[index], np.float64) for model in models])
        kernels = kernels.reshape(len(models), height, width, -1, kernels.shape[-1]).mean(3)  # over channels
        return np.moveaxis(kernels, -1, 1)

    before = images([update.arrays for update in combination.material.locals])
    after = images(combination.matching.models)
    alike = _cosines(after)
    order = np.argsort(-alike, kind="stable")
    if len(order) > _MOST_UNITS:  # from the best to the worst, not the best alone
        order = order[np.linspace(0, len(order) - 1, _MOST_UNITS).round().astype(int)]
    return Filters(
        layer=layer,
        what=what,
        before=before[:_MOST_MODELS, order],
        after=after[:_MOST_MODELS, order],
        units=tuple(int(unit) for unit in order),
        all_units=len(alike),
        agreement=(float(_cosines(before).mean()), float(alike.mean())),
    )


def _first(combination: Combination) -> tuple[str, int, str, tuple[int, int]] | str:
    """The first layer with weights: its name, its kernel's index, what an image of it is, and the image's size."""
    model, structure = combination.material.model, combination.material.structure
    layer = next((layer for layer in _layers(model) if layer.weights and hasattr(layer, "kernel")), None)
    index = next((i for i, w in enumerate(model.weights) if layer is not None and w is layer.kernel), None)
    if layer is None or index is None or any(other.weights for other in _before(model, layer)):
        return "No picture of filters: the model does not begin with a Dense or Conv2D layer."
    shape = tuple(layer.kernel.shape)
    places = [place for group in structure.groups for place in group.places]
    if not any(place.array == index and place.axis == len(shape) - 1 for place in places):
        return f"No picture of filters: the units of the first layer, {layer.name}, keep their order in this model."
    if type(layer).__name__ == "Conv2D" and min(shape[:2]) > 1:
        mean = "" if shape[2] == 1 else f", the mean over its {shape[2]} input channels"
        return layer.name, index, f"one {shape[0]} x {shape[1]} filter{mean}", (shape[0], shape[1])
    example = tuple(model.input_shape[1:]) if isinstance(model.input_shape, tuple) else ()
    if type(layer).__name__ == "Dense" and len(example) in (2, 3) and np.prod(example) == shape[0]:
        mean = "" if len(example) == 2 or example[2] == 1 else ", the mean over its channels"
        size = f"{example[0]} x {example[1]}"
        return layer.name, index, f"the weights of one unit, laid out as the {size} image{mean}", example[:2]
    return f"No picture of filters: the weights of the first layer, {layer.name}, are no images."


def _layers(model: Any) -> Iterator[Any]:
    """All layers, those of nested models in their place."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _before(model: Any, layer: Any) -> Iterator[Any]:
    for other in _layers(model):
        if other is layer:
            return
        yield other


def _cosines(images: Images) -> NDArray[np.float64]:
    """For each unit the mean cosine over all pairs of models, (units,); a zero filter agrees with nothing."""
    vectors = images.reshape(*images.shape[:2], -1)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    units = vectors / np.where(lengths > 0, lengths, 1)
    pairs = len(images) * (len(images) - 1)
    products = np.einsum("iud,jud->u", units, units) - np.square(units).sum((0, 2))
    return np.asarray(products / pairs)

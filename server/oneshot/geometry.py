"""How far models lie apart, and in which directions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from task.update import Arrays


@dataclass(frozen=True)
class Geometry:
    """Models as points, over the arrays that count.

    Attributes:
        distances: (m, m) L2 distances.
        angles: (m, m) degrees between the models, seen from the origin; NaN where a model is zero.
        to_mean: (m,) L2 distances to the mean of all.
    """

    distances: NDArray[np.float64]
    angles: NDArray[np.float64]
    to_mean: NDArray[np.float64]


def geometry(models: Sequence[Arrays], counted: Sequence[bool]) -> Geometry:
    """Distances and angles between models, in float64.

    Args:
        models: m >= 1 models of one architecture.
        counted: for each array whether it counts, see `Structure.counted`.
    """
    size = len(models)
    products, offsets = np.zeros((size, size)), np.zeros((size, size))
    for index, counts in enumerate(counted):
        if counts:
            points = np.stack([np.asarray(model[index], np.float64).ravel() for model in models])
            products += points @ points.T
            points -= points[0].copy()  # distances do not depend on the origin, and lose fewer digits near the models
            offsets += points @ points.T
    own = np.diag(offsets)
    norms = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        angles = np.degrees(np.arccos(np.clip(products / np.outer(norms, norms), -1, 1)))
    np.fill_diagonal(angles, np.where(norms > 0, 0.0, np.nan))
    return Geometry(
        distances=_roots(own[:, None] + own[None, :] - 2 * offsets),
        angles=angles,
        to_mean=_roots(own - 2 * offsets.mean(1) + offsets.mean()),
    )


def _roots(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square roots of what cannot be negative but by rounding."""
    return np.asarray(np.sqrt(np.maximum(squares, 0)))

"""Data that is wrong: what an outlier holds by accident, and what an attacker does to its labels.

Only shards are corrupted, never a test set.
"""

import numpy as np

from task.arrays import Array
from task.errors import UserError
from task.features import Span
from task.scenario import Outlier


def flipped(y: Array, num_classes: int) -> Array:
    """Labels of an attacker: y becomes num_classes - 1 - y.

    The label flip of Fang et al. 2020 (arXiv:1911.11815, section 5), as Blades (arXiv:2206.05359) and ByzFL
    (arXiv:2505.24802) define it.

    Args:
        y: shape (n,), in 0..num_classes-1.
        num_classes: number of classes; the middle one of an odd number stays as it is.

    Returns:
        Shape (n,), int32.
    """
    return np.int32(num_classes - 1) - y.astype(np.int32)


def outlier_labels(y: Array, outlier: Outlier, num_classes: int, rng: np.random.Generator) -> Array:
    """Labels of an outlier.

    Args:
        y: shape (n,).
        outlier: of kind `labels`: all are drawn anew, uniformly from all classes; else they stay.
        num_classes: number of classes.
        rng: draws them.

    Returns:
        Shape (n,), integers.
    """
    return rng.integers(num_classes, size=len(y), dtype=np.int32) if outlier.kind == "labels" else y


def outlier_images(x: Array, outlier: Outlier, span: Span, rng: np.random.Generator) -> Array:
    """Images of an outlier.

    Args:
        x: shape (n, ...), in the stored dtype.
        outlier: of kind `noise`: every pixel is drawn uniformly from the span; `unscaled`: `factor` times as large;
            else they stay.
        span: of the whole data set.
        rng: draws the noise.

    Returns:
        Same shape; same dtype, but of `unscaled` the float dtype that holds such pixels, to be divided by the same
        scale as all others.

    Raises:
        UserError: pixels times factor are more than the model's numbers can hold.
    """
    low, high = span
    if outlier.kind == "noise":
        if x.dtype.kind == "f":
            wide = np.result_type(x.dtype, np.float32)
            return (low + (high - low) * rng.random(x.shape, wide)).astype(x.dtype)
        drawn: Array = rng.integers(int(low), int(high), x.shape, x.dtype, endpoint=True)
        return drawn
    if outlier.kind == "unscaled":
        if outlier.factor * max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
            raise UserError(f"{outlier.name}: factor={outlier.factor:g} makes infinite pixels; give a smaller one")
        wide = np.result_type(x.dtype, np.float32)
        x = x.astype(wide) * wide.type(outlier.factor)
    return x

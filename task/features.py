"""The same classes, but they look different at each client: noise, rotation or brightness that differs in strength.

After Li et al. 2022 (arXiv:2102.02079, section 4.2): the strength grows with the client's number. Test sets stay as
they are.
"""

import numpy as np

from task.arrays import Array
from task.errors import UserError
from task.scenario import FeatureSkew

Span = tuple[float, float]
"""The smallest and the largest pixel of a data set."""


def check(skew: FeatureSkew, shape: tuple[int, ...]) -> None:
    """See that examples can be changed like this.

    Args:
        skew: how.
        shape: of all examples, (n, ...).

    Raises:
        UserError: rotation of what is no image (h, w) or (h, w, c).
    """
    if skew.kind == "rotation" and len(shape) not in (3, 4):
        raise UserError(
            f"{skew.name}: rotation is of images (h, w) or (h, w, c), these examples have shape {shape[1:]}; "
            "give kind=noise or kind=brightness"
        )


def strength(skew: FeatureSkew, client: int, clients: int) -> float:
    """How strongly the examples of one client are changed.

    Args:
        skew: kind and s.
        client: its number k, 0..clients-1.
        clients: m.

    Returns:
        Noise: the standard deviation as a share of the pixel range, s k / (m - 1). Rotation: degrees,
        s (2 k - m + 1) / (m - 1). Brightness: the factor of the pixels, 1 - s k / (m - 1). A client alone keeps its
        data.
    """
    steps = max(clients - 1, 1)
    if skew.kind == "rotation":
        return skew.s * (2 * client - clients + 1) / steps
    share = skew.s * client / steps
    return share if skew.kind == "noise" else 1 - share


def told(skew: FeatureSkew, client: int, clients: int) -> str:
    """What happened to the examples of one client, in words: "noise 0.25", "rotated -22.5°", "brightness 0.6"."""
    value = strength(skew, client, clients)
    return {
        "noise": f"noise {value:.4g}",
        "rotation": f"rotated {value:.4g}°",
        "brightness": f"brightness {value:.4g}",
    }[skew.kind]


def skewed(x: Array, skew: FeatureSkew, client: int, clients: int, span: Span, rng: np.random.Generator) -> Array:
    """One client's examples, changed.

    Args:
        x: shape (n, ...), in the stored dtype.
        skew: kind and s.
        client: its number.
        clients: of the federation.
        span: of the whole data set. Noise is a share of it and clipped to it; where an image is rotated in, the corners
            get its lower end.
        rng: draws the noise.

    Returns:
        Same shape and dtype; integers are rounded.
    """
    low, high = span
    value = strength(skew, client, clients)
    exact = x.astype(np.result_type(x.dtype, np.float32))
    if skew.kind == "noise":
        noise = rng.standard_normal(exact.shape, exact.dtype)
        exact = np.clip(exact + exact.dtype.type(value * (high - low)) * noise, low, high)
    elif skew.kind == "rotation":
        from scipy.ndimage import rotate

        # Bilinear, so no pixel leaves the span; seen as a picture, a positive angle turns it counter-clockwise.
        exact = rotate(exact, value, axes=(1, 2), reshape=False, order=1, mode="constant", cval=low)
    else:
        exact *= exact.dtype.type(value)
    return as_stored(exact, x.dtype)


def as_stored(exact: Array, dtype: np.dtype[np.generic]) -> Array:
    """Floats in a data set's dtype: rounded to the nearest for integers and booleans."""
    return (exact if dtype.kind == "f" else np.rint(exact)).astype(dtype)

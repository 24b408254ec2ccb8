"""What one client sends back after local training, as the rules see it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Arrays = list[np.ndarray]
Memory = dict[str, Arrays]
"""What a strategy remembers between rounds, by name."""


@dataclass(frozen=True)
class Update:
    """One client's model after local training.

    Attributes:
        arrays: the client's arrays, x_i, in the order, shapes and dtypes of the global model's.
        num_examples: n_i, the examples that it trained on, > 0; 1 where the client did not say, which only rules that
            do not need it ever see.
        local_norm: a_i of FedNova (arXiv:2007.07481, section 3): the L1 norm of the weights with which the local
            gradients entered x - x_i, > 0; None where the optimizer defines none.
        client: the client's number (its partition id); None when unknown.
        local_steps: tau_i, its optimizer steps of this round, > 0; None when unknown.
    """

    arrays: Arrays
    num_examples: int
    local_norm: float | None = None
    client: int | None = None
    local_steps: int | None = None


@dataclass(frozen=True)
class Facts:
    """What a client reports beside its update; None where it did not say."""

    num_examples: int | None = None  # as sent; Update.num_examples is what the rules see
    local_steps: int | None = None
    train_loss: float | None = None
    seconds: float | None = None  # wall seconds of the whole fit call
    cpu_seconds: float | None = None  # CPU seconds of the client's process in it
    accuracy_before: float | None = None  # of the global model on the client's own training data, 0..1
    accuracy_after: float | None = None  # of the client's model after training, on the same, 0..1
    dp_epsilon: float | None = None  # of all noised updates that ever left the client, by its own accounting


class NotFinite(ValueError):  # noqa: N818
    """An update holds NaN or infinity."""


def check_update(update: Update, like: Sequence[np.ndarray], *, strict_dtypes: bool = True) -> None:
    """Refuse an update that no rule should see.

    Args:
        update: what the client sent.
        like: the global arrays, which give count, shapes and dtypes.
        strict_dtypes: whether a dtype must be equal, or may be cast to the global one within its kind.

    Raises:
        ValueError: without the client's name, which the caller knows better, for a wrong count of arrays, a wrong shape
            or dtype, a value that is not finite, num_examples that is no integer > 0, local_norm that is not
            finite > 0, local_steps that is no integer > 0.
    """
    n = update.num_examples
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise ValueError(f"num_examples must be an integer, not {type(n).__name__} {n!r}")
    if n <= 0:
        raise ValueError(f"num_examples must be > 0, not {n}")
    norm = update.local_norm
    if norm is not None and not (np.isfinite(norm) and norm > 0):
        raise ValueError(f"local_norm must be finite and > 0, not {norm!r}")
    steps = update.local_steps
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps <= 0):
        raise ValueError(f"local_steps must be an integer > 0, not {steps!r}")
    if len(update.arrays) != len(like):
        raise ValueError(f"{len(update.arrays)} arrays where the model has {len(like)}")
    for i, (array, expected) in enumerate(zip(update.arrays, like, strict=True)):
        if not isinstance(array, np.ndarray):
            raise ValueError(f"array {i} is a {type(array).__name__}, not a NumPy array")
        castable = not strict_dtypes and np.can_cast(array.dtype, expected.dtype, casting="same_kind")
        check_kind(i, array.shape, expected.dtype if castable else array.dtype, expected)
        if not np.isfinite(array).all():
            raise NotFinite(f"array {i} holds values that are not finite (NaN or infinity)")


def check_kind(i: int, shape: tuple[int, ...], dtype: np.dtype, expected: np.ndarray) -> None:
    """See that array `i` is of the model's shape and dtype.

    Raises:
        ValueError: it is not.
    """
    if shape != expected.shape:
        raise ValueError(f"array {i} has shape {shape} where the model has {expected.shape}")
    if dtype != expected.dtype:
        raise ValueError(f"array {i} has dtype {dtype} where the model has {expected.dtype}")


def check_facts(facts: Facts) -> None:
    """Refuse facts that no table or sum should see. The training loss may be anything: a model may well diverge.

    Raises:
        ValueError: seconds or a privacy budget that is negative or not finite, an accuracy out of 0..1.
    """
    for name in ("seconds", "cpu_seconds", "dp_epsilon"):
        value = getattr(facts, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and >= 0, not {value!r}")
    for name in ("accuracy_before", "accuracy_after"):
        value = getattr(facts, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must be in 0..1, not {value!r}")

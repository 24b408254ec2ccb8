"""What one client sends back after local training, as the rules see it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from task.limits import check_number

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
    """What a client reports beside its update; None where it did not say. `task.limits` has their ranges."""

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
            or dtype, a value that is not finite, no num_examples; or num_examples, local_norm or local_steps that is
            not > 0 or out of its range (`task.limits`).
    """
    if update.num_examples is None:
        raise ValueError("num_examples is missing")
    for name in ("num_examples", "local_norm", "local_steps"):
        value = getattr(update, name)
        if isinstance(value, int | float | np.integer | np.floating) and value <= 0:
            raise ValueError(f"{name} must be > 0, not {value!r}")
        check_number(name, value)
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
    """Refuse facts that no table, sum or run.json can hold.

    Raises:
        ValueError: one of them is no number, or out of its range (`task.limits`).
    """
    for name, value in vars(facts).items():
        check_number(name, value)

"""What server optimizers share: a step from x that takes the mean of the clients for a gradient (arXiv:2003.00295)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from strategies.base import ABOVE_ZERO, SHARE, Range
from strategies.weighted import weighted
from task.update import Arrays, Memory, Update

Second = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""(v, square of the difference, beta2) -> new v."""

RANGES: dict[str, Range] = {"learning_rate": ABOVE_ZERO, "beta1": SHARE, "beta2": SHARE, "tau": ABOVE_ZERO}


def stepped(x: Sequence[np.ndarray], trainable: Sequence[bool] | None) -> list[int]:
    """Positions of the arrays that a server optimizer moves: floating-point ones, and of those the trainable.

    The others (a BatchNorm's running statistics, counters) are no weights: their mean is taken as it is.

    Args:
        x: the global arrays.
        trainable: which of them gradients move; None: all.

    Raises:
        ValueError: `trainable` does not say it for each array.
    """
    moved = [True] * len(x) if trainable is None else trainable
    return [i for i, (array, by_steps) in enumerate(zip(x, moved, strict=True)) if by_steps and array.dtype.kind == "f"]


def difference(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """New - old in float64."""
    return np.asarray(new.astype(np.float64) - old.astype(np.float64))


def shifted(array: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Array + shift, rounded once to the array's dtype; where the shift is 0 the array to the bit, -0.0 as well."""
    moved = (array.astype(np.float64) + shift).astype(array.dtype)
    return np.where(shift == 0, array, moved)


def adaptive_step(
    second: Second,
    x: Arrays,
    updates: Iterable[Update],
    memory: Memory,
    *,
    learning_rate: float = 0.03,
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
    trainable: Sequence[bool] | None = None,
) -> tuple[Arrays, Memory]:
    """One round of algorithm 2 of Reddi et al. 2021 (arXiv:2003.00295), with v's rule as an argument.

    With d = (sum_i p_i x_i) - x: m = beta1 m + (1 - beta1) d, v = second(v, d^2), and the new x is
    x + learning_rate m / (sqrt(v) + tau). Before the first round m = 0 and v = tau^2, the least that the algorithm
    allows. As in the paper, and unlike Flower's FedAdam, nothing is corrected for this beginning.

    p_i is a client's share of the examples, as in `weighted` (and the paper's experiments; its algorithm has 1/m).

    Args:
        second: see above.
        x: the global arrays.
        updates: at least one; consumed once.
        memory: "m" and "v" in float64 for each array of `stepped`, or empty; not changed.
        learning_rate: the server's, eta. The paper tunes it for each task, from powers of sqrt(10); beta1, beta2 and
            tau are those of its experiments.
        beta1: how much of m stays.
        beta2: how much of v stays.
        tau: adaptivity; the larger, the more like plain averaging with a small step.
        trainable: as in `stepped`; the other arrays are those of `weighted`.

    Returns:
        New arrays in the shapes and dtypes of x, each value computed in float64 and rounded once; new memory. Nobody
        moved and the memory is empty: x, exactly.
    """
    new = weighted(x, updates)
    places = stepped(x, trainable)
    begin = {"m": [np.zeros(x[i].shape) for i in places], "v": [np.full(x[i].shape, tau**2) for i in places]}
    after: Memory = {"m": [], "v": []}
    for i, m, v in zip(places, memory.get("m", begin["m"]), memory.get("v", begin["v"]), strict=True):
        d = difference(new[i], x[i])
        after["m"].append(np.asarray(beta1 * m + (1 - beta1) * d))
        after["v"].append(np.asarray(second(v, d * d, beta2)))
        new[i] = shifted(x[i], learning_rate * after["m"][-1] / (np.sqrt(after["v"][-1]) + tau))
    return new, after

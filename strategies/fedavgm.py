"""FedAvgM: momentum on the server (Hsu et al. 2019, arXiv:1909.06335, section 4.3)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from strategies.adaptive import difference, shifted, stepped
from strategies.base import ABOVE_ZERO, SHARE, Range
from strategies.memory import MemoryShell
from strategies.weighted import weighted
from task.update import Arrays, Memory, Update


def fedavgm(
    x: Arrays,
    updates: Iterable[Update],
    memory: Memory,
    *,
    momentum: float = 0.9,
    learning_rate: float = 1.0,
    trainable: Sequence[bool] | None = None,
) -> tuple[Arrays, Memory]:
    """V = momentum v + d with d = (sum_i p_i x_i) - x; x + learning_rate v.

    Args:
        x: the global arrays.
        updates: at least one; consumed once.
        memory: "v" in float64 for each array of `strategies.adaptive.stepped`, or empty; not changed.
        momentum: how much of v stays; the paper's best is 0.9 or more where labels are skewed.
        learning_rate: the server's.
        trainable: which arrays gradients moved; None: all. The others are those of `weighted`.

    Returns:
        New arrays in the shapes and dtypes of x; new memory. With learning_rate 1 and no v yet, as in the first round
        or without momentum: the same bits as `weighted`.

    Example:
        x = [0], the mean 1 further in every round, momentum 0.9: [1], [2.9], [5.61].
    """
    new = weighted(x, updates)
    places = stepped(x, trainable)
    after: Memory = {"v": []}
    for i, v in zip(places, memory.get("v", [np.zeros(x[i].shape) for i in places]), strict=True):
        d = difference(new[i], x[i])
        after["v"].append(np.asarray(momentum * v + d))
        # From the mean, not from x: so nothing is rounded that need not be.
        new[i] = shifted(new[i], learning_rate * momentum * v + (learning_rate - 1) * d)
    return new, after


class FedAvgM(MemoryShell):
    """Flower strategy around `fedavgm`."""

    step = staticmethod(fedavgm)
    weights_by = "examples"
    needs = ("num_examples",)
    ranges: ClassVar[Mapping[str, Range]] = {"momentum": SHARE, "learning_rate": ABOVE_ZERO}

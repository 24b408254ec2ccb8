"""FedAdam: Adam on the server (Reddi et al. 2021, arXiv:2003.00295, algorithm 2)."""

from functools import partial

import numpy as np

from strategies.adaptive import RANGES, adaptive_step
from strategies.memory import MemoryShell


def adam(v: np.ndarray, square: np.ndarray, beta2: float) -> np.ndarray:
    """V = beta2 v + (1 - beta2) d^2, d the mean's difference from x; float64, any shape."""
    return np.asarray(beta2 * v + (1 - beta2) * square)


class FedAdam(MemoryShell):
    """Flower strategy around `adaptive_step` with adam's v."""

    step = partial(adaptive_step, adam)
    weights_by = "examples"
    needs = ("num_examples",)
    ranges = RANGES

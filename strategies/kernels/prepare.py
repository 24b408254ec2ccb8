"""Compiling ahead of need."""

import numpy as np

from strategies.kernels.finite import all_finite
from strategies.kernels.medians import median
from strategies.kernels.sums import Sum


def prepare(clients: int = 5) -> None:
    """Compile what one round of float32 models from so many clients takes, some 0.2 s for five.

    Not needed: what is not there is compiled at its first use. Worth a thread of its own while a server waits.
    """
    models = [[np.full(3, k, np.float32)] for k in range(clients)]
    all_finite(models[0][0])
    median([model[0] for model in models])
    plain, normalised = Sum(models[0]), Sum(models[0])
    for model in models:
        plain.add(model, 800)
        normalised.add_difference(model, models[0], 1 / 3)
    plain.divided_by(800 * clients)
    normalised.added_to(models[0], 0.5)

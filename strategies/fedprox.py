"""FedProx: the weighted mean of clients that are held near the global model (Li et al. 2020, arXiv:1812.06127)."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from strategies.base import FROM_ZERO, Range, Shell
from strategies.weighted import weighted
from task import wire
from task.update import Arrays, Update

MU = 0.01
"""The paper's experiments choose from {0.001, 0.01, 0.1, 1}, anew for each data set; a small one harms none much."""


def fedprox(x: Arrays, updates: Iterable[Update], *, mu: float = MU) -> Arrays:  # noqa: ARG001 - the clients' part
    """sum_i p_i x_i with p_i = n_i / sum_j n_j, as `weighted`: what is new in FedProx is what clients minimise.

    Algorithm 2 of the paper draws clients by p_i and averages plainly; here, as in the authors' experiments and in
    `weighted`, clients are drawn alike and weighted by p_i.

    Args:
        x: the global arrays, for shapes and dtypes.
        updates: at least one, of clients that minimised F_i(w) + (mu / 2) |w - x|^2 (equation 2).
        mu: of that term, >= 0; the strategy tells it to the clients, the mean does not depend on it.

    Returns:
        New arrays in the shapes and dtypes of x: the same bits as `weighted`.
    """
    return weighted(x, updates)


class FedProx(Shell):
    """Flower strategy around `fedprox`; its train messages say mu as `proximal-mu`, the name that Flower's own uses."""

    rule = staticmethod(fedprox)
    weights_by = "examples"
    needs = ("num_examples",)
    ranges: ClassVar[Mapping[str, Range]] = {"mu": FROM_ZERO}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asks = {wire.PROXIMAL_MU: float(self.options.get("mu", MU))}

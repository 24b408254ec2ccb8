"""How far each client's model went in a round, and in which direction beside the global one."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from task.limits import LIMITS
from task.update import Arrays, Facts

_KEPT_BYTES = 64 * 2**20  # of the updates of one round; beyond it their directions are not compared


class Measures(NamedTuple):
    """The measures of one client, in the order of `server.results.LocalRow`."""

    client: int
    accuracy_before: float | None
    accuracy_after: float | None
    update_norm: float
    cosine: float | None


class Drift:
    """Measures the updates of one round, as they come.

    The direction of the global step is known only at the end, so updates are kept until then, by reference, as long as
    they are no more than 64 MiB together; a round with more has no cosines, rather than n models in memory.

    Args:
        x: the global arrays that the clients started from.
    """

    def __init__(self, x: Arrays) -> None:
        self._x = x
        self._size = sum(array.nbytes for array in x)
        self._kept: list[Arrays] | None = []
        self._measured: list[tuple[int, Facts, float]] = []

    def add(self, client: int, arrays: Arrays, facts: Facts) -> None:
        """Take down an update that was used."""
        update = _difference(arrays, self._x)
        self._measured.append((client, facts, math.sqrt(_dot(update, update))))
        if self._kept is not None:
            self._kept.append(arrays)
            if len(self._kept) * self._size > _KEPT_BYTES:
                self._kept = None

    def largest(self) -> tuple[int, float] | None:
        """The client whose update has the largest norm, and that norm; None without updates."""
        largest = max(self._measured, key=lambda one: (one[2], -one[0]), default=None)
        return None if largest is None else (largest[0], largest[2])

    def rows(self, new: Arrays) -> Iterator[Measures]:
        """The measures by client, ascending, once the new global arrays are known."""
        step = _difference(new, self._x)
        length = math.sqrt(_dot(step, step))
        for i in sorted(range(len(self._measured)), key=lambda i: self._measured[i][0]):
            client, facts, norm = self._measured[i]
            cosine = None
            if self._kept is not None and 0 < norm * length < math.inf:
                cosine = _dot(_difference(self._kept[i], self._x), step) / (norm * length)
                if not LIMITS["cosine"].hold(cosine):
                    cosine = None  # of float64 models alone: the product of so small or so large norms is rounded away
            yield Measures(client, facts.accuracy_before, facts.accuracy_after, norm, cosine)


def _difference(new: Arrays, old: Arrays) -> Arrays:
    """New - old in float64, of floating arrays only."""
    with np.errstate(over="ignore"):  # of float64 models: the norm is infinite then
        return [
            np.subtract(a, b, dtype=np.float64).ravel() for a, b in zip(new, old, strict=True) if b.dtype.kind == "f"
        ]


def _dot(one: Arrays, other: Arrays) -> float:
    """The inner product; not BLAS's, whose threads would spin beside the workers."""
    return sum(float(np.einsum("i,i->", a, b)) for a, b in zip(one, other, strict=True))

"""What lies between two models: accuracy and loss along the straight line, before and after matching.

A hill of loss between two good models, the barrier, is why their mean is bad: the mean is the middle of that line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.oneshot.combination import Combination
from task.evaluation import Evaluator
from task.update import Arrays

POINTS = 21  # along the line, both ends included
MOST_IMAGES = 2000  # of the test set; 42 evaluations a seed of more would take longer than the aggregation


@dataclass(frozen=True)
class Curve:
    """What models along a line give on the test set, from the first end to the second."""

    accuracy: tuple[float, ...]  # 0..1
    loss: tuple[float, ...]  # nats


@dataclass(frozen=True)
class Barrier:
    """The line from local-0 to local-1 of one seed.

    Attributes:
        seed: which.
        shares: how much of local-1 is in each point: 0 .. 1, equally spaced.
        before: as the models were given.
        after: with their units matched; both ends are the same functions as before.
    """

    seed: int
    shares: tuple[float, ...]
    before: Curve
    after: Curve


def barrier(combination: Combination, evaluate: Evaluator | None = None, points: int = POINTS) -> Barrier:
    """Walk from local-0 to local-1, before and after matching; on every n-th example of a large test set, see `every`.

    Args:
        combination: of at least two local models.
        evaluate: an evaluator of their architecture, so that many seeds compile only one; None: one of its own.
        points: how many models are evaluated on each line, >= 2.
    """
    if evaluate is None:
        evaluate = Evaluator(combination.material.model)
    shares = tuple(float(share) for share in np.linspace(0, 1, points))
    step = every(combination)
    x, y = (part[::step] for part in combination.material.test)

    def walk(first: Arrays, second: Arrays) -> Curve:
        accuracy, loss = zip(*(evaluate(between(first, second, share), x, y) for share in shares), strict=True)
        return Curve(accuracy, loss)

    given = [update.arrays for update in combination.material.locals]
    matched = combination.matching.models
    return Barrier(combination.material.seed, shares, before=walk(*given[:2]), after=walk(*matched[:2]))


def every(combination: Combination) -> int:
    """1 if the lines are drawn on the whole test set; n if on every n-th example, so that there are at most 2000."""
    return math.ceil(len(combination.material.test[1]) / MOST_IMAGES)


def between(first: Sequence[np.ndarray], second: Sequence[np.ndarray], share: float) -> Arrays:
    """The model with this share of `second`; exactly one of them at 0 and at 1. Integers are those of `first`."""
    return [
        ((1 - share) * a + share * b).astype(a.dtype, copy=False) if a.dtype.kind == "f" else a
        for a, b in zip(first, second, strict=True)
    ]

"""Coordinate descent over the orders of units: one model and one group at a time, each step an assignment problem."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from task.structure import Group, Permutation, Place, Structure

_LEAST_GAIN = 3e-5
"""Of the product of the norms, for groups of up to _MANY units; with more units, whose steps take long, more.

Far above what rounding in float32 makes. With 1e-6 three times the steps came 0.07 % closer (three layers of 768
units), less than another restart does.
"""
_MANY = 512
_HALVES = 2  # of a large product, each one thread's: the bits do not depend on how many cores there are


class Descent:
    """Models whose units are brought into one order, step by step.

    Args:
        models: float32 arrays in the order of `model.get_weights()`, None for those that do not count.
        structure: their units.
        random: draws the order of the steps.

    Attributes:
        permutations: of each model one for each group, so far.
    """

    def __init__(
        self,
        models: Sequence[Sequence[NDArray[np.float32] | None]],
        structure: Structure,
        random: np.random.Generator,
    ) -> None:
        self._models = [list(model) for model in models]
        self._groups = [_Steps(group, models[0]) for group in structure.groups]
        self._random = random
        self.permutations = [[np.arange(group.size) for group in structure.groups] for _ in models]
        self._in = [False] * len(models)  # whose arrays are in the sum
        self._sum: list[NDArray[np.float64] | None] = [
            None if array is None else np.zeros(array.shape) for array in models[0]
        ]
        # A step need not be tried again before one of its arrays has changed in the model or in the sum.
        self._clock = 0
        self._changed = [0] * len(self._sum)
        self._tried = [[-1] * len(self._groups) for _ in models]

    def shuffle(self) -> None:
        """Put every model's units in a random order."""
        for k in range(len(self._models)):
            for g, steps in enumerate(self._groups):
                self._reorder(k, g, self._random.permutation(steps.size))

    def one_by_one(self, passes: int) -> None:
        """Match each model to the mean of those before it, in random order; begins the sum.

        Args:
            passes: over a model's groups, at most.
        """
        for position, k in enumerate(self._random.permutation(len(self._models))):
            for _ in range(passes if position else 0):
                changed = False
                for g in self._random.permutation(len(self._groups)):
                    changed |= self._step(int(k), int(g))
                if not changed:
                    break
            self._enter(int(k))

    def until_nothing_changes(self) -> None:
        """Match every model to the mean of all others, again and again."""
        for k in range(len(self._models)):
            self._enter(k)
        changed = True
        while changed:
            changed = False
            for k in self._random.permutation(len(self._models)):
                for g in self._random.permutation(len(self._groups)):
                    changed |= self._step(int(k), int(g))

    def _enter(self, k: int) -> None:
        """Count a model in the sum."""
        if not self._in[k]:
            self._in[k] = True
            self._clock += 1
            for i, array in enumerate(self._models[k]):
                if array is not None:
                    total = self._sum[i]
                    assert total is not None
                    total += array
                    self._changed[i] = self._clock

    def _step(self, k: int, g: int) -> bool:
        """Give a model's group its best order; whether that changed something."""
        steps, model = self._groups[g], self._models[k]
        if max((self._changed[i] for i in steps.arrays), default=0) <= self._tried[k][g]:
            return False
        self._tried[k][g] = self._clock
        others = {i: self._others(k, i) for i in steps.arrays}
        scores = steps.scores(others, model)
        order = largest(scores)
        places = np.arange(steps.size)
        gain = float(scores[places, order].sum(dtype=np.float64) - np.trace(scores, dtype=np.float64))
        least = _LEAST_GAIN * max(1.0, steps.size / _MANY) ** 2 * steps.magnitude(others, model)
        if gain <= least:
            return False
        if steps.twice:  # then the gain above is that of each axis alone
            permuted = steps.permuted(model, order)
            gain = sum(
                float(np.vdot(others[i], permuted[i])) - float(np.vdot(others[i], _of(model, i))) for i in others
            )
            if gain <= least:
                return False
        self._reorder(k, g, order)
        if not steps.twice:
            self._tried[k][g] = self._clock
        return True

    def _others(self, k: int, i: int) -> NDArray[np.float32]:
        """The sum of all other models' arrays."""
        total = self._sum[i]
        assert total is not None
        return (total - _of(self._models[k], i) if self._in[k] else total).astype(np.float32)

    def _reorder(self, k: int, g: int, order: Permutation) -> None:
        self._clock += 1
        self.permutations[k][g] = self.permutations[k][g][order]
        for i, new in self._groups[g].permuted(self._models[k], order).items():
            total = self._sum[i]
            assert total is not None
            if self._in[k]:
                total -= _of(self._models[k], i)
                total += new
            self._models[k][i] = new
            self._changed[i] = self._clock


class _Steps:
    """What a step of one group takes.

    Attributes:
        size: how many units it has.
        arrays: indices of the counted arrays where it stands.
        twice: whether it stands on two axes of one array, as in a convolution between two residual sums.
    """

    def __init__(self, group: Group, like: Sequence[NDArray[np.float32] | None]) -> None:
        self.size = group.size
        self._places = [place for place in group.places if like[place.array] is not None]
        self.arrays = list(dict.fromkeys(place.array for place in self._places))
        self.twice = len(self.arrays) < len(self._places)
        self._plain: dict[int, bool] = {}
        for place in self._places:
            length = _of(like, place.array).shape[place.axis]
            self._plain[id(place)] = np.array_equal(place.positions, np.arange(length)[:, None])

    def scores(
        self, others: dict[int, NDArray[np.float32]], model: Sequence[NDArray[np.float32] | None]
    ) -> NDArray[np.float32]:
        """(unit of the others, unit of the model): the inner product of all that belongs to them."""
        scores = np.zeros((self.size, self.size), np.float32)
        for place in self._places:
            add_product(scores, self._rows(others[place.array], place), self._rows(_of(model, place.array), place))
        return scores

    def magnitude(self, others: dict[int, NDArray[np.float32]], model: Sequence[NDArray[np.float32] | None]) -> float:
        """The product of the norms of what is multiplied."""
        ours = sum(float(np.vdot(_of(model, i), _of(model, i))) for i in others)
        return float(np.sqrt(ours * sum(float(np.vdot(array, array)) for array in others.values())))

    def permuted(
        self, model: Sequence[NDArray[np.float32] | None], order: Permutation
    ) -> dict[int, NDArray[np.float32]]:
        """The arrays that change, in another order of the units."""
        result: dict[int, NDArray[np.float32]] = {}
        for place in self._places:
            array = result.get(place.array, _of(model, place.array))
            result[place.array] = place.permuted(array, order)
        return result

    def _rows(self, array: NDArray[np.float32], place: Place) -> NDArray[np.float32]:
        """(units, values), without a copy where that is possible."""
        if self._plain[id(place)]:
            if place.axis == array.ndim - 1:
                return array.reshape(-1, self.size).T
            return np.moveaxis(array, place.axis, 0).reshape(self.size, -1)
        taken = np.take(array, place.positions.reshape(-1), place.axis)
        return np.moveaxis(taken, place.axis, 0).reshape(self.size, -1)


def largest(scores: NDArray[np.float32]) -> Permutation:
    """For each row its column, so that the sum is largest."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(scores, maximize=True)[1])


def add_product(scores: NDArray[np.float32], one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
    """Add one @ other.T to the scores."""
    if len(scores) < _MANY:
        scores += one @ other.T
        return

    def part(rows: slice) -> None:
        scores[rows] += one[rows] @ other.T

    middle = len(scores) // _HALVES
    with ThreadPoolExecutor(_HALVES) as threads:
        list(threads.map(part, [slice(0, middle), slice(middle, None)]))


def _of(model: Sequence[NDArray[np.float32] | None], i: int) -> NDArray[np.float32]:
    array = model[i]
    assert array is not None
    return array

"""Permutation weight matching: bring the hidden units of several models into one order.

Ainsworth, Hayase and Srinivasa, "Git Re-Basin", 2023 (arXiv:2209.04836), algorithm 1, and "merge many" of its appendix:
model by model and group by group, the units are assigned to those of the mean of the others so that the sum of squared
distances is least, until nothing changes. That is a local minimum; restarts from other orders look for better ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from strategies.descent import Descent
from strategies.unit_order import canonical_order
from task import seeds
from task.structure import Permutation, Structure
from task.update import Arrays

_BETTER = 1e-9  # relative: what is gained below it is rounding
_RELATED = 0.99  # of the distance in sorted order: below it, the given order of units means something
_CLOSE = 0.5  # below it they had one start, and no other order can be better
_PASSES = 3  # over the groups of a model that is matched to those before it
_WORK = 3e10  # multiplications that restarts may cost, by default
_MOST_RESTARTS = 8

_ALONE = Lock()  # the number of threads is the whole process's, and contestants are threads


@dataclass(frozen=True)
class Matching:
    """Models whose units were brought into one order.

    Attributes:
        models: permuted, in the order in which they were given; the first is as it was.
        permutations: of each model one for each group; models[k] = structure.permuted(given[k], permutations[k]).
        before: sum over the models of the squared distance to their mean, as given.
        after: the same of the permuted ones, never larger.
    """

    models: list[Arrays]
    permutations: list[list[Permutation]]
    before: float
    after: float


def match(models: Sequence[Arrays], structure: Structure, *, restarts: int | None = None, seed: int = 0) -> Matching:
    """Bring the units of all models into one order, with the least sum of squared distances to their mean.

    Distances are over `structure.counted` arrays; the others are permuted along. Permuted copies of one model are
    always found, equal models are left as they are, and models that have been matched are not changed any more. What
    is found does not depend on the order in which a model's units were given, if that order means nothing.

    Args:
        models: at least one, in the order of `model.get_weights()`, all of the same shapes; not changed. Their order
            matters to the bit, and the first gives the order of units: who wants the same result for any order of the
            models sorts them.
        structure: of the models, see `task.units.structure_of`.
        restarts: how many descents, each from other orders; None: as many as take a few seconds, from 8 for small
            models to a single one for large ones, a function of sizes and number of models alone; and a single one for
            models that are much closer to each other than such in unrelated orders, as after a federated round.
        seed: of the random orders, through `task.seeds`.

    Raises:
        ValueError: for no model, arrays that do not fit the structure or each other, or restarts < 1.
    """
    given = [[np.asarray(array) for array in model] for model in models]
    _check(given, structure)
    if restarts is not None and restarts < 1:
        raise ValueError(f"restarts must be at least 1, not {restarts}")
    identity = [[np.arange(group.size) for group in structure.groups] for _ in given]
    scale = _scale(given, structure)
    before = distance(given, structure, scale)
    best, least = identity, before
    if before > 0 and structure.groups:
        from threadpoolctl import threadpool_limits

        # One thread a product: the same bits on all machines, and no threads that wait in a loop for busy cores.
        with _ALONE, threadpool_limits(1, "blas"):
            for permutations in _candidates(given, structure, before, scale, restarts, seed):
                found = distance(_permuted(given, structure, permutations), structure, scale)
                if found < least * (1 - _BETTER):
                    best, least = permutations, found
                if least == 0:
                    break
    if best is not identity:
        best = [[p[np.argsort(first)] for p, first in zip(ps, best[0], strict=True)] for ps in best]
    result = _permuted(given, structure, best)
    after = before if best is identity else min(before, distance(result, structure, scale))
    with np.errstate(over="ignore"):  # beyond float64 it is infinite
        unscaled = [float(np.float64(value) / scale / scale) for value in (before, after)]
    return Matching(result, best, *unscaled)


def distance(models: Sequence[Arrays], structure: Structure, scale: float = 1.0) -> float:
    """Sum over the models of the squared distance to their mean, over the counted arrays times `scale`, in float64."""
    total = 0.0
    for i, counts in enumerate(structure.counted):
        if counts:
            first = models[0][i].astype(np.float64)
            moved = [(model[i] - first) * scale for model in models[1:]]  # small where models are close
            mean = sum(moved, np.zeros_like(first)) / len(models)
            total += float(np.vdot(mean, mean)) + sum(float(np.vdot(d - mean, d - mean)) for d in moved)
    return total


def _candidates(
    given: Sequence[Arrays],
    structure: Structure,
    before: float,
    scale: float,
    restarts: int | None,
    seed: int,
) -> Iterator[list[list[Permutation]]]:
    """What each descent ends with."""
    canonical = [canonical_order(model, structure) for model in given]
    sorted_models = _permuted(given, structure, canonical)
    unrelated = distance(sorted_models, structure, scale)
    related, close = before < _RELATED * unrelated, before < _CLOSE * unrelated
    if restarts is None:
        restarts = 1 if close else default_restarts(given, structure)
    as_given, as_sorted = _rounded(given, structure, scale), _rounded(sorted_models, structure, scale)
    for restart in range(restarts):
        random = seeds.stream(seed, "matching", restart)
        descent = Descent(as_given if related and not restart else as_sorted, structure, random)
        if related and not restart:
            descent.until_nothing_changes()
            yield descent.permutations
            continue
        if restart:
            descent.shuffle()
        descent.one_by_one(_PASSES)
        descent.until_nothing_changes()
        yield [[c[p] for c, p in zip(*pair, strict=True)] for pair in zip(canonical, descent.permutations, strict=True)]


def default_restarts(models: Sequence[Arrays], structure: Structure) -> int:
    """How many descents `match` makes by default: fewer the more multiplications each costs."""
    work = 0.0
    for group in structure.groups:
        values = sum(models[0][i].size for i in {place.array for place in group.places})
        work += group.size * values + 2.0 * group.size**3  # products, and the assignment
    return int(np.clip(_WORK / max(1.0, work * len(models)), 1, _MOST_RESTARTS))


def _permuted(models: Sequence[Arrays], structure: Structure, permutations: list[list[Permutation]]) -> list[Arrays]:
    return [structure.permuted(model, own) for model, own in zip(models, permutations, strict=True)]


def _scale(models: Sequence[Arrays], structure: Structure) -> float:
    """A power of two that brings the largest counted value to about one: squares neither overflow nor vanish."""
    counted = [array for model in models for array, counts in zip(model, structure.counted, strict=True) if counts]
    largest = max((float(np.abs(array).max()) for array in counted if array.size), default=0.0)
    return 2.0 ** -max(-1000, min(1000, int(np.frexp(largest)[1])))


def _rounded(models: Sequence[Arrays], structure: Structure, scale: float) -> list[list[NDArray[np.float32] | None]]:
    """What a descent works on: counted arrays, scaled, in float32."""
    return [
        [
            np.multiply(array, scale, dtype=np.float64).astype(np.float32) if counts else None
            for array, counts in zip(model, structure.counted, strict=True)
        ]
        for model in models
    ]


def _check(models: Sequence[Arrays], structure: Structure) -> None:
    """Refuse what does not fit."""
    if not models:
        raise ValueError("no models to match")
    shapes = [array.shape for array in models[0]]
    if len(shapes) != len(structure.counted):
        raise ValueError(f"the structure is of {len(structure.counted)} arrays, the models have {len(shapes)}")
    for k, model in enumerate(models):
        if [array.shape for array in model] != shapes:
            raise ValueError(f"model {k} has arrays of other shapes than the first")
    for group in structure.groups:
        for place in group.places:
            where = f"group {group.name}: array {place.array}"
            if not 0 <= place.array < len(shapes) or not 0 <= place.axis < len(shapes[place.array]):
                raise ValueError(f"the structure does not fit: {where} has no axis {place.axis}")
            length = shapes[place.array][place.axis]
            if len(place.positions) != group.size or place.positions.max(initial=0) >= length:
                raise ValueError(f"the structure does not fit: {where} has {length} values along axis {place.axis}")

"""Points between models, and squared Euclidean distances over their floating-point arrays."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np

from strategies.kernels.arrays import address, addresses, flat
from strategies.kernels.machine import Kernel, compiled
from strategies.kernels.sums import settled

BLOCK = 1 << 12
"""Coordinates of each model that stay in the processor's caches while all pairs of them are gone through."""
PARTS = 16
"""Parts of a sum, several vectors, so that additions need not wait for one another: a part of what defines the bits."""
Model = Sequence[np.ndarray]


def squared_distances(models: Sequence[Model]) -> np.ndarray:
    """|x_i - x_j|^2 for all pairs.

    Differences come first and everything is added in float64: near models far from zero are as right as any (relative
    error some 1e-12). A distance depends on its two models only, so the matrix is symmetric to the bit and permutes
    with the models. Integers and bools do not count.

    Args:
        models: at least one; lists of arrays in the same shapes and dtypes; not changed.

    Returns:
        float64 (n, n), zeros in the diagonal. Infinite where a float64 model is 1e154 and more away.
    """
    n = len(models)
    pairs = np.array(list(combinations(range(n), 2)), np.int64).reshape(-1, 2)
    sums = np.zeros((len(pairs), PARTS))
    for inputs in zip(*(_floats(model) for model in models), strict=True):
        starts, size, bits = addresses(inputs), inputs[0].size, inputs[0].itemsize * 8
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            _kernel("between", bits)(address(starts), address(pairs), len(pairs), address(sums), start, stop)
    result = np.zeros((n, n))
    for (i, j), parts in zip(pairs.tolist(), sums.tolist(), strict=True):
        result[i, j] = result[j, i] = sum(parts)
    return result


def squared_distances_around(base: Model, models: Sequence[Model], factors: Sequence[float]) -> np.ndarray:
    """|x_i - z|^2 for all models, around z = base + sum_i factors_i (x_i - base), which is never rounded to its dtype.

    As `squared_distances`; one pass over the models, and no model more in memory. Where two factors are not 0 the bits
    depend on the order of the models; else they do not.

    Args:
        base: arrays in the models' shapes and dtypes.
        models: at least one; not changed.
        factors: one for each model, finite.

    Returns:
        float64 (n,).
    """
    sums = np.zeros((len(models), PARTS))
    point, used = np.zeros(BLOCK), [i for i, factor in enumerate(factors) if factor]
    weights = np.array([factors[i] for i in used], np.float64)
    for origin, *inputs in zip(_floats(base), *(_floats(model) for model in models), strict=True):
        starts, parts = addresses(inputs), addresses([inputs[i] for i in used])
        size, bits = origin.size, origin.itemsize * 8
        for start in range(0, size, BLOCK):
            at = address(point), start, min(start + BLOCK, size)
            if used:
                _kernel("blend", bits)(address(parts), address(origin), address(weights), len(used), *at)
            places = address(starts), address(origin), len(models), at[0], address(sums)
            _kernel("around", bits)(*places, *at[1:])
    return np.array([sum(parts) for parts in sums.tolist()])


def blend(base: Model, models: Sequence[Model], factors: Sequence[float]) -> list[np.ndarray]:
    """Base + sum_i factors_i (x_i - base) in float64, differences first, each value rounded once to its dtype.

    A value off zero by 1e30 with a factor of 1e-30 costs the others no digit. Where two factors are not 0 the bits
    depend on the order of the models.

    Args:
        base: arrays in the models' shapes and dtypes, any; the result is base where no model differs from it.
        models: at least one; not changed.
        factors: one for each model, finite.

    Returns:
        New arrays in the shapes and dtypes of base; integers and bools rounded to nearest, halves to even, and clipped.
    """
    used = [i for i, factor in enumerate(factors) if factor]
    weights = np.array([factors[i] for i in used], np.float64)
    point, results = np.zeros(BLOCK), []
    for origin, *given in zip(base, *(models[i] for i in used), strict=True):
        work = np.float32 if _counts(origin) and origin.dtype.itemsize <= 4 else np.float64
        own, start_values = flat(origin, origin.dtype), flat(origin, work)
        inputs = [flat(array, work) for array in given]
        parts, result = addresses(inputs), np.empty(origin.shape, origin.dtype)
        values, pointers = result.reshape(-1), (address(parts), address(start_values), address(weights), len(used))
        for start in range(0, origin.size, BLOCK):
            stop = min(start + BLOCK, origin.size)
            _kernel("blend", work().itemsize * 8)(*pointers, address(point), start, stop)
            here, shift = start_values[start:stop].astype(np.float64), point[: stop - start]
            moved = settled(here + shift, origin.dtype)
            values[start:stop] = np.where(shift == 0, own[start:stop], moved)
        results.append(result)
    return results


def _counts(array: np.ndarray) -> bool:
    return array.dtype.kind not in "iub"


def _floats(model: Model) -> list[np.ndarray]:
    """The flat floating-point arrays that count, small floats in float32."""
    arrays = (array for array in model if _counts(array))
    return [flat(a, np.float64 if a.dtype.newbyteorder("=") == np.float64 else np.float32) for a in arrays]


@cache
def _kernel(name: str, bits: int) -> Kernel:
    from strategies.kernels import distance_code

    return compiled(getattr(distance_code, name)(bits, PARTS))

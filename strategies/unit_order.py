"""An order of a model's units that depends on what they are and not on how they are numbered.

Two copies of a model whose units stand in different orders have the same arrays in this order, so that matching finds
copies at once, and what it finds does not depend on how the given models happen to be numbered.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from task.structure import Group, Permutation, Place, Structure

Hashes = NDArray[np.uint64]  # arithmetic modulo 2**64, so that sums do not depend on the order of what is added

_ROUNDS = 3  # that units which look alike are told apart by the units that they are connected with
_ODD = np.uint64(1)


def canonical_order(arrays: Sequence[np.ndarray], structure: Structure) -> list[Permutation]:
    """For each group its units in an order of their contents: sorted by a hash of all values that belong to each.

    Units with exactly the same values everywhere keep their order; they may as well be exchanged.

    Args:
        arrays: in the order of `model.get_weights()`.
        structure: of the model.
    """
    bits = [_bits(array) for array in arrays]
    places = [
        [place for group in structure.groups for place in group.places if place.array == i] for i in range(len(bits))
    ]
    hashes = [np.full(group.size, number + 1, np.uint64) for number, group in enumerate(structure.groups)]
    distinct = 0
    for _ in range(_ROUNDS):
        factors = [_factors(bits[i].shape, places[i], structure.groups, hashes) for i in range(len(bits))]
        hashes = [_hash(group, bits, factors) for group in structure.groups]
        before, distinct = distinct, sum(np.unique(h).size for h in hashes)
        if distinct == sum(group.size for group in structure.groups) or distinct == before:
            break
    return [np.argsort(h, kind="stable") for h in hashes]


def _bits(array: np.ndarray) -> Hashes:
    """A number of each value that depends on its bits."""
    raw = np.ascontiguousarray(array).reshape(-1)  # scalars would warn of an overflow
    if raw.dtype.kind not in "fiub" or raw.dtype.itemsize > 8:
        raw = raw.astype(np.float64)
    return _mixed(raw.view(f"u{raw.dtype.itemsize}").astype(np.uint64)).reshape(array.shape)


def _mixed(values: Hashes) -> Hashes:
    """Each value scattered over all 64 bits."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    return mixed


def _factors(
    shape: tuple[int, ...], places: Sequence[Place], groups: Sequence[Group], hashes: Sequence[Hashes]
) -> list[Hashes]:
    """What each position of each axis multiplies: of a unit its hash, of what cannot move its index."""
    factors = [
        _mixed(np.arange(1, size + 1, dtype=np.uint64) + np.uint64(axis << 32)) for axis, size in enumerate(shape)
    ]
    for group, unit in zip(groups, hashes, strict=True):
        for place in group.places:
            if any(place is one for one in places):
                copies = _mixed(np.arange(place.positions.shape[1], dtype=np.uint64))
                factors[place.axis][place.positions] = _mixed(unit)[:, None] + copies
    return [factor | _ODD for factor in factors]


def _hash(group: Group, bits: Sequence[Hashes], factors: Sequence[Sequence[Hashes]]) -> Hashes:
    """One number of each unit of a group, from all arrays where it stands."""
    total = np.zeros(group.size, np.uint64)
    for number, place in enumerate(group.places):
        values = bits[place.array]
        for axis in reversed(range(values.ndim)):  # the array keeps its axes, all but one of length 1 at the end
            if axis != place.axis:
                values = (values * factors[place.array][axis].reshape((-1,) + (1,) * (values.ndim - axis - 1))).sum(
                    axis, keepdims=True, dtype=np.uint64
                )
        along = values.reshape(-1)[place.positions]
        copies = _mixed(np.arange(1, place.positions.shape[1] + 1, dtype=np.uint64)) | _ODD
        total += _mixed((along * copies).sum(1, dtype=np.uint64) + np.uint64(number))
    return total

"""Bookkeeping of hidden units while a model's graph is walked: which of them move together, and where they stand."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from task.structure import Group, Place


@dataclass(frozen=True)
class Channels:
    """What stands along the last axis of a tensor, or along an axis of an array.

    Attributes:
        group: (positions,), the group of each position, as `Groups.new` numbered it.
        unit: (positions,), which of the group's units it is.
    """

    group: NDArray[np.intp]
    unit: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.unit)

    def repeated(self, times: int) -> "Channels":
        """Each position so many times in a row, as a depth multiplier does."""
        return Channels(np.repeat(self.group, times), np.repeat(self.unit, times))

    def tiled(self, times: int) -> "Channels":
        """All positions so many times, as Flatten does."""
        return Channels(np.tile(self.group, times), np.tile(self.unit, times))


def joined(parts: Sequence[Channels]) -> Channels:
    """One after the other."""
    return Channels(np.concatenate([p.group for p in parts]), np.concatenate([p.unit for p in parts]))


class Groups:
    """Groups of units that grow together, and their places in arrays."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._sizes: list[int] = []
        self._names: list[str] = []
        self._frozen: set[int] = set()
        self._places: dict[tuple[Hashable, int], Channels] = {}

    def new(self, size: int, name: str) -> Channels:
        """A group of so many units, in order."""
        number = len(self._parent)
        self._parent.append(number)
        self._sizes.append(size)
        self._names.append(name)
        return Channels(np.full(size, number), np.arange(size))

    def freeze(self, *channels: Channels) -> None:
        """These units keep their order."""
        for one in channels:
            self._frozen.update(self._root(int(group)) for group in np.unique(one.group))

    def are_frozen(self, *channels: Channels) -> bool:
        """Whether all these units keep their order already."""
        return all(self._root(int(group)) in self._frozen for one in channels for group in np.unique(one.group))

    def frozen(self, size: int, name: str) -> Channels:
        """Units that keep their order."""
        channels = self.new(size, name)
        self.freeze(channels)
        return channels

    def unite(self, one: Channels, other: Channels) -> bool:
        """What stands at the same position moves together from now on.

        Returns:
            False where that has no meaning, as for a tensor and the same one shifted: then all of them are frozen.
        """
        if len(one) == len(other) and np.array_equal(one.unit, other.unit):
            pairs = {(self._root(int(a)), self._root(int(b))) for a, b in zip(one.group, other.group, strict=True)}
            if all(self._sizes[a] == self._sizes[b] for a, b in pairs):
                for a, b in pairs:
                    self._join(a, b)
                return True
        self.freeze(one, other)
        return False

    def stand(self, array: Hashable, axis: int, channels: Channels) -> bool:
        """These units stand along this axis of this array; unites them with what stood there before.

        Returns:
            Whether that was possible, see `unite`.
        """
        before = self._places.setdefault((array, axis), channels)
        return before is channels or self.unite(before, channels)

    def freeze_array(self, array: Hashable) -> None:
        """Whatever stands in this array keeps its order."""
        self.freeze(*(channels for (name, _), channels in self._places.items() if name == array))

    def collected(self, index_of: dict[Hashable, int]) -> tuple[Group, ...]:
        """All groups that can be permuted, in the order in which they were made.

        Args:
            index_of: the index of each array; places in others do not count.
        """
        places: dict[int, list[Place]] = {}
        for (array, axis), channels in self._places.items():
            if array not in index_of:
                continue
            roots = np.array([self._root(int(group)) for group in channels.group])
            for root in map(int, np.unique(roots)):
                positions = self._positions(root, np.flatnonzero(roots == root), channels)
                if positions is None:
                    self._frozen.add(root)
                else:
                    places.setdefault(root, []).append(Place(index_of[array], axis, positions))
        free = [root for root in sorted(places) if root not in self._frozen and self._sizes[root] >= 2]
        return tuple(Group(self._names[root], self._sizes[root], tuple(places[root])) for root in free)

    def _positions(self, root: int, here: NDArray[np.intp], channels: Channels) -> NDArray[np.intp] | None:
        """(units, copies), or None where not every unit has as many copies."""
        size = self._sizes[root]
        units = channels.unit[here]
        copies = np.bincount(units, minlength=size)
        if copies.min() != copies.max():
            return None
        return here[np.argsort(units, kind="stable")].reshape(size, -1)

    def _root(self, group: int) -> int:
        while self._parent[group] != group:
            group = self._parent[group]
        return group

    def _join(self, a: int, b: int) -> None:
        low, high = sorted((self._root(a), self._root(b)))
        if low != high:
            self._parent[high] = low
            if high in self._frozen:
                self._frozen.add(low)

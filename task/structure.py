"""Which hidden units a model has, and where in its arrays each of them stands: what may be permuted without a trace.

Pure NumPy; `task.units` reads it off a Keras model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from task.arrays import Array
from task.update import Arrays

Permutation = NDArray[np.intp]  # unit p[i] of the old order comes to the place i


@dataclass(frozen=True)
class Place:
    """Where a group's units stand in one array.

    Attributes:
        array: index of the array in `model.get_weights()`.
        axis: the axis that runs over them.
        positions: (units, copies), where on this axis each unit stands; a Dense kernel behind Flatten has one copy for
            each pixel, and the channels of a grouped or depthwise convolution one for each multiple.
    """

    array: int
    axis: int
    positions: NDArray[np.intp]

    def permuted(self, array: Array, permutation: Permutation) -> Array:
        """That array with the units in another order; what is no unit of the group stays where it is."""
        order = np.arange(array.shape[self.axis])
        order[self.positions] = self.positions[permutation]
        return np.take(array, order, self.axis)


@dataclass(frozen=True)
class Group:
    """Units that must be permuted together: of one layer, or of several that a residual connection adds.

    Attributes:
        name: the layer that makes them, for people.
        size: how many they are, >= 2.
        places: everywhere they stand.
    """

    name: str
    size: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Structure:
    """The hidden units of a model.

    Attributes:
        groups: units that can be permuted, from the input to the output.
        counted: for each array whether it counts in distances; a BatchNorm's running statistics do not, as they are
            facts about the data and may be many times larger than weights.
        notes: layers whose units keep their order, each with the reason, for people.
    """

    groups: tuple[Group, ...]
    counted: tuple[bool, ...]
    notes: tuple[str, ...] = ()

    def permuted(self, arrays: Sequence[np.ndarray], permutations: Sequence[Permutation]) -> Arrays:
        """The model with its units in another order; it computes the same function.

        Args:
            arrays: in the order of `model.get_weights()`; not changed.
            permutations: one for each group.
        """
        result = list(arrays)
        for group, permutation in zip(self.groups, permutations, strict=True):
            for place in group.places:
                result[place.array] = place.permuted(result[place.array], permutation)
        return result

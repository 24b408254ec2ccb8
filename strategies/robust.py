"""What rules against attackers share: whole-number options, and an order by content."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any

from strategies.base import Range
from task.update import Arrays, Update


@dataclass(frozen=True)
class Whole(Range):
    """The whole numbers that an option may be, from `low` on."""

    def check(self, name: str, value: Any) -> None:
        """Refuse, with a ValueError, a value of the option `name` that is no whole number >= low."""
        if isinstance(value, bool) or not isinstance(value, int) or value < self.low:
            raise ValueError(f"{name} must be a whole number >= {self.low:g}, not {value!r}")


def in_order(updates: Sequence[Update], keys: Sequence[Any]) -> list[Update]:
    """The updates by their keys and, where keys are equal, by the bytes of their arrays: however they came, the same.

    Args:
        updates: in any order.
        keys: one for each, that depends on the update and on the set of the others alone.

    Returns:
        A new list. Updates that are still equal have the same arrays and keys, so that nothing can depend on which of
        them comes first.
    """

    def compare(i: int, j: int) -> int:
        """Bytes are looked at only where keys tie."""
        if keys[i] != keys[j]:
            return -1 if keys[i] < keys[j] else 1
        return _by_bytes(updates[i].arrays, updates[j].arrays)

    return [updates[i] for i in sorted(range(len(updates)), key=cmp_to_key(compare))]


def _by_bytes(one: Arrays, other: Arrays) -> int:
    """-1, 0 or 1 as the bytes of the first arrays that differ come before, with or after."""
    for a, b in zip(one, other, strict=True):
        mine, its = a.tobytes(), b.tobytes()
        if mine != its:
            return -1 if mine < its else 1
    return 0

"""What the numbers of a reply and of a run's tables can be: one schema for whoever takes, writes or reads them."""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from task.errors import shown


class Limits(NamedTuple):
    """The smallest and the largest number of one kind.

    Attributes:
        low: the smallest.
        high: the largest.
        whole: integers only.
        diverges: NaN and infinity as well, because training may come to such.
    """

    low: float
    high: float
    whole: bool = False
    diverges: bool = False

    def hold(self, value: float) -> bool:
        """Return whether a number is one of these."""
        return self.low <= value <= self.high or (self.diverges and not -math.inf < value < math.inf)

    def __str__(self) -> str:
        beside = ", NaN or infinite" if self.diverges else ""
        return f"in {self.low:.16g}..{self.high:.16g}{beside}"


_COUNT: Final = Limits(0, 2**53, whole=True)
_NUMBER: Final = Limits(0, 2**31 - 1, whole=True)
_SHARE: Final = Limits(0, 1)
_SECONDS: Final = Limits(0, 1e12)
_LOSS: Final = Limits(-1e100, 1e100, diverges=True)  # float32 ends at 1e38; squares of these are numbers

LIMITS: Final = {
    **dict.fromkeys(("round", "client", "num_classes", "input_shape"), _NUMBER),  # a shape's sides
    **dict.fromkeys(("clients_ok", "clients_rejected", "bytes_up", "bytes_down"), _COUNT),
    **dict.fromkeys(("num_examples", "local_steps"), _COUNT),
    **dict.fromkeys(("test_accuracy", "accuracy_before", "accuracy_after"), _SHARE),
    **dict.fromkeys(("test_loss", "train_loss", "update_norm"), _LOSS),
    **dict.fromkeys(("local_norm", "dp_epsilon"), Limits(0, 1e100)),
    **dict.fromkeys(("seconds", "cpu_seconds"), _SECONDS),
    "seed": Limits(0, 2**63 - 1, whole=True),
    "cosine": Limits(-1.01, 1.01),
}
"""By the name of a fact, a field of an update or a column; names that are missing here may hold anything."""


def check_number(name: str, value: Any) -> None:
    """Refuse what a fact, a field of an update or a cell cannot be; None, for nothing said, is let through.

    Args:
        name: a key of LIMITS.
        value: anything that was sent or computed.

    Raises:
        ValueError: one printable line that names it.
    """
    limits = LIMITS[name]
    number = value.item() if isinstance(value, np.generic) else value
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int if limits.whole else int | float):
        kind = "an integer" if limits.whole else "a number"
        it = "a list" if isinstance(number, list) else f"{type(number).__name__} {shown(number, 40)}"
        raise ValueError(f"{name} must be {kind}, not {it}")
    if not limits.hold(number):
        raise ValueError(f"{name} must be {limits}, not {shown(number, 40)}")


def representable(name: str, value: Any) -> Any:
    """Return what a table holds of a value that the server computed.

    Args:
        name: of the column.
        value: of the cell.

    Returns:
        The value itself; infinity, with its sign, for a finite number beyond the range of a column that may diverge.

    Raises:
        ValueError: any other number that the column cannot hold, so that no table is written that cannot be read.
    """
    limits = LIMITS.get(name)
    if limits is None:
        return value
    if limits.diverges and isinstance(value, float) and not limits.hold(value):
        return math.copysign(math.inf, value)
    check_number(name, value)
    return value


def outside(name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of a column's numbers cannot be.

    Args:
        name: of the column, a key of LIMITS.
        values: all of them, of one dtype.
    """
    limits = LIMITS[name]
    found: NDArray[np.bool_] = ~((values >= limits.low) & (values <= limits.high))
    return found & np.isfinite(values) if limits.diverges else found

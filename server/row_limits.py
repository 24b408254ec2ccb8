"""What a cell of a run's tables can be: a file that was damaged or made up is refused before anything is made of it."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from task.errors import UserError

if TYPE_CHECKING:
    from server.results import Entry, RoundRow


class Limits(NamedTuple):
    """The smallest and the largest number; infinity and NaN beside them, where training may come to such."""

    low: float
    high: float
    diverges: bool = False


_COUNT: Final = Limits(0, 2**53)
_SHARE: Final = Limits(0, 1)
_LOSS: Final = Limits(-1e100, 1e100, diverges=True)  # float32 ends at 1e38; squares of these are numbers

LIMITS: Final = {
    **dict.fromkeys(("round", "client"), Limits(0, 2**31 - 1)),
    **dict.fromkeys(("clients_ok", "clients_rejected", "bytes_up", "bytes_down"), _COUNT),
    **dict.fromkeys(("num_examples", "local_steps"), _COUNT),
    **dict.fromkeys(("test_accuracy", "accuracy_before", "accuracy_after"), _SHARE),
    **dict.fromkeys(("test_loss", "train_loss", "local_norm", "update_norm"), _LOSS),
    "seed": Limits(0, 2**63 - 1),
    "seconds": Limits(0, 1e12),
    "cosine": Limits(-1.01, 1.01),
}
"""By column; those that are missing here may hold anything of their type."""


def words_of(kind: Any) -> Collection[str] | None:
    """The words that a field of this type can be; None: any."""
    return get_args(kind) if get_origin(kind) is Literal else None


def outside(name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of a column's numbers cannot be."""
    low, high, diverges = LIMITS[name]
    found: NDArray[np.bool_] = ~((values >= low) & (values <= high))
    return found & np.isfinite(values) if diverges else found


def check_rounds(rows: Sequence["RoundRow"], file: Path) -> None:
    """See that each contestant has the rounds 0, 1, 2 ... once: what is told of them is as large as the last.

    Raises:
        UserError: one is missing or there twice.
    """
    found: dict[Entry, set[int]] = {}
    for row in rows:
        rounds = found.setdefault(row.entry, set())
        if row.round in rounds:
            raise UserError(f"{file} cannot be read: round {row.round} of {row.entry.key} is there twice")
        rounds.add(row.round)
    for entry, rounds in found.items():
        if len(rounds) != max(rounds) + 1:
            missing = next(number for number in range(len(rounds) + 1) if number not in rounds)
            raise UserError(f"{file} cannot be read: round {missing} of {entry.key} is missing before {max(rounds)}")

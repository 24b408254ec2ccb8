"""comparison.csv and targets.csv."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.files import write_atomic
from server.statistics.pairs import Comparison
from server.statistics.targets import Target

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from server.summary import Outcome

COMPARISON: Final = "comparison.csv"
TARGETS: Final = "targets.csv"


def write_statistics(folder: Path, outcome: "Outcome") -> None:
    """Write both files, with their headers also where there is nothing to compare."""
    write_atomic(folder / COMPARISON, rows_as_csv(Comparison, outcome.comparisons))
    write_atomic(folder / TARGETS, rows_as_csv(Target, outcome.targets))


def rows_as_csv(kind: type["DataclassInstance"], rows: Iterable["DataclassInstance"]) -> bytes:
    """A CSV file with the fields of a dataclass as columns.

    Floats read back to the same bits; None is an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(kind))
    writer.writerows(map(astuple, rows))
    return text.getvalue().encode(errors="backslashreplace")

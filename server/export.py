"""A run's rows as Arrow tables: tidy, typed as their dataclasses are, in the run's order; and as Parquet files.

The files are read as they are, without holding the folder: a run that is still going on can be looked at, too.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args, get_origin

import numpy as np

from server.files import write_atomic
from server.results import ClientRow, LocalRow, RoundRow, RunFolder
from task.config import parse
from task.errors import UserError, quoted
from task.limits import LIMITS, outside

if TYPE_CHECKING:
    import pandas as pd
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")
Table = Any  # of pyarrow, which has no types

TABLES: Final[Mapping[str, type["DataclassInstance"]]] = {"rounds": RoundRow, "clients": ClientRow, "local": LocalRow}
"""The files `NAME.csv` that become `NAME.parquet`, and what a row of each is."""

_RANKED = ("scenario", "strategy")  # sorted as the user gave them, not by the alphabet
_SORTED = (*_RANKED, "seed", "round", "client")


def write_parquet(folder: RunFolder) -> None:
    """Write rounds.parquet, clients.parquet and local.parquet, with the columns of the .csv files.

    Texts are dictionary-encoded, and only columns whose numbers may be missing are nullable. Rows are sorted by
    scenario and strategy as configured, then by seed, round and client.

    Raises:
        UserError: a .csv file was changed by hand into something else.
    """
    import pyarrow as pa
    from pyarrow import parquet

    orders = orders_of(folder.read_run())
    for name, kind in TABLES.items():
        sink = pa.BufferOutputStream()
        parquet.write_table(read_table(folder.path / f"{name}.csv", kind, orders), sink, compression="zstd")
        write_atomic(folder.path / f"{name}.parquet", sink.getvalue())


def read_table(file: Path, kind: type["DataclassInstance"], orders: Mapping[str, Sequence[str]]) -> Table:
    """The rows of a .csv file of a run; an absent file has none, and a last line that a kill tore is left out.

    Args:
        file: as `server.files.RowFile` writes it.
        kind: the dataclass of a row.
        orders: of columns the order of their values; others come in the order in which they appear.

    Returns:
        A pyarrow.Table; floats are those that were written, to the bit.

    Raises:
        UserError: the file holds something else than such rows.
    """
    import pyarrow as pa
    from pyarrow import csv

    schema = _schema(kind)
    content = file.read_bytes() if file.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return schema.empty_table()
    types = {field.name: field.type for field in schema}
    convert = csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=False)
    try:
        table = csv.read_csv(pa.BufferReader(whole), convert_options=convert)
        if table.column_names != schema.names:
            raise UserError(f"{file} cannot be read: its columns are not the known ones")
        _check_cells(table, kind)
        return _tidy(table.unify_dictionaries().combine_chunks().cast(schema), orders)
    except (pa.ArrowInvalid, ValueError) as error:
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def _check_cells(table: Table, kind: type["DataclassInstance"]) -> None:
    """See that no cell holds what there cannot be.

    Raises:
        ValueError: one does.
    """
    for field in fields(kind):
        column = table.column(field.name)
        if field.name in LIMITS:
            values = column.drop_null().to_numpy()
            wrong = values[outside(field.name, values)].tolist()
        elif get_origin(field.type) is Literal:
            wrong = [text for text in column.unique().to_pylist() if text not in get_args(field.type)]
        else:
            continue
        if len(wrong):
            raise ValueError(f"{field.name} cannot be {quoted(wrong[0])}")


def rows_of(table: Table, kind: type[Row]) -> list[Row]:
    """The rows of a table of `read_table`."""
    return [kind(**row) for row in table.to_pylist()]


def frame_of(table: Table) -> "pd.DataFrame":
    """A table as pandas has it.

    Texts are categories in the order of the run, so that pivots and legends come out in it; whole numbers that may be
    missing are Int64, other numbers int64 and float64, where a missing one is NaN.
    """
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int64(): pd.Int64Dtype()}
    return pd.DataFrame(
        {
            field.name: column.to_pandas(types_mapper=nullable.get if field.nullable else None)
            for field, column in zip(table.schema, table.columns, strict=True)
        }
    )


def orders_of(run: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """How scenarios and strategies are sorted: as the user gave them.

    Args:
        run: the content of run.json.
    """
    with suppress(UserError):  # of another version: in the order in which they appear, then
        config = parse(run.get("config", {}))
        strategies = dict.fromkeys(("strategy", "a", "b"), config.strategies)
        return {"scenario": [scenario.name for scenario in config.scenarios], **strategies}
    return {}


def _schema(kind: type["DataclassInstance"]) -> Any:
    import pyarrow as pa

    numbers = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    text = pa.dictionary(pa.int32(), pa.string())
    found = []
    for field in fields(kind):
        parts = get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
        plain = next(part for part in parts if part is not type(None))
        found.append(pa.field(field.name, numbers.get(plain, text), nullable=type(None) in parts))
    return pa.schema(found)


def _tidy(table: Table, orders: Mapping[str, Sequence[str]]) -> Table:
    """Rows of contestants sorted, others left as they come; the categories of each text in its order."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and table.num_rows:
            table = table.set_column(i, field, _ranked(table.column(i).chunk(0), orders.get(field.name, ())))
    if "seed" not in table.column_names:
        return table
    columns = [table.column(name) for name in _SORTED if name in table.column_names]
    keys = [
        column.chunk(0).indices if pa.types.is_dictionary(column.type) else column for column in columns if len(column)
    ]
    return table.take(np.lexsort([np.asarray(key) for key in reversed(keys)])) if keys else table


def _ranked(column: Any, order: Sequence[str]) -> Any:
    """A dictionary-encoded array whose dictionary is in this order, the rest behind as it comes."""
    import pyarrow as pa

    values = column.dictionary.to_pylist()
    place = {value: i for i, value in enumerate(order)}
    ranked = sorted(values, key=lambda value: place.get(value, math.inf))
    where = {value: i for i, value in enumerate(ranked)}
    indices = np.array([where[value] for value in values], np.int32)[np.asarray(column.indices)]
    return pa.DictionaryArray.from_arrays(indices, pa.array(ranked, pa.string()))

"""Tables of Arrow in, the same rows with their verdicts out: for engines of large jobs."""

import functools
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import ClientError, InputInvalid, code_of
from service.inputs import Payload
from service.offline.engines import Local, is_of_rows, load_local
from service.offline.parts import MOST_BYTES, rows_of_json
from service.offline.records import arrow_table
from service.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

_PLACE = re.compile(r"^(?:line \d+|instances\[\d+\]|rows\[\d+\])(?:\.|, |: )")
_OF_FILES = ["file", "row"]
"""Columns of a verdict that say nothing where rows have no file; their own columns stand for it."""


@functools.cache
def worker_model(name: str, models: Path) -> Local:
    """Return a model of a folder with catalogue.toml, loaded once in each process.

    Its runs take one thread: an engine has as many processes as it may use cores.

    Raises:
        BundleError, ClientError: as `load_local` does.
    """
    return load_local(name, Settings(models=models, runtime_threads=1))


def verdicts_beside(table: "pa.Table", model: Local, column: str | None = None) -> "pa.Table":
    """Return a table with the verdict of each row beside it.

    Args:
        table: any number of rows. Features that are all text are read as cells of CSV are, so that
            one that is no number costs its row alone.
        model: from `worker_model` or `load_local`.
        column: holds texts or pictures; None for a model of features.

    Returns:
        The same rows in the same order, with the columns of `records.columns_of`, but for those of
        files. A column of the table that has the name of one of them is renamed `input_<name>`.

    Raises:
        ClientError: if a column that the model needs is not there.
    """
    _check_columns(table, model, column)
    found = arrow_table(_answers(table, model, column), model.labels).drop_columns(_OF_FILES)
    taken = set(found.column_names)
    names = [f"input_{name}" if name in taken else name for name in table.column_names]
    beside = table.rename_columns(names)
    for name in found.column_names:
        beside = beside.append_column(found.schema.field(name), found[name])
    return beside


def _check_columns(table: "pa.Table", model: Local, column: str | None) -> None:
    there = table.column_names
    if column is None and model.kind != "features":
        raise InputInvalid("column", f"the one that holds the {model.kind}s", "none")
    for name in model.required if column is None else (column,):
        if name not in there:
            raise InputInvalid("columns", f"one {name!r}", ", ".join(there))


def _answers(table: "pa.Table", model: Local, column: str | None) -> list[dict[str, Any]]:
    """Return the answers to rows; a payload that is refused as a whole comes in two halves."""
    if not len(table):
        return []
    middle = len(table) // 2
    try:
        if not middle or table.nbytes <= MOST_BYTES:
            found = model.verdicts_on(_payload(table, model, column))
            return [_without_place(row) for row in found]
    except ClientError as error:
        if not is_of_rows(error):
            raise
        if not middle:
            return [_without_place({"error": {"code": code_of(error), "detail": str(error)}})]
    halves = (table.slice(0, middle), table.slice(middle))
    return [row for half in halves for row in _answers(half, model, column)]


def _payload(table: "pa.Table", model: Local, column: str | None) -> Payload:
    import pyarrow as pa  # noqa: PLC0415  of the extra `parquet`
    from pyarrow import csv  # noqa: PLC0415

    if column is not None:
        return rows_of_json(table[column].to_pylist())
    taken = table.select([name for name in model.features if name in table.column_names])
    is_text = [
        pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in taken.schema.types
    ]
    if not all(is_text):
        return rows_of_json(taken.to_pylist())
    cells = [each.fill_null("") for each in taken.columns]  # a line of nothing would be no row
    stream = io.BytesIO()
    csv.write_csv(pa.table(cells, taken.column_names), stream)
    return Payload(stream.getvalue(), "text/csv")


def _without_place(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out which row of a payload it is: it stands beside it."""
    if "error" in row:
        row["error"]["detail"] = _PLACE.sub("", row["error"]["detail"])
    return row

"""Answers as flat records: the same columns in CSV and in Parquet."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN = ("file", "row", "verdict", "label", "reason", "confidence", "novelty_p", "candidates")
ERROR = "error"


def columns_of(labels: Sequence[str]) -> list[str]:
    """Return the names of all columns: those of every model, and one for each label."""
    return [*PLAIN, ERROR, *(f"probability_{label}" for label in labels)]


def flat(row: Mapping[str, Any], labels: Sequence[str]) -> list[Any]:
    """Return a row's values in the order of the columns; None where there is none."""
    error = row.get(ERROR)
    probabilities = row.get("probabilities", {})
    return [
        *(row.get(name) for name in PLAIN),
        None if error is None else error["detail"],
        *(probabilities.get(label) for label in labels),
    ]


def arrow_schema(labels: Sequence[str]) -> "pa.Schema":
    """Return the types of the columns."""
    import pyarrow as pa  # noqa: PLC0415  of the extra `parquet`

    types = {
        "row": pa.int64(),
        "confidence": pa.float64(),
        "novelty_p": pa.float64(),
        "candidates": pa.list_(pa.string()),
        **{f"probability_{label}": pa.float64() for label in labels},
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in columns_of(labels)])


def arrow_table(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> "pa.Table":
    """Return rows as a table of Arrow."""
    import pyarrow as pa  # noqa: PLC0415  of the extra `parquet`

    schema = arrow_schema(labels)
    columns = zip(*(flat(row, labels) for row in rows), strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(values, kind.type) for values, kind in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)

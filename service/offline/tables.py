"""Files of many rows -> parts, without ever holding a whole file."""

import base64
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import IO, Any, NamedTuple, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import ClientError, InputInvalid, PayloadTooLarge
from service.inputs import Payload
from service.offline.parts import MOST_BYTES, MOST_ROWS, Part, refused, rows_of_json

MOST_RECORD_BYTES = 8 << 20
"""A line beyond it is no row: most likely a file without line breaks, or a quote never closed."""

PARQUET_INSTALL_LINE = "pip install 'dunno[parquet]'"


class Table(NamedTuple):
    """An open file of rows, and what the model takes of it."""

    name: str
    stream: IO[bytes]
    size_bytes: int
    column: str | None
    """The one that holds texts or pictures; None: the features by their names."""

    features: Sequence[str]
    """Names of the columns that a model of features takes."""


def csv_parts(table: Table) -> Iterator[Part]:
    """Yield the rows of a CSV file: each part below the file's header, or the cells of a column."""
    if table.column is not None:
        return list_parts(table, _cells(table, table.column), rows_of_json, _size)
    header = table.stream.readline(MOST_RECORD_BYTES)
    try:
        header.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputInvalid(table.name, "UTF-8", f"another byte at {error.start}") from None
    if not header.strip():
        # Whoever decodes says best what an empty file lacks.
        return iter([Part(table.name, 0, (b"",), partial(_join_csv, b""))])
    separator = b";" if header.count(b";") > header.count(b",") else b","
    join = partial(_join_csv, header.rstrip(b"\r\n") + b"\n")
    return _numbered(list_parts(table, _records(table, separator), join, len))


def line_parts(table: Table) -> Iterator[Part]:
    """Yield the lines of a file, each of which is a text."""

    def join(lines: Sequence[bytes]) -> Payload:
        try:
            return rows_of_json([line.decode().strip("\r\n") for line in lines])
        except UnicodeDecodeError as error:
            raise InputInvalid(table.name, "UTF-8", f"another byte at {error.start}") from None

    return list_parts(table, _lines(table), join, len)


def json_line_parts(table: Table) -> Iterator[Part]:
    """Yield the lines of a file, each of which is a row as JSON."""

    def row_of(line: bytes) -> object:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            got = f"{error.msg} at column {error.colno}"
            raise InputInvalid(table.name, "JSON on each line", got) from None
        if table.column is None:
            return row
        if not isinstance(row, dict) or table.column not in row:
            raise InputInvalid(table.name, f"objects with {table.column!r}", "another row")
        return row[table.column]

    def join(lines: Sequence[bytes]) -> Payload:
        return rows_of_json([row_of(line) for line in lines])

    return list_parts(table, _lines(table), join, len)


def array_parts(name: str, values: NDArray[np.generic]) -> Iterator[Part]:
    """Yield the rows of an array, shape (rows, *input), which may be mapped from a file."""
    row_bytes = max(1, values.nbytes // max(1, len(values)))
    length = max(1, min(MOST_ROWS, MOST_BYTES // row_bytes))
    for start in range(0, max(1, len(values)), length):
        rows = values[start : start + length]
        yield Part(name, start, cast("Sequence[Any]", rows), _join_array, rows.nbytes)


def parquet_parts(table: Table) -> Iterator[Part]:
    """Yield the rows of a Parquet file, of which only the columns that are needed are read."""
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  of the extra `parquet`
    except ModuleNotFoundError:
        raise InputInvalid(table.name, f"pyarrow ({PARQUET_INSTALL_LINE})", "none") from None

    def rows() -> Iterator[object]:
        try:
            for batch in file.iter_batches(MOST_ROWS, columns=wanted):
                found = batch.to_pylist()
                yield from (found if column is None else (as_json(row[column]) for row in found))
        except (ArrowException, OSError) as error:
            raise _no_parquet(table, error) from None

    try:
        file = parquet.ParquetFile(table.stream)
    except (ArrowException, OSError) as error:
        raise _no_parquet(table, error) from None
    column = table.column
    there = file.schema_arrow.names
    _check_column(table, there)
    wanted = [name for name in there if name in (table.features if column is None else (column,))]
    row_bytes = table.size_bytes // max(1, file.metadata.num_rows)
    return list_parts(table, rows(), rows_of_json, lambda _: row_bytes)


def list_parts(
    table: Table,
    records: Iterable[Any],
    join: Callable[[Sequence[Any]], Payload],
    size_bytes: Callable[[Any], int],
) -> Iterator[Part]:
    """Yield parts of as many records as fit; what ends them too early is told after them."""
    first = size = 0
    waiting: list[Any] = []
    failure: ClientError | None = None
    try:
        for record in records:
            waiting.append(record)
            size += size_bytes(record)
            if len(waiting) >= MOST_ROWS or size >= MOST_BYTES:
                yield Part(table.name, first, waiting, join, size)
                first, waiting, size = first + len(waiting), [], 0
    except ClientError as error:
        failure = error
    if waiting:
        yield Part(table.name, first, waiting, join, size)
    if failure is not None:
        yield refused(table.name, failure, first + len(waiting))
    elif not first and not waiting:
        yield Part(table.name, 0, (), join)


def _numbered(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield parts of lines, each knowing how many lines of the file came before."""
    lines = 0
    for part in parts:
        yield replace(part, lines_before=lines)
        lines += sum(record.count(b"\n") for record in part.records if record)


def _lines(table: Table) -> Iterator[bytes]:
    """Yield the lines, each after the empty ones before it."""
    empty = b""
    while line := table.stream.readline(MOST_RECORD_BYTES + 1):
        if len(line) > MOST_RECORD_BYTES:
            raise PayloadTooLarge(f"{table.name}: a line", MOST_RECORD_BYTES, "bytes")
        if line.strip(b"\r\n"):
            yield empty + line
            empty = b""
        elif len(empty) < MOST_RECORD_BYTES:
            empty += line
        else:
            raise PayloadTooLarge(f"{table.name}: empty lines", MOST_RECORD_BYTES, "bytes")


def _records(table: Table, separator: bytes) -> Iterator[bytes]:
    """Yield the records of a CSV file: lines, or several of them where a quoted cell goes on."""
    cell = re.compile(rb'(^|%b)"(?:[^"]|"")*+"' % separator)
    opening = re.compile(rb'(?:^|%b)"' % separator)
    lines: list[bytes] = []
    size, is_open = 0, False
    for line in _lines(table):
        lines.append(line)
        size += len(line)
        if is_open or b'"' in line:
            # A quote within a bare cell is a character like any other.
            rest = b'"' + line if is_open else line.lstrip(b"\r\n")
            is_open = opening.search(cell.sub(rb"\1", rest)) is not None
        if not is_open:
            yield b"".join(lines)
            lines, size = [], 0
        elif size > MOST_RECORD_BYTES:
            raise PayloadTooLarge(f"{table.name}: a row", MOST_RECORD_BYTES, "bytes")
    if lines:
        yield b"".join(lines)


def _join_csv(header: bytes, records: Sequence[bytes]) -> Payload:
    return Payload(header + b"".join(records), "text/csv")


def _join_array(rows: Sequence[Any]) -> Payload:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(rows), allow_pickle=False)
    return Payload(stream.getvalue(), "application/x-npy")


def _cells(table: Table, column: str) -> Iterator[str | None]:
    text = io.TextIOWrapper(table.stream, "utf-8-sig", newline="")
    try:
        first = text.readline(MOST_RECORD_BYTES)
        separator = ";" if first.count(";") > first.count(",") else ","
        names = next(csv.reader([first], delimiter=separator), [])
        _check_column(table, names)
        position = names.index(column)
        for line in csv.reader(text, delimiter=separator):
            if line:
                yield line[position] if position < len(line) else None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputInvalid(table.name, "CSV in UTF-8", str(error)) from None
    finally:
        text.detach()  # whoever opened the stream closes it


def _check_column(table: Table, there: Sequence[str]) -> None:
    if table.column is not None and table.column not in there:
        raise InputInvalid("--column", f"one of {', '.join(there)}", table.column)


def _size(cell: str | None) -> int:
    return len(cell or "")


def as_json(value: object) -> object:
    """Return a cell as an instance of JSON: the bytes of a picture in base64."""
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _no_parquet(table: Table, error: Exception) -> InputInvalid:
    return InputInvalid(table.name, "a Parquet file", str(error).partition("\n")[0][:200])

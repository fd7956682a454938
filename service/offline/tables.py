"""Files of many rows -> parts, without ever holding a whole file."""

import codecs
import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import ClientError, InputInvalid, PayloadTooLarge, install_line
from service.inputs import Payload
from service.inputs.numbers import read_json
from service.offline.parts import MOST_BYTES, MOST_ROWS, Part, refused, rows_of_json

MOST_RECORD_BYTES = 8 << 20
"""A line beyond it is no row: most likely a file without line breaks, or a quote never closed."""

_CLIP = 200  # characters of what came


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
    lines = _lines(table)
    first = next(lines, b"")
    separator = ";" if first.count(b";") > first.count(b",") else ","
    records = _records(table, itertools.chain([first], lines), separator)
    header = next(records)
    try:
        text = header.decode().lstrip("\r\n")
        names = next(csv.reader(io.StringIO(text), delimiter=separator), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputInvalid(table.name, "CSV in UTF-8", str(error)) from None
    if table.column is not None:
        _check_column(table, names)
        cells = partial(_join_cells, table.name, names.index(table.column), separator)
        return list_parts(table, records, cells, len)
    if not text:
        # Whoever decodes says best what an empty file lacks.
        return iter([Part(table.name, 0, (b"",), partial(_join_csv, b""))])
    join = partial(_join_csv, text.rstrip("\r\n").encode() + b"\n")
    lines_before = header.count(b"\n") - text.count("\n")
    return _numbered(list_parts(table, records, join, len), lines_before)


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
            row = read_json(line.lstrip(b"\r\n"))
        except InputInvalid as error:
            raise InputInvalid(table.name, "JSON on each line", error.got) from None
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
        raise InputInvalid(table.name, f"pyarrow ({install_line('parquet')})", "none") from None

    def rows() -> Iterator[object]:
        try:
            for batch in file.iter_batches(length, columns=wanted):
                found = batch.to_pylist()
                yield from (found if column is None else (row[column] for row in found))
        except (ArrowException, OSError) as error:
            raise _no_parquet(table, error) from None

    try:
        file = parquet.ParquetFile(table.stream)
    except (ArrowException, OSError) as error:
        raise _no_parquet(table, error) from None
    column = table.column
    there = file.schema_arrow.names
    _check_column(table, there)
    _check_features(table, there)
    wanted = [name for name in there if name in (table.features if column is None else (column,))]
    row_bytes = table.size_bytes // max(1, file.metadata.num_rows)
    length = max(1, min(MOST_ROWS, MOST_BYTES // max(1, row_bytes)))
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


def _numbered(parts: Iterable[Part], lines: int) -> Iterator[Part]:
    """Yield parts of lines, each knowing how many came before; so many did before the header."""
    for part in parts:
        yield replace(part, lines_before=lines)
        lines += sum(record.count(b"\n") for record in part.records if record)


def _lines(table: Table) -> Iterator[bytes]:
    """Yield the lines, each after the empty ones before it."""
    empty, mark = b"", codecs.BOM_UTF8
    while line := table.stream.readline(MOST_RECORD_BYTES + 1):
        if len(line) > MOST_RECORD_BYTES:
            raise PayloadTooLarge(f"{table.name}: a line", MOST_RECORD_BYTES, "bytes")
        line, mark = line.removeprefix(mark), b""
        if line.strip(b"\r\n"):
            yield empty + line
            empty = b""
        elif len(empty) < MOST_RECORD_BYTES:
            empty += line
        else:
            raise PayloadTooLarge(f"{table.name}: empty lines", MOST_RECORD_BYTES, "bytes")


def _records(table: Table, lines: Iterable[bytes], separator: str) -> Iterator[bytes]:
    """Yield the records of a CSV file: lines, or several of them where a quoted cell goes on."""
    cell = re.compile(rb'(^|%b)"(?:[^"]|"")*+"' % separator.encode())
    opening = re.compile(rb'(?:^|%b)"' % separator.encode())
    record: list[bytes] = []
    size, is_open = 0, False
    for line in lines:
        record.append(line)
        size += len(line)
        if is_open or b'"' in line:
            # A quote within a bare cell is a character like any other.
            rest = b'"' + line if is_open else line.lstrip(b"\r\n")
            is_open = opening.search(cell.sub(rb"\1", rest)) is not None
        if not is_open:
            yield b"".join(record)
            record, size = [], 0
        elif size > MOST_RECORD_BYTES:
            raise PayloadTooLarge(f"{table.name}: a row", MOST_RECORD_BYTES, "bytes")
    if record:
        yield b"".join(record)


def _join_csv(header: bytes, records: Sequence[bytes]) -> Payload:
    return Payload(header + b"".join(records), "text/csv")


def _join_array(rows: Sequence[Any]) -> Payload:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(rows), allow_pickle=False)
    return Payload(stream.getvalue(), "application/x-npy")


def _join_cells(name: str, position: int, separator: str, records: Sequence[bytes]) -> Payload:
    """Return the payload of a column's cells; None where a row ends before it."""
    try:
        lines = csv.reader(io.StringIO(b"".join(records).decode()), delimiter=separator)
        cells = [line[position] if position < len(line) else None for line in lines if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputInvalid(name, "CSV in UTF-8", str(error)) from None
    return rows_of_json(cells)


def _check_column(table: Table, there: Sequence[str]) -> None:
    if table.column is not None and table.column not in there:
        raise InputInvalid("--column", f"one of {', '.join(there)}", table.column)


def _check_features(table: Table, there: Sequence[str]) -> None:
    missing = [name for name in table.features if there.count(name) != 1]
    if table.column is None and missing:
        got = "several" if missing[0] in there else ", ".join(there)[:_CLIP]
        raise InputInvalid("header", f"one column {missing[0]!r}", got)


def _no_parquet(table: Table, error: Exception) -> InputInvalid:
    return InputInvalid(table.name, "a Parquet file", str(error).partition("\n")[0][:_CLIP])

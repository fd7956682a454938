"""Files of many rows -> parts, without ever holding a whole file."""

import codecs
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
from service.inputs.charsets import LONGEST_MARK, UTF_8, marked_codec
from service.inputs.csv_reader import Head, blank_line, read_head, read_rows
from service.inputs.numbers import read_json
from service.offline.parts import MOST_BYTES, MOST_ROWS, Part, refused, rows_of_json

MOST_RECORD_BYTES = 8 << 20
"""A line beyond it is no row: most likely a file without line breaks, or a quote never closed."""

PIECE_BYTES = 256 << 10
"""Read at once of a file of lines."""

_CLIP = 200  # characters of what came
_lone_cr = re.compile(rb"\r(?!\n)")


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
    lines = split_lines(table, is_cr_an_end=True)
    head = read_head(_characters(table, lines))
    records = _records(table, lines, head.separator)
    if table.column is not None:
        _check_column(table, head.names)
        cells = partial(_join_cells, table.name, table.column, head)
        return _numbered(list_parts(table, records, cells, len), head.lines)
    if not head.names:
        # Whoever decodes says best what an empty file lacks.
        return iter([Part(table.name, 0, (b"",), partial(_join_csv, b""))])
    top = (head.hint + head.record).encode()
    join = partial(_join_csv, top.rstrip(b"\r\n") + b"\n")
    return _numbered(list_parts(table, records, join, len), head.lines - top.count(b"\n"))


def line_parts(table: Table) -> Iterator[Part]:
    """Yield the lines of a file, each of which is a text."""

    def join(lines: Sequence[bytes]) -> Payload:
        try:
            return rows_of_json([line.decode().strip("\r\n") for line in lines])
        except UnicodeDecodeError as error:
            raise InputInvalid(table.name, "UTF-8", f"another byte at {error.start}") from None

    return list_parts(table, _filled_lines(table), join, len)


def json_line_parts(table: Table) -> Iterator[Part]:
    """Yield the lines of a file, each of which is a row as JSON."""

    def row_of(line: bytes) -> object:
        try:
            row = read_json(line)
        except InputInvalid as error:
            raise InputInvalid(table.name, "JSON on each line", error.got) from None
        if table.column is None:
            return row
        if not isinstance(row, dict) or table.column not in row:
            raise InputInvalid(table.name, f"objects with {table.column!r}", "another row")
        return row[table.column]

    def join(lines: Sequence[bytes]) -> Payload:
        return rows_of_json([row_of(line) for line in lines])

    return list_parts(table, _filled_lines(table), join, len)


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


def split_lines(table: Table, *, is_cr_an_end: bool = False) -> Iterator[bytes]:
    """Yield the lines of a file in UTF-8, without its byte order mark.

    Args:
        table: the file; that it is in UTF-16 is told by its byte order mark.
        is_cr_an_end: whether a CR alone ends a line; a LF comes in its place.

    Raises:
        InputInvalid: if it is no UTF-16 although it begins so.
        PayloadTooLarge: if a line is too long to be a row.
    """
    pieces = _pieces(table)
    rest = b""
    for piece in _with_lf(pieces) if is_cr_an_end else pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            _check_size(table, "a line", len(line))
            yield line + b"\n"
        _check_size(table, "a line", len(rest))
    if rest:
        yield rest


def _pieces(table: Table) -> Iterator[bytes]:
    """Yield the content of a file in UTF-8, without its byte order mark."""
    # `read` would wait for a full piece: a pipe may be slow.
    read = partial(getattr(table.stream, "read1", table.stream.read), PIECE_BYTES)
    first = table.stream.read(LONGEST_MARK)
    codec, mark_bytes = marked_codec(first) or (UTF_8, 0)
    pieces = itertools.chain([first[mark_bytes:]], iter(read, b""))
    if codec == UTF_8:
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for piece in pieces:
            yield decoder.decode(piece).encode()
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise InputInvalid(table.name, codec.upper(), str(error)) from None


def _with_lf(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same with LF for each CR that stands alone."""
    held = b""
    for piece in pieces:
        content = held + piece
        held = content[-1:] if content.endswith(b"\r") else b""
        yield _lone_cr.sub(b"\n", content[: len(content) - len(held)])
    if held:
        yield b"\n"


def _filled_lines(table: Table) -> Iterator[bytes]:
    """Yield the lines that are not blank."""
    return (line for line in split_lines(table) if not line.isspace())


def _characters(table: Table, lines: Iterable[bytes]) -> Iterator[str]:
    """Yield lines as characters, no more of them than a header may have."""
    size = 0
    for line in lines:
        size += len(line)
        _check_size(table, "the header with the empty lines before it", size)
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            expected = "CSV in UTF-8, or in UTF-16 with a byte order mark"
            raise InputInvalid(table.name, expected, str(error)) from None


def _check_size(table: Table, what: str, size: int) -> None:
    if size > MOST_RECORD_BYTES:
        raise PayloadTooLarge(f"{table.name}: {what}", MOST_RECORD_BYTES, "bytes")


def _records(table: Table, lines: Iterable[bytes], separator: str) -> Iterator[bytes]:
    """Yield the rows of a CSV file, each with the blank lines before it.

    A row is a line, or several of them where a quoted cell goes on.
    """
    between = re.escape(separator).encode()
    cell = re.compile(rb'(?:^|(?<=%b))"(?:[^"]++|"")*+"' % between)
    opening = re.compile(rb'(?:^|%b)"' % between)
    is_blank = blank_line(separator)
    record: list[bytes] = []
    size, is_open = 0, False
    for line in lines:
        record.append(line)
        size += len(line)
        _check_size(table, "a row", size)
        if not is_open and is_blank(line):
            continue
        if is_open or b'"' in line:
            # A quote within a bare cell is a character like any other.
            rest = b'"' + line if is_open else line
            is_open = opening.search(cell.sub(b"", rest)) is not None
        if not is_open:
            yield b"".join(record)
            record, size = [], 0
    if is_open:
        yield b"".join(record)


def _join_csv(header: bytes, records: Sequence[bytes]) -> Payload:
    return Payload(header + b"".join(records), "text/csv")


def _join_array(rows: Sequence[Any]) -> Payload:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(rows), allow_pickle=False)
    return Payload(stream.getvalue(), "application/x-npy")


def _join_cells(name: str, column: str, head: Head, records: Sequence[bytes]) -> Payload:
    """Return the payload of a column's cells; None where a row ends before it."""
    position, width = head.names.index(column), len(head.names)
    cells = []
    try:
        lines = io.StringIO(b"".join(records).decode(), newline="")
        for number, row in read_rows(lines, head.separator):
            if any(row[width:]):  # a separator within a text that has no quotes
                expected = f"{width} cells, as the header has"
                raise InputInvalid(f"line {number}", expected, str(len(row)))
            cells.append(row[position] if position < len(row) else None)
    except UnicodeDecodeError as error:
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

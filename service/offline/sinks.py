"""Where answers go: a table, lines of JSON, or a file that has its name once it is complete."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from service.errors import install_line
from service.offline.engines import OfflineFailed
from service.offline.records import arrow_schema, arrow_table, columns_of, flat

Row = Mapping[str, Any]
Sink = Callable[[Sequence[Row]], None]
"""Takes the next rows, each with its `file` and `row`."""

MOST_SHOWN = 1000
"""Rows of the table on the terminal, which has to be whole before it can be drawn."""

MOST_CANDIDATES = 3

GROUP_ROWS = 16_384
"""Rows of a row group of Parquet, which are in memory until they are written."""


@contextmanager
def table_sink() -> Iterator[Sink]:
    """Show the first rows as a table, and say how many there were beside them."""
    from rich.console import Console  # noqa: PLC0415  a service has no use for tables
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    table.add_column("file", overflow="fold", min_width=12)
    table.add_column("row", no_wrap=True, min_width=3)
    table.add_column("verdict", no_wrap=True, min_width=10)
    table.add_column("label or reason", overflow="fold", min_width=12)
    table.add_column("confidence", no_wrap=True, min_width=6)
    table.add_column("candidates", overflow="fold")
    left_out = 0

    def write(rows: Sequence[Row]) -> None:
        nonlocal left_out
        shown = max(0, MOST_SHOWN - table.row_count)
        for row in rows[:shown]:
            table.add_row(*map(Text, _cells(row)))  # brackets in it are no style
        left_out += len(rows[shown:])

    yield write
    with _standard_output():
        Console().print(table)
        sys.stdout.flush()
    if left_out:
        click.echo(f"and {left_out:,} more; --output FILE.csv has them all", err=True)


@contextmanager
def json_lines_sink() -> Iterator[Sink]:
    """Print one JSON object a row."""
    stream = sys.stdout.buffer

    def write(rows: Sequence[Row]) -> None:
        with _standard_output():
            stream.writelines(orjson.dumps(row) + b"\n" for row in rows)
            stream.flush()

    yield write


@contextmanager
def _standard_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads has enough, which click knows how to end
    except OSError as error:
        raise OfflineFailed(f"standard output: cannot be written ({error.strerror})") from None


@contextmanager
def file_sink(path: Path, labels: Sequence[str]) -> Iterator[Sink]:
    """Write a file by its suffix, beside its place until it is complete.

    Raises:
        OfflineFailed: if the suffix is another one, or the file cannot be written.
    """
    kinds = {".csv": _csv, ".json": _json, ".jsonl": _json_lines, ".parquet": _parquet}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise OfflineFailed(f"--output: expected a file ending in {', '.join(kinds)}, got {path}")
    incomplete = path.with_name(f"{path.name}.part")
    try:
        with kind(incomplete, labels) as write:
            yield write
        incomplete.replace(path)
    except OSError as error:
        raise OfflineFailed(f"{path}: cannot be written ({error.strerror})") from None


def _cells(row: Row) -> tuple[str, ...]:
    where = (str(row["file"]), str(row["row"]))
    error = row.get("error")
    if error is not None:
        return (*where, "error", str(error["detail"]), "", "")
    candidates = row["candidates"]
    return (
        *where,
        "answer" if row["label"] is not None else "don't know",
        str(row["label"] if row["label"] is not None else row["reason"]),
        f"{row['confidence']:.4f}",
        ", ".join(candidates[:MOST_CANDIDATES]) + ("…" if candidates[MOST_CANDIDATES:] else ""),
    )


@contextmanager
def _csv(path: Path, labels: Sequence[str]) -> Iterator[Sink]:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        names = columns_of(labels)
        writer.writerow(names)
        lists = names.index("candidates")

        def write(rows: Sequence[Row]) -> None:
            for row in rows:
                cells = flat(row, labels)
                if cells[lists] is not None:
                    # Labels may hold any separator.
                    cells[lists] = json.dumps(cells[lists], ensure_ascii=False)
                writer.writerow(cells)

        yield write


@contextmanager
def _json_lines(path: Path, _: Sequence[str]) -> Iterator[Sink]:
    with path.open("wb") as stream:
        yield lambda rows: stream.writelines(orjson.dumps(row) + b"\n" for row in rows)


@contextmanager
def _json(path: Path, _: Sequence[str]) -> Iterator[Sink]:
    with path.open("wb") as stream:
        before = b"["

        def write(rows: Sequence[Row]) -> None:
            nonlocal before
            for row in rows:
                stream.write(before + orjson.dumps(row))
                before = b",\n"

        yield write
        stream.write(b"[]\n" if before == b"[" else b"]\n")


@contextmanager
def _parquet(path: Path, labels: Sequence[str]) -> Iterator[Sink]:
    try:
        from pyarrow import parquet  # noqa: PLC0415  of the extra `parquet`
    except ModuleNotFoundError:
        raise OfflineFailed(f"Parquet needs pyarrow; {install_line('parquet')}") from None
    waiting: list[Row] = []
    with parquet.ParquetWriter(path, arrow_schema(labels)) as writer:

        def write(rows: Sequence[Row]) -> None:
            waiting.extend(rows)
            if len(waiting) >= GROUP_ROWS:
                writer.write_table(arrow_table(waiting, labels))
                waiting.clear()

        yield write
        if waiting:
            writer.write_table(arrow_table(waiting, labels))

"""`dunno predict`: files, folders and pipes in; a table, JSON, CSV or Parquet out."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.errors import DunnoError
from service.terminal import complete_model, settings_or_stop, stop

if TYPE_CHECKING:
    from service.offline.engines import Engine, Found
    from service.offline.progress import Tally
    from service.offline.sinks import Row, Sink
    from service.offline.sources import PassedOver, Wanted

VERDICTS = ("answer", "dont_know", "error")
INTERRUPTED = 128 + signal.SIGINT
"""Exit code, as shells have it."""


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.argument("files", nargs=-1, required=True)
@click.option("--max-error", type=float, help="Certified risk to answer at, such as 0.01.")
@click.option("--min-confidence", type=float, help="Least confidence to answer.")
@click.option(
    "--only",
    type=click.Choice(VERDICTS),
    multiple=True,
    help="Show these rows alone: dont_know and error are what a person must look at.",
)
@click.option("--format", "form", metavar="SUFFIX", help="What FILES hold, whatever their names.")
@click.option("--column", help="Column of a table that holds the texts or pictures.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a file ending in .csv, .json, .jsonl or .parquet instead of a table.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object a row.")
@click.option(
    "--key", envvar="DUNNO_CLIENT_KEY", help="For a server; better in DUNNO_CLIENT_KEY than here."
)
@click.option("--models", type=Path, help="Folder with catalogue.toml (DUNNO_MODELS).")
def predict(  # noqa: PLR0913  one parameter for each option of the command
    model: str,
    files: tuple[str, ...],
    *,
    max_error: float | None,
    min_confidence: float | None,
    only: tuple[str, ...],
    form: str | None,
    column: str | None,
    output: Path | None,
    is_json: bool,
    key: str | None,
    models: Path | None,
) -> None:
    """Print the verdicts of MODEL on FILES.

    MODEL is one of the catalogue, and no server is needed; or it is on a server, such as
    http://127.0.0.1:8000/predict/digits.

    FILES are files, folders, patterns in quotes, and `-` for standard input: pictures, .txt (one
    text), .json as callers post it, .npy; and row by row, in constant memory, .csv, .tsv, .jsonl,
    .parquet and, with --format lines, one text a line. Standard input is CSV for features, one
    text a line for texts, a picture for pictures, unless --format says otherwise.

    Exit code 1: a row could not be read; 2: it could not go on; 130: it was stopped.
    """
    from service.offline.engines import OfflineFailed, open_engine  # noqa: PLC0415  --help is quick
    from service.offline.progress import Tally  # noqa: PLC0415
    from service.offline.sources import PassedOver, Wanted  # noqa: PLC0415

    _check(files, form, output)
    settings = settings_or_stop(models=models)
    tally, passed_over = Tally(), PassedOver()
    try:
        limits = {"max_error": max_error, "min_confidence": min_confidence}
        engine = open_engine(model, settings, key, **limits)
        wanted = Wanted(engine.kind, engine.features, form, column)
        with (
            _sink(output, engine.labels, is_json=is_json) as write,
            _bar(files, engine.kind, tally, is_shown=sys.stderr.isatty() and not is_json) as move,
        ):
            for found in _verdicts(engine, files, wanted, output, passed_over):
                tally.count(found)
                move(found)
                write(_shown(found, only))
    except (DunnoError, OfflineFailed) as error:
        stop(f"{error}{_left_behind(output)}", error)
    except KeyboardInterrupt:
        click.echo(f"dunno: stopped{_left_behind(output)}", err=True)
        sys.exit(INTERRUPTED)
    if not is_json:
        click.echo(tally.sentence(), err=True)
    if passed_over.count:
        click.echo(f"passed over {passed_over.named(engine.kind)}", err=True)
    if tally.errors:
        sys.exit(1)


def _check(files: Sequence[str], form: str | None, output: Path | None) -> None:
    from service.offline.sources import FORMATS  # noqa: PLC0415

    if form is not None and form not in FORMATS:
        stop(f"--format: expected one of {', '.join(FORMATS)}, got {form!r}")
    # That of Path raises in a loop of links.
    if output is not None and os.path.realpath(output) in map(os.path.realpath, files):
        stop(f"--output: expected another file than those that are read, got {output}")


def _is_same(file: str, output: Path | None) -> bool:
    # Names first: there may be millions of files.
    if output is None or os.path.basename(file) != output.name:  # noqa: PTH119
        return False
    return os.path.realpath(file) == os.path.realpath(output)


def _verdicts(
    engine: "Engine",
    files: Sequence[str],
    wanted: "Wanted",
    output: Path | None,
    passed_over: "PassedOver",
) -> "Iterator[Found]":
    """Yield the answers to all rows; what is wrong with a whole file is told once of it."""
    from service.offline.sources import find_files, read_parts  # noqa: PLC0415

    given_up: set[str] = set()
    # What an earlier run has left in a folder is no row.
    there = find_files(files, wanted.kind, passed_over)
    others = (file for file in there if not _is_same(file.name, output))
    parts = read_parts(others, wanted, given_up.__contains__)
    for found in engine.verdicts(parts):
        if found.part.file not in given_up:
            yield found
        if found.is_about_file:
            given_up.add(found.part.file)


def _sink(
    output: Path | None, labels: Sequence[str], *, is_json: bool
) -> "AbstractContextManager[Sink]":
    from service.offline.sinks import file_sink, json_lines_sink, table_sink  # noqa: PLC0415

    if output is not None:
        return file_sink(output, labels)
    return json_lines_sink() if is_json else table_sink()


@contextmanager
def _bar(
    files: Sequence[str], kind: str, tally: "Tally", *, is_shown: bool
) -> "Iterator[Callable[[Found], None]]":
    from service.offline.progress import bar  # noqa: PLC0415
    from service.offline.sources import STANDARD_INPUT, find_files  # noqa: PLC0415

    if not is_shown:
        yield lambda _: None
        return
    is_known = STANDARD_INPUT not in files
    total = sum(file.size_bytes for file in find_files(files, kind)) if is_known else None
    with bar(tally, total) as move:
        yield move


def _shown(found: "Found", only: Sequence[str]) -> "list[Row]":
    from service.offline.parts import printable  # noqa: PLC0415

    first, file = found.part.first_row, printable(found.part.file)
    rows = ({"file": file, "row": first + number, **row} for number, row in enumerate(found.rows))
    return [row for row in rows if not only or row.get("verdict", "error") in only]


def _left_behind(output: Path | None) -> str:
    """Say where the rows are that were answered before it failed."""
    if output is None:
        return ""
    incomplete = output.with_name(f"{output.name}.part")
    return f"; what was answered until then is in {incomplete}" if incomplete.exists() else ""

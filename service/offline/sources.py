"""What the command line names -> files, and their rows in parts."""

import errno
import glob
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ClientError, InputInvalid, MediaTypeUnsupported, PayloadTooLarge
from service.inputs import Payload
from service.offline.parts import Part, printable, refused
from service.offline.tables import (
    Table,
    array_parts,
    csv_parts,
    json_line_parts,
    line_parts,
    parquet_parts,
)
from service.terminal import MEDIA_TYPES

STANDARD_INPUT = "-"
MOST_FILE_BYTES = 256 << 20
"""Largest file that is read as a whole; those of rows may be of any size."""

WHOLE = {
    suffix.removeprefix("."): media_type
    for suffix, media_type in MEDIA_TYPES.items()
    if suffix not in (".csv", ".tsv", ".npy")
}
"""Format of a file that is one payload -> its media type."""

ROWS: dict[str, Callable[[Table], Iterator[Part]]] = {
    "csv": csv_parts,
    "tsv": csv_parts,
    "jsonl": json_line_parts,
    "ndjson": json_line_parts,
    "lines": line_parts,
    "parquet": parquet_parts,
}
FORMATS = (*WHOLE, "npy", *ROWS)
ONLY_FOR = {form: "text" if form == "txt" else "image" for form in WHOLE if form != "json"}
"""Format -> the kind of model that alone takes it: in folders others pass it over."""

_BY_KIND = {"features": "csv", "text": "lines", "image": "png"}
"""What standard input holds unless told; a decoder of pictures looks at the bytes anyway."""


MOST_NAMED = 5
"""Names that a sentence holds."""

_ROWS_OF = {"features": "rows of features", "text": "texts", "image": "pictures"}


class Wanted(NamedTuple):
    """What the model takes of a file, and what is known of it."""

    kind: str
    """`features`, `image` or `text`."""

    features: Sequence[str]
    form: str | None
    """One of FORMATS; None: by the suffix."""

    column: str | None


class File(NamedTuple):
    """A file that was named, or found in a folder that was."""

    name: str
    size_bytes: int


class PassedOver:
    """Files in folders that the model does not take: their number, and the names of the first."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def note(self, name: str) -> None:
        """Count a file; there may be millions, so not every name is kept."""
        self.count += 1
        if len(self._first) < MOST_NAMED:
            self._first.append(name)

    def named(self, kind: str) -> str:
        """Return how many they are, and the first of them."""
        files = "file" if self.count == 1 else "files"
        more = f" and {self.count - MOST_NAMED:,} more" if self.count > MOST_NAMED else ""
        names = ", ".join(map(printable, self._first))
        return f"{self.count:,} {files}, no {_ROWS_OF[kind]} by the suffix: {names}{more}"


def find_files(
    arguments: Iterable[str], kind: str, passed_over: PassedOver | None = None
) -> Iterator[File]:
    """Return files, those in folders, and those that a pattern matches, each folder in order.

    A file that is not there is among them: whoever reads it says so in its place. In folders,
    hidden files are left out, and those of formats that no model of this kind takes.

    Args:
        arguments: of the command line.
        kind: `features`, `image` or `text`.
        passed_over: notes the latter, as the files are asked for.

    Raises:
        InputInvalid: at once, if a pattern matches nothing or a folder holds nothing to read.
    """
    passed_over = passed_over or PassedOver()
    found: list[Iterable[str]] = []
    for argument in arguments:
        names = _names(argument, kind, passed_over)
        first = next(names, None)
        if first is None:
            got = passed_over.named(kind) if passed_over.count else "none"
            raise InputInvalid(argument, f"a file ending in {_suffixes()}", got)
        found.append(itertools.chain([first], names))
    return (File(name, _size_of(name)) for name in itertools.chain.from_iterable(found))


def read_parts(
    files: Iterable[File], wanted: Wanted, is_given_up: Callable[[str], bool]
) -> Iterator[Part]:
    """Yield the rows of files in parts.

    Args:
        files: in the order of their rows.
        wanted: by the model.
        is_given_up: tells by its name of a file whether its other rows would be of no use either.
    """
    for file in files:
        for part in _parts(file, wanted):
            if is_given_up(file.name):
                break
            yield part


def _parts(file: File, wanted: Wanted) -> Iterator[Part]:
    try:
        form = wanted.form or _form(file.name, wanted.kind)
        if form in WHOLE:
            read = partial(_read_whole, file.name, WHOLE[form])
            yield Part(file.name, 0, (file.name,), read, file.size_bytes)
        elif form == "npy":
            yield from _array_parts(file.name)
        else:
            yield from _row_parts(file, form, wanted)
    except ClientError as error:
        yield refused(file.name, error, size_bytes=file.size_bytes)
    except OSError as error:
        yield refused(file.name, _unreadable(file.name, error), size_bytes=file.size_bytes)


def _row_parts(file: File, form: str, wanted: Wanted) -> Iterator[Part]:
    if wanted.kind != "features" and wanted.column is None and form in ("csv", "tsv", "parquet"):
        expected = f"--column, the one that holds the {wanted.kind}s"
        raise InputInvalid(file.name, expected, "a table")
    with _open(file.name) as stream:
        # Parquet is read from its end.
        is_whole = form == "parquet" and not stream.seekable()
        whole = io.BytesIO(stream.read()) if is_whole else stream
        yield from ROWS[form](
            Table(file.name, whole, file.size_bytes, wanted.column, wanted.features)
        )


def _array_parts(name: str) -> Iterator[Part]:
    values: NDArray[Any]
    try:
        if os.path.isfile(name):  # noqa: PTH113  never raises
            values = np.lib.format.open_memmap(name, mode="r")
        else:
            with _open(name) as stream:
                content = io.BytesIO(stream.read())
            values = np.lib.format.read_array(content, allow_pickle=False)
    except ValueError as error:
        raise InputInvalid(name, "an .npy file", str(error)) from None
    if not values.ndim:
        raise InputInvalid(name, "an array of rows", "one number")
    yield from array_parts(name, values)


def _read_whole(name: str, media_type: str, _: Sequence[Any]) -> Payload:
    try:
        with _open(name) as stream:
            content = stream.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(name, error) from None
    if len(content) > MOST_FILE_BYTES:
        raise PayloadTooLarge(name, MOST_FILE_BYTES, "bytes")
    return Payload(content, media_type)


def _open(name: str) -> AbstractContextManager[IO[bytes]]:
    if name != STANDARD_INPUT:
        return Path(name).open("rb")
    if sys.stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return nullcontext(sys.stdin.buffer)


def _form(name: str, kind: str) -> str:
    if name == STANDARD_INPUT:
        return _BY_KIND[kind]
    form = _suffix(name)
    if form not in FORMATS:
        raise MediaTypeUnsupported(f"{name}: expected a file ending in {_suffixes()}")
    return form


def _suffix(name: str) -> str:
    return Path(name).suffix.lower().removeprefix(".")


def _suffixes() -> str:
    return ", ".join(f".{form}" for form in FORMATS if form != "lines")


def _names(argument: str, kind: str, passed_over: PassedOver) -> Iterator[str]:
    # Those of Path raise where a name is too long or a folder above must not be read.
    if argument != STANDARD_INPUT and os.path.isdir(argument):  # noqa: PTH112
        return _files_in(argument, kind, passed_over)
    if glob.has_magic(argument) and not os.path.exists(argument):  # noqa: PTH110
        # Path.glob takes no pattern that begins at the root.
        found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
        return (name for name in found if not os.path.isdir(name))  # noqa: PTH112
    return iter([argument])


def _files_in(folder: str, kind: str, passed_over: PassedOver) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise InputInvalid(error.filename, "a folder that can be read", str(error.strerror))

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(place, name)  # noqa: PTH118  there may be millions
            form = _suffix(name)
            if form in FORMATS and ONLY_FOR.get(form, kind) == kind:
                yield path
            else:
                passed_over.note(path)


def _size_of(name: str) -> int:
    try:
        return Path(name).stat().st_size
    except OSError:
        return 0


def _unreadable(name: str, error: OSError) -> InputInvalid:
    return InputInvalid(name, "a file that can be read", str(error.strerror))

"""Calibration rows from a CSV with a header, read by the decoders that serve."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.bundle.manifest import FeatureField, FeatureInput
from service.errors import ClientError
from service.inputs.charsets import read_text
from service.inputs.csv_reader import is_missing
from service.inputs.csv_reader import read_table as read_csv
from service.inputs.features import FeatureDecoder
from service.inputs.payload import InputLimits, Payload
from service.inputs.texts import Tokenizer, read_vocabulary
from training.errors import PackRefused
from training.packing.declared import (
    VOCABULARY,
    Content,
    InputOptions,
    read_fields,
    read_text_input,
    shown,
    with_typical,
)
from training.packing.lookalikes import look_alike

log = logging.getLogger(__name__)

_LIMITS = InputLimits(max_rows=10_000_000, max_picture_pixels=1, max_picture_side=1)


def read_table(path: Path, content: bytes, target: str, options: InputOptions) -> Content:
    """Return what a CSV holds.

    Raises:
        PackRefused: naming the line or column that is wrong.
    """
    header, lines = _lines(path, content)
    _check_target(path, target, header)
    if options.kind == "image":
        raise PackRefused(f"{path}: pictures come as .npz with the arrays `rows` and `targets`")
    if options.kind == "features":
        return _features(path, content, target, options)
    others = _columns(path, target, header)
    if len(others) != 1:
        raise PackRefused(
            f"{path}: expected one column of texts beside {target!r}, got: {shown(others)}"
        )
    declared, words = read_text_input(options)
    tokenizer = Tokenizer(declared, read_vocabulary(words))
    rows = np.stack([tokenizer.ids(text) for text in _column(header, lines, others[0])])
    names = _column(header, lines, target)
    return Content(rows=rows, names=names, input=declared, files={VOCABULARY: words})


def _lines(path: Path, content: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        head, rows = read_csv(read_text(content, place=str(path)))
        lines = [_checked(path, number, line, head.names) for number, line in rows]
    except ClientError as error:
        raise PackRefused(_in_file(path, error)) from None
    if not lines:
        raise PackRefused(f"{path}: expected a header and rows, got no row")
    return head.names, lines


def _checked(path: Path, number: int, line: list[str], names: Sequence[str]) -> list[str]:
    if len(line) != len(names):
        expected = f"{len(names)} cells, as the header has"
        raise PackRefused(f"{path}: line {number}: expected {expected}, got {len(line)}")
    return line


def _in_file(path: Path, error: ClientError) -> str:
    detail = str(error)
    return detail if detail.startswith(str(path)) else f"{path}: {detail}"


def _check_target(path: Path, target: str, header: Sequence[str]) -> None:
    if target not in header:
        raise PackRefused(
            f"{path}: the header has no column {target!r}; name the column of labels with "
            f"--target, one of: {shown(header)}{look_alike(target, header)}"
        )
    _refuse_doubles(path, header, [target])


def _refuse_doubles(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if header.count(name) > 1:
            places = [str(at) for at, each in enumerate(header, 1) if each == name]
            raise PackRefused(
                f"{path}: the columns {' and '.join(places)} are both called {name!r}; rename or "
                "leave out all but one"
            )


def _columns(path: Path, target: str, header: Sequence[str]) -> list[str]:
    """Return the columns beside the labels, without those that have no name."""
    nameless = [str(at) for at, name in enumerate(header, 1) if not name]
    if nameless:
        log.info(
            "%s: left out column %s, which has no name (an index of pandas? a comma at the end of "
            "the lines?)",
            *(path, ", ".join(nameless)),
        )
    names = [name for name in header if name not in {target, ""}]
    if not names:
        raise PackRefused(f"{path}: expected columns beside {target!r}, got none with a name")
    return names


def _column(header: Sequence[str], lines: Sequence[Sequence[str]], name: str) -> list[str]:
    place = header.index(name)
    return [line[place].strip() if place < len(line) else "" for line in lines]


def _features(path: Path, content: bytes, target: str, options: InputOptions) -> Content:
    header, lines = _lines(path, content)
    fields = read_fields(_columns(path, target, header), options.fields)
    _refuse_doubles(path, header, [field.name for field in fields])
    if options.fields is None:
        # Nobody said what may be missing: what is missing here.
        fields = tuple(_nullable(each, _column(header, lines, each.name)) for each in fields)
    decoder = FeatureDecoder(FeatureInput(fields=fields), "float32", _LIMITS)
    try:
        decoded = decoder.decode(Payload(content, "text/csv"))
        for error in decoded.errors.values():
            raise error
    except ClientError as error:
        message = f"{path}: {error}; leave columns out or bound them with --fields"
        raise PackRefused(message) from None
    return Content(
        rows=decoded.rows,
        names=_column(header, lines, target),
        input=FeatureInput(fields=with_typical(fields, decoded.rows)),
    )


def _nullable(field: FeatureField, cells: Sequence[str]) -> FeatureField:
    return field.model_copy(update={"nullable": any(map(is_missing, cells))})

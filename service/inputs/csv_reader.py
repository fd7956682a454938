"""CSV as programs write it -> header and rows; server, `dunno pack` and `dunno predict` share it.

Lines end in LF, CR LF or CR. Blank lines are skipped. A first line such as `sep=;`, as Excel writes
it, names the separator; otherwise the header shows it.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from service.errors import InputInvalid, PayloadTooLarge

MOST_HEADER_CHARACTERS = 262_144
"""Characters of a header. It is searched for quotes: 30 ms at worst, the interpreter locked."""

SEPARATORS = (",", ";", "\t")
"""Those that a header may show; of equally many, the first."""

MISSING = frozenset({"", "nan", "-nan", "na", "n/a", "<na>", "#n/a", "#na", "null", "none"})
"""What a cell without a value says, in lower case: the words that pandas reads and writes."""

BOOLEANS = {"true": 1.0, "false": 0.0}
"""Words for numbers, in lower case."""

ALL_SEPARATORS = (*SEPARATORS, "|", ":")
"""Separators that a first line such as `sep=|` may name."""

LINE_ENDS = "\r\n"
_BLANKS = " \v\f"
_MAY_BE_BLANK = b' "\t\v\f\r\n'
_hint = re.compile(r'"?sep=(.)\1*"?', re.IGNORECASE).fullmatch
_quoted = re.compile(r'(?:^|(?<=[,;\t|:]))"(?:[^"]++|"")*+"')
_opening = re.compile(r'(?:^|[,;\t|:])"')


class Head(NamedTuple):
    """A table up to and with its header."""

    separator: str
    names: list[str]
    """Of the columns, without blanks around them; none: there is no header."""

    record: str
    """The header as it came; it may go on over several lines."""

    hint: str
    """The line that names the separator; nothing if there is none."""

    lines: int
    """Lines of the table, up to the last one of the header."""


def blank_line(separator: str) -> Callable[[bytes], bool]:
    """Return what tells of the first line of a row whether `read_rows` skips it."""
    empty = _blanks(separator).encode()
    match = re.compile(rb'(?:"[%b]+"|[%b])[%b]*[\r\n]*|[\r\n]+' % ((empty,) * 3)).fullmatch
    return lambda line: line[:1] in _MAY_BE_BLANK and match(line) is not None


def _blanks(separator: str) -> str:
    """Return the characters that are no cell, alone in a line; tabs are where tabs separate."""
    return _BLANKS if separator == "\t" else f"{_BLANKS}\t"


def read_head(lines: Iterator[str]) -> Head:
    """Return the beginning of a table; what `lines` yields afterwards are its rows.

    Args:
        lines: each with its end.

    Raises:
        InputInvalid: if a first line names a separator that is none.
        PayloadTooLarge: if the header, or a cell of it, is too long.
    """
    number, first = _next_line(lines, 0)
    separator = hint = ""
    _check_length(len(first))
    hinted = _hint(first.strip(_BLANKS + LINE_ENDS))
    if hinted is not None:
        separator, hint = hinted[1], first
        if separator not in ALL_SEPARATORS:
            expected = "sep= and one of , ; | : or a tab"
            raise InputInvalid(f"line {number}", expected, f"sep={separator}")
        number, first = _next_line(lines, number)
    record = _whole_record(first, lines)
    separator = separator or _separator_of(record)
    own_lines = list(io.StringIO(record, newline="")) if '"' in record else [record]
    before = max(0, number - 1)
    _, cells = next(read_rows(own_lines, separator, before), (0, []))
    names = [name.strip() for name in cells]
    return Head(separator, names, record, hint, before + len(own_lines))


def read_rows(
    lines: Iterable[str], separator: str, lines_before: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, each with the number of its last line, counted from 1.

    Args:
        lines: each with its end.
        separator: between two cells.
        lines_before: lines of the table before these.

    Raises:
        PayloadTooLarge: if a cell is too long.
    """
    reader = csv.reader(lines, delimiter=separator)
    empty = _blanks(separator)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:  # lines end where they end, so that nothing else can be wrong
            cell = f"line {reader.line_num + lines_before}: a cell"
            raise PayloadTooLarge(cell, csv.field_size_limit(), "characters") from None
        if row is None:
            return
        # An empty cell in quotes is a row: so pandas writes a missing value that is alone.
        if row and (len(row) > 1 or not row[0] or row[0].strip(empty)):
            yield reader.line_num + lines_before, row


def read_table(text: str) -> tuple[Head, Iterator[tuple[int, list[str]]]]:
    """Return the head of a table and its rows; see `read_head` and `read_rows`."""
    lines = io.StringIO(text, newline="")  # a lone CR ends a line as well
    head = read_head(lines)
    return head, read_rows(lines, head.separator, head.lines)


def is_missing(cell: str) -> bool:
    """Tell whether a cell, without blanks around it, says that there is no value."""
    return not cell or cell.lower() in MISSING


def _next_line(lines: Iterator[str], number: int) -> tuple[int, str]:
    """Return the number of the next line that is not blank, and the line; nothing at the end."""
    empty = _blanks(",") + LINE_ENDS
    for line in lines:
        number += 1
        if line.strip(empty):
            return number, line
    return number, ""


def _whole_record(first: str, lines: Iterator[str]) -> str:
    """Return the record that begins with a line: quoted cells may hold line ends."""
    _check_length(len(first))
    record, length = [first], len(first)
    is_open = _is_left_open(first)
    while is_open:
        line = next(lines, None)
        if line is None:
            break
        record.append(line)
        length += len(line)
        _check_length(length)
        is_open = _is_left_open(f'"{line}')
    return "".join(record)


def _check_length(characters: int) -> None:
    if characters > MOST_HEADER_CHARACTERS:
        raise PayloadTooLarge("the header", MOST_HEADER_CHARACTERS, "characters")


def _is_left_open(line: str) -> bool:
    return '"' in line and _opening.search(_quoted.sub("", line)) is not None


def _separator_of(record: str) -> str:
    bare = _quoted.sub("", record) if '"' in record else record
    return max(SEPARATORS, key=bare.count)

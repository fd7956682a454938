"""What is read of a file at once: as many rows as one request takes."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import orjson

from service.errors import ClientError, InputInvalid
from service.inputs import Payload

MOST_ROWS = 1024
MOST_BYTES = 1 << 20
"""Bounds of a part; what is in flight is a few of them, however large the file."""

_PLACE = re.compile(r"^(line |instances\[|rows\[)(\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a file, which become a payload in the thread that decodes them."""

    file: str
    first_row: int
    """Position in the file, counted from 0."""

    records: Sequence[Any]
    """One for each row, or one for a file of which is not known what it holds."""

    join: Callable[[Sequence[Any]], Payload]
    size_bytes: int = 0
    """How much of the file it is."""

    lines_before: int = 0
    """Lines of the file that are not in the payload, of those before the part."""

    def payload(self) -> Payload:
        """Return the body of a request for these rows.

        Raises:
            ClientError: if the file cannot be read, or not here.
        """
        return self.join(self.records)

    def halves(self) -> "tuple[Part, Part] | None":
        """Return the two parts that it consists of; None if there is nothing to divide."""
        middle = len(self.records) // 2
        if not middle:
            return None
        first, second = self.records[:middle], self.records[middle:]
        lines = sum(map(_lines_of, first))
        later = replace(
            self,
            first_row=self.first_row + middle,
            records=second,
            size_bytes=0,
            lines_before=self.lines_before + lines,
        )
        return replace(self, records=first), later

    def in_file(self, detail: str) -> str:
        """Return what was said of a place in the payload as said of the place in the file."""

        def moved(match: re.Match[str]) -> str:
            kind, number = match.groups()
            by = self.lines_before if kind == "line " else self.first_row
            return f"{kind}{int(number) + by}"

        return printable(_PLACE.sub(moved, detail))


def rows_of_json(rows: Sequence[Any]) -> Payload:
    """Return the payload of rows as JSON has them: objects, lists, texts, bytes of pictures.

    Raises:
        InputInvalid: if JSON cannot hold them.
    """
    content = {"instances": rows}
    try:
        body = orjson.dumps(content, default=_as_json)
        if b"null" in body:
            # It may have been NaN, which is missing, or Infinity, which is refused.
            body = json.dumps(content, default=_as_json, ensure_ascii=False).encode()
    except (TypeError, RecursionError) as error:
        raise InputInvalid("instances", "rows that JSON can hold", str(error)) from None
    return Payload(body, "application/json")


def printable(text: str) -> str:
    """Return characters only: a file's name may hold bytes that are none."""
    return text.encode("utf-8", "backslashreplace").decode()


def refused(file: str, error: ClientError, first_row: int = 0, size_bytes: int = 0) -> Part:
    """Return a part that says why there is nothing to read."""

    def join(_: Sequence[Any]) -> Payload:
        raise error

    return Part(file, first_row, (None,), join, size_bytes)


def _as_json(value: object) -> object:
    """Return as JSON has it what a column may hold: a picture in base64, a decimal as number."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return float(value) if isinstance(value, Decimal) else str(value)


def _lines_of(record: object) -> int:
    return record.count(b"\n") if isinstance(record, bytes) else 0

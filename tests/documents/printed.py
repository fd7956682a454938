"""Whether a program printed what a page says it prints."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

ANYTHING = "…"
"""Within a line any characters, as a line of its own any lines; in JSON any value, or as a key any
further ones."""

COARSEST = 1e-3
"""Difference that fractions may have where a page shows few of their digits."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def shown(output: str) -> str:
    """Return what a terminal shows in the end: progress bars have gone, colours are left out."""
    lines = [_COLOURS.sub("", line).rstrip("\r").split("\r")[-1] for line in output.split("\n")]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def is_printed(text: str, expected: str) -> bool:
    """Return whether `text` is what a page shows, line by line."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == ANYTHING else f"{_line(line.rstrip())}\n"
        for line in expected.strip("\n").split("\n")
    )
    return re.fullmatch(pattern, f"{text}\n") is not None


def _line(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split(ANYTHING))


def is_answered(text: str, expected: str) -> bool:
    """Return whether `text` holds the JSON values that a page shows, wherever lines end.

    Fractions may differ by one in the last digit that the page has.
    """
    try:
        return _is_list(read_values(text), read_values(expected))
    except ValueError:
        return False


def read_values(text: str) -> list[Any]:
    """Return the JSON values of a text, one after the other.

    Raises:
        ValueError: if something else stands there.
    """
    decoder, rest, found = json.JSONDecoder(), text.strip(), []
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].lstrip()
    return found


def _is_value(value: Any, wanted: Any) -> bool:
    if wanted == ANYTHING:
        return True
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        return _is_object(value, wanted)
    if isinstance(wanted, list) and isinstance(value, list):
        return _is_list(value, wanted)
    if isinstance(wanted, float) and isinstance(value, float):
        last_digit = 10.0 ** int(Decimal(repr(wanted)).as_tuple().exponent)
        return math.isclose(value, wanted, rel_tol=0, abs_tol=min(last_digit, COARSEST))
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def _is_object(value: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    names = wanted.keys() - {ANYTHING}
    if not (names <= value.keys() if ANYTHING in wanted else names == value.keys()):
        return False
    return all(_is_value(value[name], wanted[name]) for name in names)


def _is_list(values: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return len(values) == len(wanted) and all(map(_is_value, values, wanted))

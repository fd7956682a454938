"""JSON numbers -> float arrays: a quick path without Python objects, and a careful one.

The quick path takes a body only if everything about it is as expected; whatever is not goes to the
careful path, which reads row by row and can name the place.
"""

import base64
import json
import math
import re
import sys
import threading
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from service.errors import InputInvalid, PayloadTooLarge
from service.inputs.budget import MOST_OBJECT_BYTES

_TOO_DEEP = "depth limit exceeded"
_TOO_LONG = "Exceeds the limit"
_NUMBERS_AND_BLANKS = b"0123456789.eE+- \t\r\n"
_HEAD = b'{"instances":['.translate(None, _NUMBERS_AND_BLANKS)  # it has an e
_TAIL = b"]}"
_CLIP = 40
_FROM_URL_ALPHABET = str.maketrans("-_", "+/")
_KEPT_BYTES = 262_144
_LIST_BYTES, _OBJECT_BYTES, _QUOTE_BYTES, _COMMA_BYTES, _VALUE_BYTES = 96, 216, 28, 9, 8

MOST_LEVELS = 1024
"""Lists and objects in each other: what our parsers go down to."""


class _Parsers(threading.local):
    """One parser a thread: simdjson's buffers are reused from call to call, if they are small."""

    def __init__(self) -> None:
        self._parser: Any = simdjson.Parser()

    def parse(self, body: bytes) -> Any:
        # A parser keeps buffers of twelve times its largest body for ever.
        parser = self._parser if len(body) <= _KEPT_BYTES else simdjson.Parser()
        return parser.parse(body)


_parsers = _Parsers()
_has_surrogate = re.compile(r"\\u[dD][89a-fA-F]").search


def quick_rows(body: bytes, shape: tuple[int, ...], max_rows: int) -> NDArray[np.float64] | None:
    """Return the rows of `{"instances": [...]}`, shape (rows, *shape), or None if in doubt.

    With numbers and blanks taken out, a body of so many rows has exactly one form: comparing it
    proves that no list is ragged, which a flat buffer of numbers cannot. That form is never longer
    than the body itself: a number needs a byte.
    """
    try:
        instances = _parsers.parse(body)["instances"]
        rows = len(instances)
        if not 0 < rows <= max_rows or rows * math.prod(shape) > len(body):
            return None
        if body.translate(None, _NUMBERS_AND_BLANKS) != _HEAD + _skeleton(shape, rows) + _TAIL:
            return None
        flat = np.frombuffer(instances.as_buffer(of_type="d"), np.float64)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return None
    return flat.reshape(rows, *shape)


def _skeleton(shape: tuple[int, ...], rows: int) -> bytes:
    return b",".join([_row_skeleton(shape)] * rows)


@lru_cache(maxsize=64)
def _row_skeleton(shape: tuple[int, ...]) -> bytes:
    row = b""
    for length in reversed(shape):
        row = b"[" + b",".join([row] * length) + b"]"
    return row


def read_instances(body: bytes) -> list[object]:
    """Return the list under `instances`, the only key of the body.

    Raises:
        InputInvalid: if the body is no JSON of that form.
    """
    content = read_object(body, 'an object {"instances": [...]}')
    unknown = [key for key in content if key != "instances"]
    if unknown:
        raise InputInvalid("body", 'only the key "instances"', f"also {unknown[0][:_CLIP]!r}")
    if "instances" not in content:
        raise InputInvalid("body", 'the key "instances"', "an empty object")
    instances = content["instances"]
    if not isinstance(instances, list):
        raise InputInvalid("instances", "a list of rows", shown(instances))
    return instances


def read_base64(instance: object, place: str, expected: str = '{"b64": "..."}') -> bytes:
    """Return the bytes of `{"b64": "..."}`.

    Raises:
        InputInvalid: if it is none, or no base64.
    """
    text = instance.get("b64") if isinstance(instance, dict) and len(instance) == 1 else None
    if not isinstance(text, str):
        raise InputInvalid(place, expected, shown(instance))
    return decode_base64(text, f"{place}.b64")


def decode_base64(text: str, place: str) -> bytes:
    """Return the bytes of a text in base64, as any of the usual encoders writes it.

    It may be cut into lines, lack its padding, have the alphabet for URLs, and be a `data:` URL.

    Raises:
        InputInvalid: if it is none.
    """
    bare = "".join(text.split())
    try:
        return base64.b64decode(bare, validate=True)
    except ValueError:
        found = _unusual_base64(bare)
    if found is None:
        expected = "base64"
        if bare[:5].lower() == "data:":
            expected = "base64, bare or as data:<media type>;base64,<base64>"
        raise InputInvalid(place, expected, shown(text))
    return found


def _unusual_base64(text: str) -> bytes | None:
    """Return the bytes of base64 in another form; None if it is none."""
    if text[:5].lower() == "data:":
        start, _, text = text.partition(",")
        if not start.lower().endswith(";base64"):
            return None
    bare = text.rstrip("=")
    if "=" in text and len(text) % 4:
        return None  # cut off, or with more padding than there can be
    if "+" not in bare and "/" not in bare:
        bare = bare.translate(_FROM_URL_ALPHABET)
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except ValueError:
        return None


def read_object(body: bytes, expected: str = "an object") -> dict[str, Any]:
    """Return the JSON object that is the whole body.

    Raises:
        InputInvalid: if it is none.
    """
    content = read_json(body)
    if not isinstance(content, dict):
        raise InputInvalid("body", expected, shown(content))
    return content


def read_json(body: bytes) -> Any:
    """Return the JSON document that is the whole body; NaN and Infinity are read as such.

    Raises:
        InputInvalid: if it is none.
        PayloadTooLarge: if it is nested too deep, a number in it is too long, or its values would
            take too much memory.
    """
    _check_objects(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as strict_error:
        if strict_error.msg.startswith(_TOO_DEEP):
            raise _too_deep() from None
        # The standard library takes NaN and Infinity, so that their place can be named. It would
        # also guess UTF-16 and take half a surrogate pair.
        try:
            text = body.decode("utf-8-sig")
            if _has_surrogate(text):
                raise InputInvalid("body", "whole characters", "half of a surrogate pair")
            return json.loads(text)
        except RecursionError:
            raise _too_deep() from None
        except ValueError as error:
            if str(error).startswith(_TOO_LONG):
                raise PayloadTooLarge(
                    "the length of a number", sys.get_int_max_str_digits(), "digits"
                ) from None
            message = str(strict_error).removesuffix(": line 1 column 1 (char 0)")
            raise InputInvalid("body", "JSON in UTF-8", f"what is none ({message})") from None


def _check_objects(body: bytes) -> None:
    """Refuse a body whose values would take too much memory, before there is one of them."""
    if len(body) * _LIST_BYTES <= 2 * MOST_OBJECT_BYTES:
        return
    if object_bytes(body) > MOST_OBJECT_BYTES:
        raise PayloadTooLarge("the memory of the JSON's values", MOST_OBJECT_BYTES, "object bytes")


def object_bytes(body: bytes) -> int:
    """Return about how much memory the values of a JSON body take as Python objects.

    Sizes are those of CPython 3.11 on 64 bits. Characters in strings are counted as if they were
    structure, so this is too much for texts, and never too little.
    """
    return (
        body.count(b"[") * _LIST_BYTES
        + body.count(b"{") * _OBJECT_BYTES
        + body.count(b'"') * _QUOTE_BYTES
        + body.count(b",") * _COMMA_BYTES
        + len(body) * _VALUE_BYTES
    )


def _too_deep() -> PayloadTooLarge:
    return PayloadTooLarge("the nesting of the JSON", MOST_LEVELS, "levels")


def read_numbers(value: object, shape: tuple[int, ...], place: str) -> NDArray[np.float64]:
    """Return nested lists of finite numbers as an array of that shape.

    Raises:
        InputInvalid: naming the first place that is no list of the right length or no number.
    """
    _check_nested(value, shape, place)
    return np.array(value, np.float64)


def _check_nested(value: object, shape: tuple[int, ...], place: str) -> None:
    if not shape:
        check_number(value, place)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        what = "numbers" if len(shape) == 1 else "lists"
        raise InputInvalid(place, f"a list of {shape[0]} {what}", shown(value))
    for position, part in enumerate(value):
        _check_nested(part, shape[1:], f"{place}[{position}]")


def check_number(value: object, place: str) -> float:
    """Return `value` if it is a finite number.

    Raises:
        InputInvalid: naming the place otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputInvalid(place, "a number", shown(value))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputInvalid(place, "a finite number", shown(value))
    return number


def shown(value: object) -> str:
    """Describe a JSON value in a few words, never at length."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    if isinstance(value, str):
        return f"the string {value[:_CLIP]!r}" + ("…" if len(value) > _CLIP else "")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 128 bits"
    return str(value)

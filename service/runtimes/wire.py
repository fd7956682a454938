"""Reads Protocol Buffers as they are on the wire, to look into model files before engines do.

Nothing is decoded but numbers and lengths, nothing is copied, and nothing recurses. It is stricter
than the engines' own readers: what those skip or mend (groups, numbers that are too long, fields of
another type than declared) is refused here, so that both see the same fields.

https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_DEPTH = 100
"""As deep as Protocol Buffers' own readers go."""

MAX_TAG = 2**32 - 1
MAX_VARINT = 2**64 - 1


class WireInvalid(ValueError):
    """The bytes are no message, or one that readers may disagree about."""


class Field(NamedTuple):
    """A field of a message."""

    number: int
    content: int | memoryview
    """A number, or the bytes of a text, a message or packed numbers."""


Schema = Mapping[str, Mapping[int, str]]
"""Message -> number of a field that holds messages -> the message it holds."""


class Message(NamedTuple):
    """A message somewhere in a file."""

    kind: str
    content: memoryview
    depth: int


def messages(content: bytes, root: str, schema: Schema) -> Iterator[Message]:
    """Yield the message of kind `root` and all messages in it that `schema` leads to.

    Raises:
        WireInvalid: if the bytes are no such message.
    """
    waiting = [Message(root, memoryview(content), 0)]
    while waiting:
        message = waiting.pop()
        if message.depth > MAX_DEPTH:
            raise WireInvalid(f"messages are nested deeper than {MAX_DEPTH}")
        yield message
        inner = schema[message.kind]
        for field in fields(message.content):
            if field.number in inner:
                kind = inner[field.number]
                waiting.append(Message(kind, _bytes(field, message.kind), message.depth + 1))


def fields(content: memoryview) -> Iterator[Field]:
    """Yield the fields of a message in their order.

    Raises:
        WireInvalid: if the bytes are no message.
    """
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        number, kind = tag >> 3, tag & 7
        if tag > MAX_TAG or number == 0:
            raise WireInvalid(f"no field has the tag {tag}")
        if kind == VARINT:
            value, at = _varint(content, at)
            yield Field(number, value)
            continue
        if kind == BYTES:
            length, at = _varint(content, at)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise WireInvalid(f"field {number} is of type {kind}")
        if length > len(content) - at:
            raise WireInvalid(f"field {number} ends behind its message")
        yield Field(number, content[at : at + length])
        at += length


def texts(message: Message, number: int) -> list[str]:
    """Return every text of a field, though a reader keeps the last one only.

    Raises:
        WireInvalid: if the field holds no text.
    """
    found = [field for field in fields(message.content) if field.number == number]
    try:
        return [str(_bytes(field, message.kind), "utf-8") for field in found]
    except UnicodeDecodeError:
        raise WireInvalid(f"field {number} of {message.kind} is no text") from None


def text(message: Message, number: int) -> str:
    """Return the text of a field that is there once at most; empty if it is not.

    Raises:
        WireInvalid: if the field holds no text, or is there more than once.
    """
    found = texts(message, number)
    if len(found) > 1:
        raise WireInvalid(f"field {number} of {message.kind} is there {len(found)} times")
    return found[0] if found else ""


def _bytes(field: Field, kind: str) -> memoryview:
    if isinstance(field.content, int):
        raise WireInvalid(f"field {field.number} of {kind} is a number")
    return field.content


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where it ends."""
    number = 0
    for place, byte in enumerate(content[at : at + 10]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if number > MAX_VARINT:
                break
            return number, at + place + 1
    raise WireInvalid("a number does not end")

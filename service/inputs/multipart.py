"""Multipart bodies -> the contents of one repeated field."""

import logging

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from service.errors import InputInvalid, PayloadTooLarge
from service.inputs.payload import Payload

MAX_BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 4096

# It warns of every malformed form, byte for byte: whoever sends them would fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class _Parts:
    """Collects the contents of the parts named `field`, as the parser walks the body."""

    def __init__(self, field: str, max_parts: int) -> None:
        self.contents: list[bytes] = []
        self._field = field
        self._max_parts = max_parts
        self._headers = 0
        self._header_name = b""
        self._header_value = b""
        self._chunks: list[bytes] = []
        self._name = ""
        self.is_complete = False

    def on_part_begin(self) -> None:
        self._chunks, self._name, self._headers = [], "", 0
        if len(self.contents) >= self._max_parts:
            raise PayloadTooLarge("the form", self._max_parts, "parts")

    def on_header_begin(self) -> None:
        self._header_name = self._header_value = b""
        self._headers += 1
        if self._headers > MAX_PART_HEADERS:
            raise PayloadTooLarge("the head of a part", MAX_PART_HEADERS, "headers")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        if end - start > MAX_PART_HEADER_BYTES:
            raise PayloadTooLarge("a header of a part", MAX_PART_HEADER_BYTES, "header bytes")
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        if end - start > MAX_PART_HEADER_BYTES:
            raise PayloadTooLarge("a header of a part", MAX_PART_HEADER_BYTES, "header bytes")
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def on_part_end(self) -> None:
        if self._name != self._field:
            expected = f"only parts named {self._field!r}"
            raise InputInvalid("form", expected, f"one named {self._name[:40]!r}")
        self.contents.append(b"".join(self._chunks))

    def on_end(self) -> None:
        self.is_complete = True


def read_parts(payload: Payload, field: str, max_parts: int) -> list[bytes]:
    """Return the contents of all parts of a form, which must be named `field`.

    Raises:
        InputInvalid: if the form is malformed, empty, or has a part of another name.
        PayloadTooLarge: if it has more parts than `max_parts`.
    """
    boundary = payload.parameters.get("boundary", "").encode("latin-1", "replace")
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise InputInvalid("Content-Type", "a boundary of 1-70 characters", f"{len(boundary)}")
    parts = _Parts(field, max_parts)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.on_part_begin,
            "on_header_begin": parts.on_header_begin,
            "on_header_field": parts.on_header_field,
            "on_header_value": parts.on_header_value,
            "on_header_end": parts.on_header_end,
            "on_part_data": parts.on_part_data,
            "on_part_end": parts.on_part_end,
            "on_end": parts.on_end,
        },
        # Ours are met first, and say which it was.
        max_header_count=MAX_PART_HEADERS + 1,
        max_header_size=len(payload.body),
    )
    try:
        parser.write(payload.body)
        parser.finalize()
    except FormParserError:
        raise InputInvalid("body", "a multipart form", "what is none") from None
    if not parts.is_complete:
        raise InputInvalid("body", "a closing boundary", "none: the form is cut off")
    if not parts.contents:
        raise InputInvalid("form", f"at least one part named {field!r}", "none")
    return parts.contents

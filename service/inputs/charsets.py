"""Bytes of a text -> characters, by a byte order mark or the charset of the Content-Type."""

import codecs

from service.errors import InputInvalid, MediaTypeUnsupported

UTF_8 = "utf-8"
BODY = "body"
"""Place of a request's body, which has a Content-Type; files have none."""

CODECS = {
    "utf-8": UTF_8,
    "us-ascii": UTF_8,
    "iso-8859-1": "iso-8859-1",
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}
"""Charset, as the Content-Type names it -> Python's codec."""

_ALIASES = {
    "utf8": "utf-8",
    "ascii": "us-ascii",
    "latin1": "iso-8859-1",
    "latin-1": "iso-8859-1",
    "iso8859-1": "iso-8859-1",
    "iso_8859-1": "iso-8859-1",
    "latin9": "iso-8859-15",
    "latin-9": "iso-8859-15",
    "iso8859-15": "iso-8859-15",
    "cp1252": "windows-1252",
    "utf16": "utf-16",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
}
_MARKS = {
    codecs.BOM_UTF8: UTF_8,
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
LONGEST_MARK = max(map(len, _MARKS))
_UNMARKED = "utf-16"


def codec_of(charset: str) -> str:
    """Return Python's codec for a charset of a Content-Type.

    Raises:
        MediaTypeUnsupported: if it is not one of `CODECS`.
    """
    name = charset.strip().lower()
    codec = CODECS.get(_ALIASES.get(name, name))
    if codec is None:
        raise MediaTypeUnsupported(
            f"Content-Type: expected one of the charsets {', '.join(CODECS)}, "
            f"got charset {charset[:40]!r}"
        )
    return codec


def marked_codec(start: bytes) -> tuple[str, int] | None:
    """Return the codec that a byte order mark tells, and the length of the mark."""
    for mark, codec in _MARKS.items():
        if start.startswith(mark):
            return codec, len(mark)
    return None


def read_text(content: bytes, charset: str | None = None, place: str = BODY) -> str:
    """Return the characters of a text.

    A byte order mark decides; without one the charset does; without a charset it is UTF-8.

    Args:
        content: of the text.
        charset: of the Content-Type; None: it has none.
        place: what the text is called in messages.

    Raises:
        InputInvalid: if these bytes are no text in that charset.
        MediaTypeUnsupported: if there is no such charset.
    """
    codec, start = marked_codec(content) or (codec_of(charset or UTF_8), 0)
    if codec == _UNMARKED:
        got = "no such mark; without one say charset=utf-16le or charset=utf-16be"
        raise InputInvalid(place, "a byte order mark before UTF-16", got)
    try:
        return content[start:].decode(codec)
    except UnicodeDecodeError as error:
        expected = codec.upper() if start or charset is None else charset.upper()
        if charset is None and codec == UTF_8 and place == BODY:
            expected = "UTF-8, or its charset named in the Content-Type"
        raise InputInvalid(place, expected, f"another byte at {start + error.start}") from None

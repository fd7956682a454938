"""Compressed bodies -> the bytes they stand for, never more of them than allowed."""

import zlib

from service.errors import InputInvalid, MediaTypeUnsupported, PayloadTooLarge

MOST_RATIO = 200
"""So many bytes a byte of a compressed body may stand for, unless the settings say otherwise."""

FREE_BYTES = 65_536
"""A result up to this size may have any ratio: it is no work to speak of."""

CODINGS = ("gzip", "deflate")
"""Codings of a body that are understood; `deflate` is zlib's format, as RFC 9110 has it."""

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def inflated(body: bytes, coding: str, max_bytes: int, max_ratio: int = MOST_RATIO) -> bytes:
    """Return the bytes that a body stands for.

    Args:
        body: as it came.
        coding: `gzip`, `deflate`, or nothing at all.
        max_bytes: of the result; what would be larger is given up before it is there.
        max_ratio: of the result to the body, for results of more than 64 KiB.

    Raises:
        MediaTypeUnsupported: if the coding is another.
        PayloadTooLarge: if the result would be larger.
        InputInvalid: if the body is cut off, followed by something, or not of that coding.
    """
    if coding in ("", "identity"):
        return body
    if coding not in CODINGS:
        message = f"Content-Encoding: expected {' or '.join(CODINGS)}, got {coding[:40]!r}"
        raise MediaTypeUnsupported(message)
    stream = zlib.decompressobj(_WINDOW[coding])
    ratio_bytes = max(FREE_BYTES, len(body) * max_ratio)
    try:
        content = stream.decompress(body, min(max_bytes, ratio_bytes) + 1)
    except zlib.error:
        raise InputInvalid("body", f"bytes compressed by {coding}", "others") from None
    if len(content) > max_bytes:
        raise PayloadTooLarge("the body, decompressed,", max_bytes, "bytes")
    if len(content) > ratio_bytes:
        raise PayloadTooLarge("the body, decompressed,", max_ratio, "times its size")
    if not stream.eof:
        raise InputInvalid("body", f"bytes compressed by {coding}", "only their beginning")
    if stream.unused_data:
        expected = f"one stream of {coding}"
        raise InputInvalid("body", expected, f"{len(stream.unused_data)} bytes behind it")
    return content


def deflated(content: bytes, coding: str) -> bytes:
    """Return content compressed, in the quickest way there is."""
    stream = zlib.compressobj(level=1, wbits=_WINDOW[coding])
    return stream.compress(content) + stream.flush()

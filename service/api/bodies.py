"""ASGI messages -> one request body and its media type, within the limits."""

import asyncio
import contextlib
from email.message import Message
from email.utils import collapse_rfc2231_value
from functools import lru_cache

from starlette.types import Receive

from service.api.middleware import Headers, header
from service.errors import BodyTimedOut, BodyTooLarge, InputInvalid, MediaTypeUnsupported
from service.inputs import Payload

LINGER_S = 2.0
"""So long the rest of a refused body is read and dropped: closing earlier would make the kernel
reset the connection, and the caller lose the answer that says why."""

MOST_CONTENT_TYPE_BYTES = 1024
"""A longer Content-Type is refused: reading its quotes takes time with the square of its length."""

UNREAD = (BodyTooLarge, BodyTimedOut)
"""Failures after which the connection is closed: what comes next would be the rest of a body."""

CURL_DEFAULT = "application/x-www-form-urlencoded"
ALIASES = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp"}
"""What some callers write -> the registered media type."""


class CallerGone(Exception):
    """The caller hung up before the body was complete; nobody is there to be told."""


async def read_payload(
    headers: Headers, receive: Receive, max_bytes: int, timeout_s: float
) -> Payload:
    """Return the body of a request with what its headers say of it.

    Raises:
        BodyTooLarge: as soon as it is known, at best before a byte is read.
        BodyTimedOut: if it is not complete after `timeout_s`.
        MediaTypeUnsupported: if it is compressed.
        CallerGone: if the caller hung up.
    """
    if header(headers, b"content-encoding") not in (b"", b"identity"):
        raise MediaTypeUnsupported("Content-Encoding: expected none, got a compressed body")
    declared = header(headers, b"content-length")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise BodyTooLarge("the body", max_bytes, "bytes")
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read_body(receive, max_bytes)
    except TimeoutError:
        raise BodyTimedOut(f"the body was not complete after {timeout_s:g} s") from None
    return payload_of(body, header(headers, b"content-type"))


def payload_of(body: bytes, content_type: bytes) -> Payload:
    """Return a body with what its Content-Type says of it.

    Raises:
        InputInvalid: if the header cannot be read.
    """
    media_type, parameters = parse_content_type(content_type)
    if media_type in ("", CURL_DEFAULT) and body.lstrip()[:1] == b"{":
        media_type = "application/json"  # what `curl -d '{...}'` means, whatever it says
    return Payload(body, ALIASES.get(media_type, media_type), parameters)


async def linger(receive: Receive) -> None:
    """Drop the rest of a body until it ends, its caller hangs up, or it took long enough."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass


async def _read_body(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size_bytes = 0
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        chunk = message.get("body", b"")
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise BodyTooLarge("the body", max_bytes, "bytes")
        chunks.append(chunk)
        has_more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@lru_cache(maxsize=256)
def parse_content_type(value: bytes) -> tuple[str, dict[str, str]]:
    """Return the media type in lower case and its parameters.

    Raises:
        InputInvalid: if the header cannot be read.
    """
    if len(value) > MOST_CONTENT_TYPE_BYTES:
        most = f"at most {MOST_CONTENT_TYPE_BYTES:,} bytes"
        raise InputInvalid("Content-Type", most, f"{len(value):,}")
    text = value.decode("latin-1").strip()
    media_type = text.partition(";")[0].strip().lower()
    if ";" not in text:
        return media_type, {}
    parsed = Message()
    try:
        parsed["content-type"] = text
        parameters = parsed.get_params(failobj=[])[1:]
        # RFC 2231 lets a parameter be a triple of character set, language and value.
        return media_type, {name.lower(): collapse_rfc2231_value(each) for name, each in parameters}
    except (ValueError, LookupError):  # some character sets raise whatever they are told
        raise InputInvalid("Content-Type", "a media type", repr(text[:40])) from None

"""ASGI messages -> one request body and its media type, within the limits."""

import asyncio
import contextlib
from email.message import Message
from email.utils import collapse_rfc2231_value
from functools import lru_cache
from typing import NamedTuple

from starlette.types import Receive

from service.api.middleware import Headers, header
from service.errors import (
    BodiesFull,
    BodyTimedOut,
    BodyTooLarge,
    ClientError,
    InputInvalid,
    MediaTypeUnsupported,
)
from service.inputs import Payload
from service.inputs.charsets import codec_of
from service.telemetry.series import CounterSeries

LINGER_S = 2.0
"""So long the rest of a refused body is read and dropped: closing earlier would make the kernel
reset the connection, and the caller lose the answer that says why."""

MOST_CONTENT_TYPE_BYTES = 1024
"""A longer Content-Type is refused: reading its quotes takes time with the square of its length."""

UNREAD = (BodyTooLarge, BodyTimedOut, BodiesFull)
"""Failures after which the connection is closed: what comes next would be the rest of a body."""

CURL_DEFAULT = "application/x-www-form-urlencoded"
ALIASES = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp"}
"""What some callers write -> the registered media type."""

TEXTUAL = ("application/json", "text/csv", "text/plain")
"""Media types whose charset matters."""


class CallerGone(Exception):
    """The caller hung up before the body was complete; nobody is there to be told."""


class Room:
    """Memory for bodies, from their first part until their request ends.

    A body that comes in one piece is small and needs none.
    """

    def __init__(self, most_bytes: int, rejections: CounterSeries) -> None:
        self._most_bytes = self._left_bytes = most_bytes
        self._rejections = rejections

    def take(self, size_bytes: int) -> None:
        """Keep a piece of a body.

        Raises:
            BodiesFull: if there is no room for it.
        """
        if size_bytes > self._left_bytes:
            self._rejections.inc()
            raise BodiesFull(
                f"the bodies of other requests hold {self._most_bytes - self._left_bytes:,} of "
                f"{self._most_bytes:,} bytes; there is no room for {size_bytes:,} more"
            )
        self._left_bytes -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Keep it no more."""
        self._left_bytes += size_bytes


class BodyLimits(NamedTuple):
    """What a body may take."""

    max_bytes: int
    timeout_s: float
    room: Room


async def read_payload(headers: Headers, receive: Receive, limits: BodyLimits) -> Payload:
    """Return the body of a request with what its headers say of it.

    The caller gives `held_bytes` of it back to the room once the request has ended.

    Raises:
        BodiesFull: if too much of other bodies has come already.
        BodyTooLarge: as soon as it is known, at best before a byte is read.
        BodyTimedOut: if it is not complete in time.
        MediaTypeUnsupported: if it is compressed.
        CallerGone: if the caller hung up.
    """
    if header(headers, b"content-encoding") not in (b"", b"identity"):
        raise MediaTypeUnsupported("Content-Encoding: expected none, got a compressed body")
    declared = header(headers, b"content-length")
    if declared.isdigit() and int(declared[:20]) > limits.max_bytes:
        raise BodyTooLarge("the body", limits.max_bytes, "bytes")
    try:
        async with asyncio.timeout(limits.timeout_s):
            body, held_bytes = await _read_body(receive, limits)
    except TimeoutError:
        raise BodyTimedOut(f"the body was not complete after {limits.timeout_s:g} s") from None
    try:
        payload = payload_of(body, header(headers, b"content-type"))
    except ClientError:
        limits.room.give_back(held_bytes)
        raise
    payload.held_bytes = held_bytes
    return payload


def payload_of(body: bytes, content_type: bytes) -> Payload:
    """Return a body with what its Content-Type says of it.

    Raises:
        InputInvalid: if the header cannot be read.
        MediaTypeUnsupported: if it names a charset that is not understood.
    """
    media_type, parameters = parse_content_type(content_type)
    if media_type in ("", CURL_DEFAULT) and body.lstrip()[:1] == b"{":
        media_type = "application/json"  # what `curl -d '{...}'` means, whatever it says
    if "charset" in parameters and media_type in TEXTUAL:
        codec_of(parameters["charset"])  # one that is not known is never passed over
    return Payload(body, ALIASES.get(media_type, media_type), parameters)


async def linger(receive: Receive) -> None:
    """Drop the rest of a body until it ends, its caller hangs up, or it took long enough."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass


async def _read_body(receive: Receive, limits: BodyLimits) -> tuple[bytes, int]:
    """Return a body and how much of the room it holds."""
    chunks: list[bytes] = []
    size_bytes = taken_bytes = 0
    has_more, is_whole = True, False
    try:
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            chunk = message.get("body", b"")
            size_bytes += len(chunk)
            if size_bytes > limits.max_bytes:
                raise BodyTooLarge("the body", limits.max_bytes, "bytes")
            chunks.append(chunk)
            has_more = message.get("more_body", False)
            if has_more or taken_bytes:
                limits.room.take(len(chunk))
                taken_bytes += len(chunk)
        is_whole = True
    finally:
        if not is_whole:
            limits.room.give_back(taken_bytes)
    return (chunks[0] if len(chunks) == 1 else b"".join(chunks)), taken_bytes


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

"""What every response has in common: a request id, and headers that harm nobody."""

import itertools
import re
import secrets
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.options import refuse_too_many
from service.api.problems import refusal
from service.errors import OptionInvalid

Headers = Iterable[tuple[bytes, bytes]]

SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_is_request_id = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}").fullmatch
_process = secrets.token_hex(4)
_numbers = itertools.count(1)


def header(headers: Headers, name: bytes) -> bytes:
    """Return the value of the first header of that lower-case name, or nothing."""
    for key, value in headers:
        if key == name:
            return value
    return b""


def request_id_of(headers: Headers) -> str:
    """Return the caller's X-Request-ID if it is harmless, else a new one."""
    return request_id_from(header(headers, b"x-request-id"))


def request_id_from(value: bytes) -> str:
    """Return the value of an X-Request-ID if it is harmless, else a new one."""
    return value.decode() if _is_request_id(value) else f"{_process}-{next(_numbers):x}"


def header_lines(headers: Headers) -> bytes:
    """Return headers as HTTP/1.1 writes them."""
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)


class ShortQueries:
    """Refuses GET and HEAD requests with too many query parameters."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            try:
                refuse_too_many(scope["query_string"])
            except OptionInvalid as error:
                status, headers, body = refusal(error, scope["state"]["request_id"])
                headers.append((b"content-length", b"%d" % len(body)))
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self.app(scope, receive, send)


class RequestIds:
    """Gives every response an X-Request-ID and the safe headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        added = [(b"x-request-id", request_id.encode()), *SAFE_HEADERS]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                names = {name for name, _ in own}
                message["headers"] = own + [pair for pair in added if pair[0] not in names]
            await send(message)

        await self.app(scope, receive, send_with_headers)

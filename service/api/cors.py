"""Pages of other origins: none, unless the operator names them in `DUNNO_CORS_ORIGINS`."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.middleware import SAFE_HEADERS, header, request_id_of

_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        (
            b"authorization, content-type, x-api-key, x-dunno-verdict, x-request-id, "
            b"inference-header-content-length, traceparent, tracestate"
        ),
    ),
    (b"access-control-max-age", b"600"),
    (b"content-length", b"0"),
]
_EXPOSED = (
    b"access-control-expose-headers",
    b"inference-header-content-length, retry-after, server-timing, x-request-id",
)


def allowing(origin: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers by which pages of an origin may read an answer."""
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]


class Cors:
    """Tells browsers which other origins' pages may read answers; never with their cookies."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self.app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        origin = header(scope["headers"], b"origin") if scope["type"] == "http" else b""
        if origin not in self._origins:
            await self.app(scope, receive, send)
            return
        allowed = allowing(origin)
        asked = header(scope["headers"], b"access-control-request-method")
        if scope["method"] == "OPTIONS" and asked:
            # Browsers ask without a key, and are told nothing that depends on one.
            request_id = (b"x-request-id", request_id_of(scope["headers"]).encode())
            headers = [*allowed, *_PREFLIGHT, request_id, *SAFE_HEADERS]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *allowed, _EXPOSED]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_allowed)

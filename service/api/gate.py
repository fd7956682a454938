"""The gate in front of everything on the address of the models: no key, no answer.

It stands outside of all routes, so that a new one cannot be forgotten; only probes pass by it. The
hot path asks the same `Keys` itself (`service.api.hotpath`), and does not come by here.
"""

import logging
import time
from collections.abc import Mapping

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.clouds import PREDICT_VARIABLE
from service.api.doorway import HEALTH_VARIABLE
from service.api.keys import Key, Keys
from service.api.middleware import SAFE_HEADERS, request_id_of
from service.api.problems import headers_of, refusal
from service.errors import (
    ConcurrencyExceeded,
    DunnoError,
    Forbidden,
    RateExceeded,
    Unauthorised,
)
from service.telemetry.metrics import GATE_OUTCOMES, UNKNOWN_MODEL, Metrics

PROBES = frozenset({"/", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/ping"})
"""What platforms ask without a key, by GET or HEAD; it tells nothing about models."""

PAGES = ("/docs", "/playground/")
"""Files for browsers, which are the same for everybody; what they ask then needs a key."""

METRICS = "/metrics"
_CAUSES: dict[type[DunnoError], str] = {RateExceeded: "rate", ConcurrencyExceeded: "concurrency"}

log = logging.getLogger(__name__)


class Gate:
    """Lets nobody through who does not show a key, or has asked too much."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        metrics: Metrics,
        environment: Mapping[str, str],
        *,
        has_log: bool = False,
    ) -> None:
        """Store what the gate knows.

        Args:
            app: what is behind it.
            keys: who is let in.
            metrics: where those who are not are counted.
            environment: of this process, with the routes of Vertex AI.
            has_log: whether every refusal is a line of the log.
        """
        self.app = app
        self._keys = keys
        self._rejections = metrics.rejections
        self._probes = PROBES | {environment.get(HEALTH_VARIABLE, "/ping")}
        self._vertex = environment.get(PREDICT_VARIABLE, "")
        self._has_log = has_log
        self._refused = {
            (protocol, outcome): metrics.requests.labels(UNKNOWN_MODEL, "", protocol, outcome)
            for protocol in ("native", "v1", "v2")
            for outcome in GATE_OUTCOMES
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        if scope["type"] != "http" or self._is_probe(scope):
            await self.app(scope, receive, send)
            return
        key = self._keys.find(scope["headers"])
        try:
            _let_in(key, scope)
        except DunnoError as error:
            await self._refuse(scope, send, error, key)
        else:
            await _follow(self.app, scope, receive, send)

    def _is_probe(self, scope: Scope) -> bool:
        path: str = scope["path"]
        is_open = path in self._probes or path == PAGES[0] or path.startswith(PAGES[1])
        return is_open and scope["method"] in ("GET", "HEAD")

    async def _refuse(self, scope: Scope, send: Send, error: DunnoError, key: Key | None) -> None:
        protocol = self._protocol_of(scope["path"])
        self._count(protocol, error, key)
        request_id = request_id_of(scope["headers"])
        status, headers, body = refusal(error, request_id)
        if protocol != "native":
            headers = [(b"content-type", b"application/json"), *headers_of(error)]
            body = orjson.dumps({"error": str(error)})
        headers += [(b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode())]
        if self._has_log:
            facts = {"request_id": request_id, "path": scope["path"], "status": status}
            log.info("request", extra={**facts, "key": None if key is None else key.name})
        start = {"status": status, "headers": [*headers, *SAFE_HEADERS]}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": body})

    def _count(self, protocol: str, error: DunnoError, key: Key | None) -> None:
        cause = _CAUSES.get(type(error))
        if cause is not None:
            self._rejections.labels(UNKNOWN_MODEL, cause).inc()
        if key is None or cause is not None:
            self._refused[protocol, "limited" if cause else "unauthorised"].inc()
        if key is not None:
            key.count("limited" if cause else "invalid")

    def _protocol_of(self, path: str) -> str:
        if path == "/v2" or path.startswith("/v2/"):
            return "v2"
        return "v1" if path == self._vertex or path[:4].lower() == "/v1/" else "native"


def _let_in(key: Key | None, scope: Scope) -> None:
    """Take a place for a request and say whose it is.

    Raises:
        Unauthorised: if its key is none of ours.
        Forbidden: if the key is not for what it asks.
        CapacityError: if the caller has asked too much.
    """
    if key is None:
        raise Unauthorised
    # A route ends before a line break as well, so that `/metrics%0A` leads there.
    if scope["path"].startswith(METRICS) and not key.may_read_metrics:
        raise Forbidden("this key is not for metrics")
    key.enter(time.monotonic())
    scope.setdefault("state", {})["key"] = key


async def _follow(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let a request be answered, see what becomes of it, and give its place up."""
    started_s = time.perf_counter()
    key: Key = scope["state"]["key"]
    status = 0

    async def send_and_look(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    try:
        await app(scope, receive, send_and_look)
    finally:
        key.leave(status, time.perf_counter() - started_s)

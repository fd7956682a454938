"""The hot path: POST /predict/{model} as plain ASGI, in front of FastAPI.

The same route through a framework costs twice the time of everything else together (figures in
`load_tests/README.md`). Here numbers never become Python objects and nothing is looked up twice.
"""

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.accounts import Account, identity, log_slow, server_timing
from service.api.bodies import UNREAD, BodyLimits, CallerGone, Room, linger, read_payload
from service.api.departures import Departure
from service.api.doorway import Doorway
from service.api.keys import Keys, key_of, seen_by
from service.api.middleware import SAFE_HEADERS, request_id_of
from service.api.options import Options, read_options
from service.api.problems import MEDIA_TYPE, OUTCOME, problem, refusal, status_of
from service.api.schemas import encode
from service.decision import Terms
from service.errors import ClientError, Draining, DunnoError, reason_of
from service.inputs.budget import ByteBudget
from service.memory import plan_process_memory
from service.prediction import (
    Catalogue,
    Choice,
    DecoderPool,
    Prediction,
    Predictor,
    offload,
)
from service.settings import Settings
from service.telemetry.metrics import UNKNOWN_MODEL, Metrics, RequestMetrics, Timing
from service.telemetry.recent import Recent
from service.telemetry.tracing import begin_trace

if TYPE_CHECKING:
    from service.telemetry.spans import RequestTrace, Traces

PREFIX = "/predict/"
MOST_ROUTES = 1024
"""So many targets of requests, query string included, are remembered."""

LONGEST_ROUTE_BYTES = 256
"""Longer ones are looked at each time: callers choose them, and we would keep them."""

_is_plain = re.compile(rb"[A-Za-z0-9_./?&=-]*").fullmatch

log = logging.getLogger(__name__)


class Route(NamedTuple):
    """What the target of a predict request stands for."""

    predictor: Predictor
    options: Options
    terms: Terms
    patience_s: float
    """Seconds after which the answer is worthless."""

    windows: tuple[Recent, ...]
    """Windows of requests that canaries are judged by; see `service.prediction.Choice`."""


class Fastlane:
    """Answers predict requests itself and leaves everything else to the app behind it."""

    def __init__(
        self,
        app: ASGIApp,
        catalogue: Catalogue,
        settings: Settings,
        metrics: Metrics,
        traces: "Traces | None" = None,
    ) -> None:
        self.app = app
        self.traces = traces
        self.doorway = Doorway(settings, metrics)
        """Limits of connections, for `service.api.guarded`."""
        self._catalogue = catalogue
        self._settings = settings
        self._nobody = RequestMetrics(metrics, UNKNOWN_MODEL, "")
        self._routes: dict[bytes, Route] = {}
        catalogue.on_switch(self._routes.clear)
        self.inflight = metrics.inflight.labels("native")
        self.max_body_bytes = settings.max_body_bytes
        memory = plan_process_memory(settings)
        room = Room(memory.arriving_bytes, metrics.rejections.labels(UNKNOWN_MODEL, "bodies_full"))
        self.body_limits = BodyLimits(
            settings.max_body_bytes, settings.body_timeout_ms / 1000, room
        )
        self.slow_s = settings.slow_request_s
        self.keys: Keys | None = None
        """Who may ask; None: everybody. Looked at by `service.api.hotpath` only: all others have
        come through the gate."""
        self.has_origins = bool(settings.cors_origins)
        self.may_be_hot = not settings.access_log
        """Whether `service.api.hotpath` may answer: it has nothing to say to a log."""
        self.decoders = DecoderPool(
            settings.decode_threads,
            settings.max_decode_requests,
            ByteBudget(memory.decoding_bytes),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self.app(_as_get(scope), receive, send)
        elif scope["method"] != "POST":
            await _Exchange(scope, receive, send, self._nobody).refuse_method()
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one predict request, whatever becomes of it."""
        exchange = _Exchange(scope, receive, send, self._nobody)
        exchange.trace = begin_trace(self.traces, "native", exchange.request_id, scope["headers"])
        departure = Departure(receive)
        self.inflight.inc()
        try:
            await self._predict(exchange, receive, departure)
        except DunnoError as error:
            await exchange.refuse(error)
        except CallerGone:
            exchange.count("cancelled")
        except asyncio.CancelledError:
            if departure.has_happened:
                exchange.count("cancelled")
            elif exchange.has_started:
                raise
            else:  # the server stops and has waited long enough; the caller is told so
                await exchange.refuse(Draining("the server is stopping"))
        except Exception:
            log.exception("request failed", extra={"request_id": exchange.request_id})
            await exchange.fail()
        finally:
            self.inflight.dec()
        if self._settings.access_log:
            exchange.log()

    async def _predict(self, exchange: "_Exchange", receive: Receive, departure: Departure) -> None:
        scope = exchange.scope
        options = read_options(scope["query_string"])
        predictor, windows = self._choose(seen_by(scope, self._catalogue), scope["path"], options)
        exchange.ask(predictor, windows)
        terms = predictor.judge.terms(options.max_error, options.min_confidence)
        prediction = await self._prediction(
            exchange, receive, departure, (predictor, options, terms)
        )
        await exchange.respond(predictor, prediction, options, self.slow_s)

    async def _prediction(
        self,
        exchange: "_Exchange",
        receive: Receive,
        departure: Departure,
        asked: tuple[Predictor, Options, Terms],
    ) -> Prediction:
        """Read the body and return what the model says of it; the body is not kept any longer."""
        predictor, options, terms = asked
        predictor.hold()  # another version may take its place while the body comes
        held_bytes = 0
        try:
            payload = await read_payload(exchange.scope["headers"], receive, self.body_limits)
            held_bytes = payload.held_bytes
            deadline_s = time.monotonic() + self._patience_s(options)
            departure.watch()
            return await predictor.predict(payload, terms, deadline_s, self.decoders)
        finally:
            departure.forget()
            predictor.release()
            self.body_limits.room.give_back(held_bytes)

    def route(self, url: bytes) -> Route | None:
        """Return who answers the target of a request, and how; None if it has to be looked at.

        Raises:
            ClientError: if there is no such model or its terms cannot be met.
        """
        route = self._routes.get(url)
        if route is None:
            path, _, query = url.partition(b"?")
            if not _is_plain(url):
                return None
            options = read_options(query)
            predictor, windows = self._choose(self._catalogue, path.decode(), options)
            terms = predictor.judge.terms(options.max_error, options.min_confidence)
            route = Route(predictor, options, terms, self._patience_s(options), windows)
            is_settled = options.has_version or not self._catalogue.is_shared_out(predictor.name)
            if is_settled and len(url) <= LONGEST_ROUTE_BYTES and len(self._routes) < MOST_ROUTES:
                self._routes[url] = route
        return route

    def _choose(self, catalogue: Catalogue, path: str, options: Options) -> Choice:
        choice = catalogue.choose(path[len(PREFIX) :], options.version, options.alias)
        if self._patience_s(options) < self._settings.deadline_ms / 1000:
            return Choice(
                choice.predictor
            )  # a canary is not judged by timeouts that clients choose
        return choice

    def _patience_s(self, options: Options) -> float:
        most_s = self._settings.deadline_ms / 1000
        return most_s if options.deadline_s is None else min(options.deadline_s, most_s)

    def close(self) -> None:
        """Let go of the decoding threads."""
        self.decoders.close()


def _as_get(scope: Scope) -> Scope:
    """Return a request for the head of an answer as one for the answer; uvicorn sends the head."""
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: RequestMetrics) -> None:
        self.scope = scope
        self._receive = receive
        self.request_id = request_id_of(scope["headers"])
        self.metrics = metrics
        self._send = send
        self._started_s = time.perf_counter()
        self._status = 0
        self._windows: tuple[Recent, ...] = ()
        self.trace: RequestTrace | None = None

    @property
    def has_started(self) -> bool:
        """Whether a response is on its way."""
        return self._status != 0

    @property
    def _account(self) -> Account:
        return Account(self.metrics, self._windows, self.trace)

    def ask(self, predictor: Predictor, windows: tuple[Recent, ...]) -> None:
        """Count the request with a model from now on."""
        self.metrics, self._windows = predictor.metrics, windows
        if self.trace is not None:
            self.trace.describe(predictor.name, predictor.manifest.version)

    async def respond(
        self, predictor: Predictor, prediction: Prediction, options: Options, slow_s: float
    ) -> None:
        started_s = time.perf_counter()
        body = await offload(
            len(prediction.rows), lambda: encode(predictor, prediction, options, self.request_id)
        )
        encode_s = time.perf_counter() - started_s
        headers = [
            (b"content-type", b"application/json"),
            (b"server-timing", server_timing(prediction.stages)),
        ]
        await self._write(200, body, headers)
        seconds = time.perf_counter() - self._started_s
        timing = Timing(*prediction.stages, encode_s)
        self._account.count_answered(prediction, seconds, timing)
        if seconds >= slow_s:
            facts = identity(self.trace, key_of(self.scope))
            log_slow(self.request_id, predictor.name, seconds, timing, facts)

    async def refuse(self, error: DunnoError) -> None:
        status, headers, body = refusal(error, self.request_id)
        is_unread = isinstance(error, UNREAD)
        if is_unread:
            headers.append((b"connection", b"close"))
        self._count_refusal(error)
        await self._write(status, body, headers, has_more=is_unread)
        if is_unread:
            await linger(self._receive)
            await self._send({"type": "http.response.body", "body": b""})

    def _count_refusal(self, error: DunnoError) -> None:
        if isinstance(error, ClientError):
            self.metrics.count_input_rejection(reason_of(error))
        status = status_of(error)
        self.count(OUTCOME.get(status, "invalid"), status)

    async def refuse_method(self) -> None:
        detail = f"{self.scope['method']} {self.scope['path']}: only POST predicts"
        body = problem(405, "method_not_allowed", detail, self.request_id)
        await self._write(405, body, [(b"content-type", MEDIA_TYPE), (b"allow", b"POST")])

    async def fail(self) -> None:
        self.count("error", 500)
        if self.has_started:
            return
        body = problem(500, "internal", "a fault of ours; quote the request id", self.request_id)
        await self._write(500, body, [(b"content-type", MEDIA_TYPE)])

    def count(self, outcome: str, status: int = 0) -> None:
        seconds = time.perf_counter() - self._started_s
        self._account.count_failed(outcome, seconds, status)

    def log(self) -> None:
        log.info(
            "request",
            extra={
                "request_id": self.request_id,
                "path": self.scope["path"],
                "status": self._status,
                "seconds": round(time.perf_counter() - self._started_s, 6),
                **identity(self.trace, key_of(self.scope)),
            },
        )

    async def _write(
        self,
        status: int,
        body: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        has_more: bool = False,
    ) -> None:
        self._status = status
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append((b"x-request-id", self.request_id.encode()))
        if self.trace is not None:
            headers.append(self.trace.header)
        headers += SAFE_HEADERS
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": has_more})

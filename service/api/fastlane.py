"""The native route, POST /predict/{model}, in front of FastAPI, with what both paths to it share.

The same route through a framework costs twice the time of everything else together (figures in
`load_tests/README.md`).
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.bodies import BodyLimits, Room
from service.api.calls import Call, Reception, Resources
from service.api.doorway import Doorway
from service.api.exchange import server_timing
from service.api.keys import Keys
from service.api.middleware import RequestIds
from service.api.options import Options, read_options
from service.api.problems import MEDIA_TYPE, problem, refusal
from service.api.schemas import encode
from service.decision import Terms
from service.errors import DunnoError
from service.inputs.budget import ByteBudget
from service.memory import plan_process_memory
from service.prediction import Catalogue, Choice, DecoderPool, offload
from service.settings import Settings
from service.telemetry.metrics import UNKNOWN_MODEL, Metrics

if TYPE_CHECKING:
    from service.telemetry.spans import Traces

PREFIX = "/predict/"
PROTOCOL = "native"
"""Its name in metrics and traces."""

MOST_ROUTES = 1024
"""Maximum number of request targets, query string included, that are cached."""

LONGEST_ROUTE_BYTES = 256
"""Longer targets are not cached: clients control them and could pin memory."""

_is_plain = re.compile(rb"[A-Za-z0-9_./?&=-]*").fullmatch


class Route(NamedTuple):
    """What the target of a predict request asks for."""

    choice: Choice
    options: Options
    terms: Terms
    timeout_s: float
    """Seconds after which the answer is worthless."""


class Fastlane:
    """Answers predict requests, and passes all other requests to the app."""

    def __init__(
        self,
        app: ASGIApp,
        catalogue: Catalogue,
        settings: Settings,
        metrics: Metrics,
        traces: "Traces | None" = None,
    ) -> None:
        self.app = app
        self.doorway = Doorway(settings, metrics)
        """Limits of connections, for `service.api.guarded`."""
        self._catalogue = catalogue
        self._routes: dict[bytes, Route] = {}
        catalogue.on_switch(self._routes.clear)
        memory = plan_process_memory(settings)
        room = Room(memory.arriving_bytes, metrics.rejections.labels(UNKNOWN_MODEL, "bodies_full"))
        limits = BodyLimits(settings.max_body_bytes, settings.body_timeout_ms / 1000, room)
        decoders = DecoderPool(
            settings.decode_threads,
            settings.max_decode_requests,
            ByteBudget(memory.decoding_bytes),
        )
        self.resources = Resources(catalogue, settings, metrics, decoders, limits, traces)
        self._reception = Reception(PROTOCOL, self.resources, _write_error)
        self._predict = RequestIds(self._answer)
        self.context = self._reception.context
        self.max_body_bytes = settings.max_body_bytes
        self.keys: Keys | None = None
        """API keys, for `service.api.hotpath` only; None: everybody may ask. All other requests
        have passed the gate."""
        self.has_origins = bool(settings.cors_origins)
        self.may_be_hot = not settings.access_log
        """Whether `service.api.hotpath` may answer: it writes no access log."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; see the ASGI specification."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self.app(_as_get(scope), receive, send)
        else:
            await self._predict(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request below `/predict/`."""
        if scope["method"] == "POST":
            await self._reception.answer(scope, receive, send, self._respond)
            return
        detail = f"{scope['method']} {scope['path']}: only POST predicts"
        body = problem(405, "method_not_allowed", detail, scope["state"]["request_id"])
        await _response(405, [(b"allow", b"POST")], body, MEDIA_TYPE)(scope, receive, send)

    async def _respond(self, call: Call) -> Response:
        """Return the answer to a predict request.

        Raises:
            DunnoError: if there is none.
        """
        options = read_options(call.scope["query_string"])
        predictor = call.use(self._choose(call.catalogue, call.scope["path"], options))
        terms = predictor.judge.terms(options.max_error, options.min_confidence)
        payload = await call.read_payload()
        deadline_s = call.deadline_s(options.deadline_s)
        prediction = await call.predict_payload(predictor, payload, terms, deadline_s)
        del payload  # its memory is free while the answer is written
        body = await offload(
            len(prediction.rows),
            lambda: encode(predictor, prediction, options, call.request_id),
            deadline_s,
        )
        headers = [(b"server-timing", server_timing(prediction.stages))]
        return _response(200, headers, body, b"application/json")

    def route(self, url: bytes) -> Route | None:
        """Return the route of a request target; None if only the slow path can tell.

        Raises:
            ClientError: if there is no such model or its terms cannot be met.
        """
        route = self._routes.get(url)
        if route is None:
            path, _, query = url.partition(b"?")
            if not _is_plain(url):
                return None
            options = read_options(query)
            choice = self._choose(self._catalogue, path.decode(), options)
            predictor = choice.predictor
            terms = predictor.judge.terms(options.max_error, options.min_confidence)
            route = Route(choice, options, terms, self._timeout_s(options))
            is_settled = options.has_version or not self._catalogue.is_shared_out(predictor.name)
            if is_settled and len(url) <= LONGEST_ROUTE_BYTES and len(self._routes) < MOST_ROUTES:
                self._routes[url] = route
        return route

    def _choose(self, catalogue: Catalogue, path: str, options: Options) -> Choice:
        choice = catalogue.choose(path[len(PREFIX) :], options.version, options.alias)
        if self._timeout_s(options) < self.context.timeout_s:
            return Choice(choice.predictor)  # clients' timeouts say nothing about a canary
        return choice

    def _timeout_s(self, options: Options) -> float:
        most_s = self.context.timeout_s
        return most_s if options.deadline_s is None else min(options.deadline_s, most_s)

    def close(self) -> None:
        """Let go of the decoding threads."""
        self.resources.decoders.close()


def _as_get(scope: Scope) -> Scope:
    """Return a request for the head of an answer as one for the answer; uvicorn sends the head."""
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


def _write_error(call: Call, error: DunnoError | None) -> Response:
    if error is not None:
        status, headers, body = refusal(error, call.request_id)
        return _response(status, headers[1:], body, MEDIA_TYPE)
    body = problem(500, "internal", "a fault of ours; quote the request id", call.request_id)
    return _response(500, [], body, MEDIA_TYPE)


def _response(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes, media_type: bytes
) -> Response:
    response = Response(body, status)
    length = (b"content-length", b"%d" % len(body))
    response.raw_headers = [(b"content-type", media_type), *headers, length]
    return response

"""Requests of protocols that are not ours: limits, deadlines, departures and counting as on ours.

`Fastlane` does the same for the native route, where microseconds count; here clarity does.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.accounts import Account, identity, log_slow, server_timing
from service.api.bodies import UNREAD, BodyLimits, CallerGone, linger, read_payload
from service.api.departures import Departure
from service.api.keys import key_of, seen_by
from service.api.middleware import header
from service.api.problems import OUTCOME, headers_of, status_of
from service.decision import Row, Terms
from service.errors import ClientError, Draining, DunnoError, QueueFull, reason_of
from service.inputs import Decoded, Payload
from service.prediction import (
    Answer,
    Catalogue,
    Choice,
    DecoderPool,
    Prediction,
    Predictor,
    Reader,
)
from service.settings import Settings
from service.telemetry.metrics import UNKNOWN_MODEL, Metrics, RequestMetrics, Timing
from service.telemetry.recent import Recent
from service.telemetry.tracing import begin_trace

if TYPE_CHECKING:
    from service.telemetry.spans import Traces

_NOT_READ = (b"content-type", b"content-encoding")
"""Headers of which clients of these protocols send none, or the wrong one."""

log = logging.getLogger(__name__)

Read = TypeVar("Read")


class Resources(NamedTuple):
    """What every protocol is served from."""

    catalogue: Catalogue
    settings: Settings
    metrics: Metrics
    decoders: DecoderPool
    body_limits: BodyLimits
    traces: "Traces | None" = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows that all have their verdicts."""

    prediction: Prediction
    answers: list[Answer]

    @property
    def rows(self) -> list[Row]:
        """What each answer says of its row."""
        return [answer.row for answer in self.answers]


class Call:
    """One request that may predict, and its response."""

    def __init__(
        self, scope: Scope, receive: Receive, resources: Resources, metrics: RequestMetrics
    ) -> None:
        self.scope = scope
        self.request_id: str = scope["state"]["request_id"]
        self.key = key_of(scope)
        self.catalogue = seen_by(scope, resources.catalogue)
        self.departure = Departure(receive)
        self.not_found_text = ""
        """What is said of a model that there is not; nothing: what the catalogue says."""

        self.max_body_bytes = resources.body_limits.max_bytes
        self._body_limits = resources.body_limits
        self.max_inflation_ratio = resources.settings.max_inflation_ratio
        self._receive = receive
        self._settings = resources.settings
        self._decoders = resources.decoders
        self._metrics = metrics
        self._started_s = time.perf_counter()
        self.trace = (
            begin_trace(resources.traces, metrics.protocol, self.request_id, scope["headers"])
            if scope["method"] == "POST"
            else None
        )
        self._decode_s = 0.0
        self._held_bytes = 0
        self._predictor: Predictor | None = None
        self._windows: tuple[Recent, ...] = ()
        self._prediction: Prediction | None = None
        self._predicted_s = 0.0

    def header(self, name: bytes) -> str:
        """Return the value of a header, or nothing."""
        return header(self.scope["headers"], name).decode("latin-1")

    @property
    def coding(self) -> str:
        """How the body is compressed; nothing if it is not."""
        return self.header(b"content-encoding").strip().lower()

    def use(self, choice: Choice) -> Predictor:
        """Ask a model: the request is counted with it, and it is kept until `let_go`."""
        predictor, self._windows = choice
        self._metrics = predictor.metrics.of_protocol(self._metrics.protocol)
        self._predictor = predictor
        if self.trace is not None:
            self.trace.describe(predictor.name, predictor.manifest.version)
        predictor.hold()  # another version may take its place while the body comes
        return predictor

    def let_go(self) -> None:
        """Need the model no more."""
        if self._predictor is not None:
            self._predictor.release()
            self._predictor = None

    async def read_body(self) -> Payload:
        """Return the body, whatever the headers say that it is.

        Raises:
            ClientError: if it is too large or does not arrive.
            CallerGone: if the caller hung up.
        """
        headers = [pair for pair in self.scope["headers"] if pair[0] not in _NOT_READ]
        payload = await read_payload(headers, self._receive, self._body_limits)
        self._held_bytes = payload.held_bytes
        payload.media_type = "application/json"
        return payload

    def forget_body(self) -> None:
        """Give back the room of a body that nothing refers to any more."""
        self._body_limits.room.give_back(self._held_bytes)
        self._held_bytes = 0

    def deadline_s(self, patience_s: float | None = None, since_s: float | None = None) -> float:
        """Return the deadline of the request, by `time.monotonic()`.

        Args:
            patience_s: timeout that the client sent; None: `DUNNO_DEADLINE_MS`, which is also the
                most that counts.
            since_s: when the whole body had arrived; None: now.
        """
        timeout_s = self._settings.deadline_ms / 1000
        if patience_s is not None and patience_s < timeout_s:
            timeout_s = patience_s
            self._windows = ()  # a canary is not judged by timeouts that clients choose
        start_s = time.monotonic() if since_s is None else since_s
        return start_s + timeout_s

    async def read(self, reader: Reader[Read], payload: Payload, deadline_s: float) -> Read:
        """Return what a body asks, read in a decoding thread if it is heavy.

        Raises:
            ClientError: as the reader does.
            CapacityError: if there is no room or no time.
        """
        started_s = time.perf_counter()
        self.departure.watch()
        try:
            if reader.is_light(payload):
                return reader.decode(payload)
            return await self._decoders.decode(reader, payload, deadline_s)
        except QueueFull:
            if self._predictor is not None:
                self._predictor.metrics.rejections["decoding_full"].inc()
            raise
        finally:
            self.departure.forget()
            self._decode_s = time.perf_counter() - started_s

    async def predict(
        self, predictor: Predictor, decoded: Decoded, terms: Terms, deadline_s: float
    ) -> Judged:
        """Return a verdict for each row; these protocols have no place for a row's error.

        Raises:
            ClientError: of the first row that could not be read.
            CapacityError: if there is no room or no time.
            RunFailed: if the model failed on one of these rows.
        """
        if decoded.errors:
            raise decoded.errors[min(decoded.errors)]
        self.departure.watch()
        try:
            prediction = await predictor.predict_rows(
                decoded, terms, deadline_s, decode_s=self._decode_s
            )
        finally:
            self.departure.forget()
        answers = [row for row in prediction.rows if isinstance(row, Answer)]
        if len(answers) < len(prediction.rows):
            raise next(row for row in prediction.rows if isinstance(row, DunnoError))
        self._prediction = prediction
        self._predicted_s = time.perf_counter()
        return Judged(prediction, answers)

    @property
    def _account(self) -> Account:
        return Account(self._metrics, self._windows, self.trace)

    def count_answered(self) -> None:
        """Count the request with what it was answered, if it predicted anything."""
        if self._prediction is not None:
            now_s = time.perf_counter()
            timing = Timing(*self._prediction.stages, now_s - self._predicted_s)
            seconds = now_s - self._started_s
            self._account.count_answered(self._prediction, seconds, timing)
            if seconds >= self._settings.slow_request_s and self._predictor is not None:
                facts = identity(self.trace, self.key)
                log_slow(self.request_id, self._predictor.name, seconds, timing, facts)
        elif self.trace is not None:
            self.trace.told()

    def count_refusal(self, error: DunnoError) -> None:
        """Count the request as refused."""
        if isinstance(error, ClientError):
            self._metrics.count_input_rejection(reason_of(error))
        status = status_of(error)
        self.count(OUTCOME.get(status, "invalid"), status)

    def count(self, outcome: str, status: int = 0) -> None:
        """Count the request as one that got no verdict; status 0: the client is gone."""
        seconds = time.perf_counter() - self._started_s
        self._account.count_failed(outcome, seconds, status)

    def log(self, status: int) -> None:
        """Write the line of the access log."""
        log.info(
            "request",
            extra={
                "request_id": self.request_id,
                "path": self.scope["path"],
                "status": status,
                "seconds": round(time.perf_counter() - self._started_s, 6),
                **identity(self.trace, self.key),
            },
        )


class Reception:
    """Answers the requests of one protocol, whatever becomes of them."""

    def __init__(self, protocol: str, resources: Resources, statuses: Mapping[int, int]) -> None:
        """Store what requests need.

        Args:
            protocol: its name in metrics.
            resources: what it is served from.
            statuses: ours -> the protocol's own, where they differ.
        """
        self._nobody = RequestMetrics(resources.metrics, UNKNOWN_MODEL, "", protocol)
        self._resources = resources
        self._statuses = statuses
        self._inflight = resources.metrics.inflight.labels(protocol)
        for predictor in resources.catalogue:
            predictor.metrics.of_protocol(protocol)  # there from the start: rates see the first

    async def answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        respond: Callable[[Call], Awaitable[Response]],
    ) -> None:
        """Answer one request by what `respond` returns or raises."""
        call = Call(scope, receive, self._resources, self._nobody)
        self._inflight.inc()
        try:
            response = await self._response(call, respond)
            if response is not None:
                if call.trace is not None:
                    response.raw_headers.append(call.trace.header)
                await response(scope, receive, send)
                call.count_answered()
        finally:
            call.let_go()
            self._inflight.dec()
        if self._resources.settings.access_log:
            call.log(response.status_code if response is not None else 0)

    async def _response(
        self, call: Call, respond: Callable[[Call], Awaitable[Response]]
    ) -> Response | None:
        """Return the response; None if nobody is there to be told."""
        try:
            return await respond(call)
        except DunnoError as error:
            return self.refuse(call, error)
        except CallerGone:
            call.count("cancelled")
        except asyncio.CancelledError:
            if not call.departure.has_happened:  # the server stops and has waited long enough
                return self.refuse(call, Draining("the server is stopping"))
            call.count("cancelled")
        except Exception:
            log.exception("request failed", extra={"request_id": call.request_id})
            call.count("error", 500)
            return refusal(500, f"a fault of ours; quote the request id {call.request_id}")
        finally:
            call.forget_body()
        return None

    def refuse(self, call: Call, error: DunnoError) -> Response:
        """Return the response to a failure, and count it."""
        call.count_refusal(error)
        status = status_of(error)
        text = str(error).replace("query parameter ", "parameter ")
        if status == 404:
            text = call.not_found_text or text
        headers = {name.decode(): value.decode() for name, value in headers_of(error)}
        status = self._statuses.get(status, status)
        if isinstance(error, UNREAD):
            return _Unread(_error(text), status, {**headers, "connection": "close"}, _JSON)
        return Response(_error(text), status, headers, _JSON)


class _Unread(Response):
    """A response to a request whose body has not been read to its end."""

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send it, and drop what still comes before the connection is closed."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await linger(receive)
        await send({"type": "http.response.body", "body": b""})


_JSON = "application/json"


def _error(text: str) -> bytes:
    return orjson.dumps({"error": text})


def refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as these protocols have them: a text, and nothing else."""
    return Response(_error(text), status, headers, _JSON)


def wrong_method(scope: Scope, allowed: str) -> Response:
    """Return the refusal of a method that the path does not take."""
    text = f"{scope['method']} {scope['path']}: only {allowed} is taken here"
    return refusal(405, text, {"allow": allowed})


def json_response(content: object, status: int = 200, judged: Judged | None = None) -> Response:
    """Return content as JSON; arrays and numbers of NumPy are written as their shortest text."""
    headers = timing_headers(judged)
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, _JSON)


def timing_headers(judged: Judged | None) -> dict[str, str]:
    """Return the header that tells where the time of a prediction went."""
    if judged is None:
        return {}
    return {"server-timing": server_timing(judged.prediction.stages).decode()}

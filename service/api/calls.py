"""The slow path: an ASGI request of any protocol, with its body, deadline and error handling."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.bodies import UNREAD, BodyLimits, CallerGone, linger, read_payload
from service.api.departures import Departure
from service.api.exchange import Exchange, ExchangeContext, server_timing
from service.api.keys import key_of, seen_by
from service.api.middleware import header
from service.api.problems import headers_of, status_of
from service.decision import Row, Terms
from service.errors import Draining, DunnoError, QueueFull
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
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.telemetry.spans import Traces

_NOT_READ = (b"content-type", b"content-encoding")
"""Headers that clients of these protocols leave out or set wrongly."""

log = logging.getLogger(__name__)

Read = TypeVar("Read")


class Resources(NamedTuple):
    """Parts of the service that all protocols share."""

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


class Call(Exchange):
    """A request and its response, as ASGI has them."""

    def __init__(
        self, context: ExchangeContext, scope: Scope, receive: Receive, resources: Resources
    ) -> None:
        super().__init__(context, scope["state"]["request_id"], key_of(scope))
        self.scope = scope
        self.catalogue = seen_by(scope, resources.catalogue)
        self.departure = Departure(receive)
        self.not_found_text = ""
        """Error text for a model that is not served; empty: the catalogue's own."""

        self.max_body_bytes = resources.body_limits.max_bytes
        self._body_limits = resources.body_limits
        self.max_inflation_ratio = resources.settings.max_inflation_ratio
        self._receive = receive
        self._decoders = resources.decoders
        self._decode_s = 0.0
        self._held_bytes = 0
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
        """Count the request with a model from now on, and keep its predictor until `close`."""
        predictor = super().use(choice)
        predictor.hold()  # another version may take its place while the body comes
        return predictor

    def close(self) -> None:
        """Release the model and the memory of the body."""
        if self._predictor is not None:
            self._predictor.release()
            self._predictor = None
        self.forget_body()
        super().close()

    async def read_payload(self) -> Payload:
        """Return the body, as its Content-Type says.

        Raises:
            ClientError: if it is too large or does not arrive, or its type cannot be read.
            CallerGone: if the client closed the connection.
        """
        return await self._read_payload(self.scope["headers"])

    async def read_body(self) -> Payload:
        """Return the body as JSON, whatever the headers say that it is; raises the same."""
        headers = [pair for pair in self.scope["headers"] if pair[0] not in _NOT_READ]
        payload = await self._read_payload(headers)
        payload.media_type = "application/json"
        return payload

    async def _read_payload(self, headers: Iterable[tuple[bytes, bytes]]) -> Payload:
        payload = await read_payload(headers, self._receive, self._body_limits)
        self._held_bytes = payload.held_bytes
        return payload

    def forget_body(self) -> None:
        """Give back the room of a body that nothing refers to any more."""
        self._body_limits.room.give_back(self._held_bytes)
        self._held_bytes = 0

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
        """Return a verdict for each row; these protocols cannot report an error of a single row.

        Raises:
            ClientError: of the first row that could not be read.
            CapacityError: if there is no room or no time.
            RunFailed: if the model failed on one of these rows.
        """
        if decoded.errors:
            raise decoded.errors[min(decoded.errors)]
        prediction = await self._watched(
            predictor.predict_rows(decoded, terms, deadline_s, decode_s=self._decode_s)
        )
        answers = [row for row in prediction.rows if isinstance(row, Answer)]
        if len(answers) < len(prediction.rows):
            raise next(row for row in prediction.rows if isinstance(row, DunnoError))
        self._predicted(prediction)
        return Judged(prediction, answers)

    async def predict_payload(
        self, predictor: Predictor, payload: Payload, terms: Terms, deadline_s: float
    ) -> Prediction:
        """Return a verdict, or an error, for each row of a body.

        Raises:
            ClientError: if no row could be read.
            CapacityError: if there is no room or no time.
            RunFailed: if the model failed on these rows.
        """
        prediction = await self._watched(
            predictor.predict(payload, terms, deadline_s, self._decoders)
        )
        self.forget_body()
        self._predicted(prediction)
        return prediction

    async def _watched(self, predicting: Awaitable[Prediction]) -> Prediction:
        """Return a prediction, unless the client closes the connection first."""
        self.departure.watch()
        try:
            return await predicting
        finally:
            self.departure.forget()

    def _predicted(self, prediction: Prediction) -> None:
        self._prediction = prediction
        self._predicted_s = time.perf_counter()

    def record_sent(self) -> None:
        """Record that the answer has been sent, with its verdicts if it has any."""
        if self._prediction is None:
            self.record_told()
        else:
            self.record_answered(self._prediction, time.perf_counter() - self._predicted_s)


Respond: TypeAlias = Callable[[Call], Awaitable[Response]]
"""Returns the answer to a request, or raises why there is none."""

WriteError: TypeAlias = Callable[[Call, DunnoError | None], Response]
"""Words a failure as a protocol does; None: a fault of ours, which the log describes."""


class Reception:
    """Answers the requests of one protocol: runs a handler and records how the request ended."""

    def __init__(self, protocol: str, resources: Resources, write_error: WriteError) -> None:
        """Look up what requests need, by the name of the protocol in metrics."""
        self.context = ExchangeContext(
            protocol, resources.settings, resources.metrics, resources.traces
        )
        self._resources = resources
        self._write_error = write_error
        for predictor in resources.catalogue:
            predictor.metrics.of_protocol(protocol)  # there from the start: rates see the first

    async def answer(self, scope: Scope, receive: Receive, send: Send, respond: Respond) -> None:
        """Answer one request by what `respond` returns or raises."""
        call = Call(self.context, scope, receive, self._resources)
        call.open(scope["headers"])
        status = 0
        try:
            response = await self._response(call, respond)
            if response is not None:
                status = response.status_code
                if call.trace is not None:
                    response.raw_headers.append(call.trace.header)
                await response(scope, receive, send)
                call.record_sent()
        finally:
            call.close()
        call.log_access(scope["path"], status)

    async def _response(self, call: Call, respond: Respond) -> Response | None:
        """Return the response; None if the client closed the connection."""
        try:
            return await respond(call)
        except DunnoError as error:
            return self._refuse(call, error)
        except CallerGone:
            call.record_cancelled()
        except asyncio.CancelledError:
            if not call.departure.has_happened:  # the server stops and has waited long enough
                return self._refuse(call, Draining("the server is stopping"))
            call.record_cancelled()
        except Exception as error:  # noqa: BLE001  it is logged
            call.record_fault(error)
            return self._write_error(call, None)
        finally:
            call.forget_body()
        return None

    def _refuse(self, call: Call, error: DunnoError) -> Response:
        call.record_refused(error)
        response = self._write_error(call, error)
        return _Unread.of(response) if isinstance(error, UNREAD) else response


def plain_errors(statuses: Mapping[int, int]) -> WriteError:
    """Return how the protocols of other servers word a failure: a text, and nothing else.

    Args:
        statuses: ours -> the protocol's own, where they differ.
    """

    def write(call: Call, error: DunnoError | None) -> Response:
        if error is None:
            return refusal(500, f"a fault of ours; quote the request id {call.request_id}")
        status = status_of(error)
        text = str(error).replace("query parameter ", "parameter ")
        if status == 404:
            text = call.not_found_text or text
        headers = {name.decode(): value.decode() for name, value in headers_of(error)}
        return refusal(statuses.get(status, status), text, headers)

    return write


class _Unread(Response):
    """A response to a request whose body has not been read to its end."""

    @classmethod
    def of(cls, response: Response) -> "_Unread":
        """Return the same response, after which the connection is closed."""
        unread = cls(response.body, response.status_code)
        unread.raw_headers = [*response.raw_headers, (b"connection", b"close")]
        return unread

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

"""One request that may predict, from its head to its end, on both paths and in every protocol.

Metrics, trace, slow-request log and access log of such a request are written here and nowhere else.
"""

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from service.api.keys import Key
from service.api.problems import OUTCOME, status_of
from service.errors import ClientError, DunnoError, reason_of
from service.prediction import Answer, Choice, Prediction, Predictor, Stages
from service.settings import Settings
from service.telemetry.metrics import UNKNOWN_MODEL, Metrics, RequestMetrics, Timing
from service.telemetry.recent import Recent
from service.telemetry.tracing import begin_trace

if TYPE_CHECKING:
    from service.telemetry.spans import RequestTrace, Traces

log = logging.getLogger(__name__)


class ExchangeContext:
    """What all exchanges of one protocol share."""

    def __init__(
        self, protocol: str, settings: Settings, metrics: Metrics, traces: "Traces | None"
    ) -> None:
        """Look the series of a protocol up, by its name in metrics and traces."""
        self.protocol = protocol
        self.traces = traces
        self.inflight = metrics.inflight.labels(protocol)
        self.unknown = RequestMetrics(metrics, UNKNOWN_MODEL, "", protocol)
        """Series of requests that are not for a model that is served."""

        self.timeout_s = settings.deadline_ms / 1000
        self.slow_s = settings.slow_request_s
        self.has_log = settings.access_log


class Exchange:
    """One request: `open`, `use`, then one of the `record_…`, and `close` in any case."""

    __slots__ = (
        "_context",
        "_metrics",
        "_predictor",
        "_started_s",
        "_windows",
        "key",
        "request_id",
        "trace",
    )

    def __init__(self, context: ExchangeContext, request_id: str, key: Key | None) -> None:
        self._context = context
        self._started_s = time.perf_counter()
        self._metrics: RequestMetrics = context.unknown
        self._predictor: Predictor | None = None
        self._windows: tuple[Recent, ...] = ()
        self.request_id = request_id
        self.key = key
        self.trace: RequestTrace | None = None

    def open(self, headers: Iterable[tuple[bytes, bytes]], age_s: float = 0.0) -> None:
        """Count the request as in flight, and begin its trace.

        Args:
            headers: of the request, with the trace of the client.
            age_s: how long ago the request arrived.
        """
        self._context.inflight.inc()
        self.trace = begin_trace(
            self._context.traces, self._context.protocol, self.request_id, headers, age_s
        )

    def use(self, choice: Choice) -> Predictor:
        """Count the request with a model from now on, and return its predictor."""
        predictor, self._windows = choice
        self._predictor = predictor
        self._metrics = predictor.metrics.of_protocol(self._context.protocol)
        if self.trace is not None:
            self.trace.describe(predictor.name, predictor.manifest.version)
        return predictor

    def deadline_s(self, timeout_s: float | None = None, since_s: float | None = None) -> float:
        """Return the deadline of the request, by `time.monotonic()`.

        Args:
            timeout_s: that the client sent; None: `DUNNO_DEADLINE_MS`, which is also the most that
                counts.
            since_s: when the whole body had arrived; None: now.
        """
        most_s = self._context.timeout_s
        if timeout_s is not None and timeout_s < most_s:
            most_s = timeout_s
            self._windows = ()  # a canary is not judged by timeouts that clients choose
        start_s = time.monotonic() if since_s is None else since_s
        return start_s + most_s

    def record_answered(self, prediction: Prediction, encode_s: float) -> None:
        """Record a request that got its verdicts.

        Args:
            prediction: what was answered.
            encode_s: how long the answer took to be written as bytes.
        """
        seconds = time.perf_counter() - self._started_s
        timing = Timing(*prediction.stages, encode_s)
        rows, outcome = prediction.rows, prediction.outcome
        if self._windows:
            reasons = [row.verdict.reason for row in rows if isinstance(row, Answer)]
            for window in self._windows:
                window.see_request(seconds, reasons)
        if self.trace is None:
            self._metrics.count_answered(outcome, seconds, timing)
        else:
            self._metrics.count_answered(outcome, seconds, timing, self.trace.trace_id)
            self.trace.answered(outcome, len(rows), timing)
        if seconds >= self._context.slow_s and self._predictor is not None:
            self._log_slow(self._predictor.name, seconds, timing)

    def record_told(self) -> None:
        """Record a request that asked for no verdict."""
        if self.trace is not None:
            self.trace.told()

    def record_refused(self, error: DunnoError) -> None:
        """Record a request that got a failure for an answer."""
        if isinstance(error, ClientError):
            self._metrics.count_input_rejection(reason_of(error))
        status = status_of(error)
        self._record_failed(OUTCOME.get(status, "invalid"), status)

    def record_cancelled(self) -> None:
        """Record a request whose client closed the connection first."""
        self._record_failed("cancelled", 0)

    def record_fault(self, error: Exception) -> None:
        """Record a request that failed by a fault of ours."""
        log.error("request failed", exc_info=error, extra={"request_id": self.request_id})
        self._record_failed("error", 500)

    def close(self) -> None:
        """End it: it is not in flight any more."""
        self._context.inflight.dec()

    def log_access(self, path: str, status: int) -> None:
        """Write the line of the access log, if there is one; status 0: nothing was answered."""
        if not self._context.has_log:
            return
        facts = {"path": path, "status": status, "seconds": round(self.age_s, 6)}
        log.info("request", extra={"request_id": self.request_id, **facts, **self._identity})

    @property
    def age_s(self) -> float:
        """How long ago it began."""
        return time.perf_counter() - self._started_s

    def _record_failed(self, outcome: str, status: int) -> None:
        for window in self._windows:
            window.see_failure(outcome)
        trace_id = "" if self.trace is None else self.trace.trace_id
        self._metrics.count_request(outcome, self.age_s, is_ok=False, trace_id=trace_id)
        if self.trace is not None:
            self.trace.failed(status, outcome)

    def _log_slow(self, model: str, seconds: float, timing: Timing) -> None:
        stages = {name: round(value, 6) for name, value in timing._asdict().items()}
        facts = {"request_id": self.request_id, "model": model, "seconds": round(seconds, 6)}
        log.warning("slow request", extra={**facts, **stages, **self._identity})

    @property
    def _identity(self) -> dict[str, str]:
        """Trace id and name of the API key, for a line of the log."""
        found = {} if self.trace is None else {"trace_id": self.trace.trace_id}
        return found if self.key is None else {**found, "key": self.key.name}


def server_timing(stages: Stages) -> bytes:
    """Return the value of the header Server-Timing, milliseconds."""
    decode_s, queue_s, run_s, decide_s = stages
    return b"decode;dur=%.3f, queue;dur=%.3f, run;dur=%.3f, decide;dur=%.3f" % (
        decode_s * 1000,
        queue_s * 1000,
        run_s * 1000,
        decide_s * 1000,
    )

"""What is recorded when a request ends: metrics, its trace, and the window of a canary."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from service.api.keys import Key
from service.prediction import Answer, Prediction, Stages
from service.telemetry.metrics import RequestMetrics, Timing
from service.telemetry.recent import Recent

if TYPE_CHECKING:
    from service.telemetry.spans import RequestTrace

log = logging.getLogger(__name__)


class Account(NamedTuple):
    """Where the end of one request is recorded."""

    metrics: RequestMetrics
    windows: tuple[Recent, ...]
    """Windows of requests that canaries are judged by; see `service.prediction.Choice`."""

    trace: "RequestTrace | None"

    def count_answered(self, prediction: Prediction, seconds: float, timing: Timing) -> None:
        """Record a request that got its verdicts."""
        rows, outcome = prediction.rows, prediction.outcome
        if self.windows:
            reasons = [row.verdict.reason for row in rows if isinstance(row, Answer)]
            for window in self.windows:
                window.see_request(seconds, reasons)
        if self.trace is None:
            self.metrics.count_answered(outcome, seconds, timing)
        else:
            self.metrics.count_answered(outcome, seconds, timing, self.trace.trace_id)
            self.trace.answered(outcome, len(rows), timing)

    def count_failed(self, outcome: str, seconds: float, status: int) -> None:
        """Record a request that got no verdict.

        Args:
            outcome: one of the metric's label values, such as `rejected`.
            seconds: since the request arrived.
            status: of the HTTP answer; 0 if the client closed the connection first.
        """
        for window in self.windows:
            window.see_failure(outcome)
        trace_id = "" if self.trace is None else self.trace.trace_id
        self.metrics.count_request(outcome, seconds, is_ok=False, trace_id=trace_id)
        if self.trace is not None:
            self.trace.failed(status, outcome)


def log_slow(
    request_id: str, model: str, seconds: float, timing: Timing, identity: Mapping[str, str]
) -> None:
    """Log the stages of a slow request, with the ids by which it is found."""
    stages = {name: round(value, 6) for name, value in timing._asdict().items()}
    facts = {"request_id": request_id, "model": model, "seconds": round(seconds, 6), **stages}
    log.warning("slow request", extra={**facts, **identity})


def identity(trace: "RequestTrace | None", key: Key | None) -> dict[str, str]:
    """Return the trace id and the name of the API key, for a line of the log."""
    found = {} if trace is None else {"trace_id": trace.trace_id}
    return found if key is None else {**found, "key": key.name}


def server_timing(stages: Stages) -> bytes:
    """Return the value of the header Server-Timing, milliseconds."""
    decode_s, queue_s, run_s, decide_s = stages
    return b"decode;dur=%.3f, queue;dur=%.3f, run;dur=%.3f, decide;dur=%.3f" % (
        decode_s * 1000,
        queue_s * 1000,
        run_s * 1000,
        decide_s * 1000,
    )

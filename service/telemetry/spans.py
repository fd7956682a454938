"""Spans of OpenTelemetry: one for each request and each of its stages, one for each batch.

The stages of a request are measured in any case. Their spans are made of these times when it is
answered, so that nothing on the way there is slower for requests that are not sampled.

A batch belongs to several requests. Its span lies in the trace of the request that came first and
is linked to all of them; the span `run` of each request is linked to it.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Container, Iterable, Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace import set_span_in_context as in_context_of
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.telemetry.metrics import STAGES, Timing

CLOSE_PATIENCE_S = 3.0
"""So long a server that stops waits for its last spans to be taken."""

_CONTEXT = (b"traceparent", b"tracestate")
_propagator = TraceContextTextMapPropagator()


ROUTES = {
    "native": "/predict/{model}",
    "v1": "/v1/models/{model}",
    "v2": "/v2/models/{model}/infer",
}
"""Protocol -> path, without the names in it."""


class Traces:
    """Begins the traces of one process."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("dunno", __version__)

    def begin(
        self, protocol: str, request_id: str, headers: Iterable[tuple[bytes, bytes]], age_s: float
    ) -> "RequestTrace | None":
        """Return the trace of a request that came `age_s` seconds ago; None if it is not sampled.

        It goes on with the caller's, if `headers` (lower-case names) hold a W3C trace context.
        """
        route = ROUTES[protocol]
        context = _propagator.extract(
            {name.decode(): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
        )
        span = self._tracer.start_span(
            f"POST {route}",
            context,
            SpanKind.SERVER,
            {
                "http.request.method": "POST",
                "http.route": route,
                "dunno.protocol": protocol,
                "dunno.request_id": request_id,
            },
            start_time=time.time_ns() - _ns(age_s),
        )
        return RequestTrace(self._tracer, span) if span.is_recording() else None

    async def close(self) -> None:
        """Send what is left, and wait a little for it to be taken."""
        # Of a thread pool, one that hangs would keep the process from ending.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        until_s = time.monotonic() + CLOSE_PATIENCE_S
        while closing.is_alive() and time.monotonic() < until_s:  # noqa: ASYNC110  a thread
            await asyncio.sleep(0.01)


class RequestTrace:
    """The span of one request; closed by `answered` or `failed`."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.batches: list[Link] = []
        """Where its rows ran."""

        context = span.get_span_context()
        self.link = Link(context)
        self.trace_id = f"{context.trace_id:032x}"
        span_id, flags = f"{context.span_id:016x}", f"{context.trace_flags:02x}"
        self.header = (b"traceparent", f"00-{self.trace_id}-{span_id}-{flags}".encode())
        """What the caller is told of it."""

    def describe(self, model: str, version: str) -> None:
        """Tell who was asked."""
        self._span.set_attributes({"dunno.model": model, "dunno.version": version})

    def ran(self, requests: Sequence["RequestTrace"], model: str, rows: int, run_s: float) -> None:
        """Make the span of a batch that has just run; `requests` are those of its rows."""
        now_ns = time.time_ns()
        batch = self._tracer.start_span(
            "batch",
            self._context,
            attributes={"dunno.model": model, "dunno.batch.rows": rows},
            links=[request.link for request in requests],
            start_time=now_ns - _ns(run_s),
        )
        batch.end(now_ns)
        link = Link(batch.get_span_context())
        for request in requests:
            request.batches.append(link)

    def answered(self, outcome: str, rows: int, timing: Timing) -> None:
        """Close it with the spans of its stages, the last of which has just ended."""
        now_ns = stop_ns = time.time_ns()
        for stage, seconds in reversed(list(zip(STAGES, timing, strict=True))):
            start_ns = stop_ns - _ns(seconds)
            links = self.batches if stage == "run" else None
            span = self._tracer.start_span(stage, self._context, links=links, start_time=start_ns)
            span.end(stop_ns)
            stop_ns = start_ns
        self._span.set_attribute("dunno.rows", rows)
        self._close(200, outcome, now_ns)

    def told(self) -> None:
        """Close it as one that asked for no verdict, unless it is closed."""
        if self._span.is_recording():
            self._close(200, "told", time.time_ns())

    def failed(self, status: int, outcome: str) -> None:
        """Close it as one that got no verdict; only a fault of ours is an error of the span."""
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
            self._span.set_attribute("error.type", str(status))
        self._close(status, outcome, time.time_ns())

    def _close(self, status: int, outcome: str, now_ns: int) -> None:
        self._span.set_attribute("dunno.outcome", outcome)
        if status:  # 0: the caller is gone, and nothing was said
            self._span.set_attribute("http.response.status_code", status)
        self._span.end(now_ns)

    @property
    def _context(self) -> Context:
        return in_context_of(self._span, Context())


def exporting(environment: Mapping[str, str], exporters: Container[str]) -> Traces:
    """Return what makes traces and sends them, as OpenTelemetry's variables say.

    Args:
        environment: with these variables.
        exporters: of `service.telemetry.tracing.EXPORTERS`.
    """
    attributes = {"service.version": __version__}
    named = environment.get(OTEL_RESOURCE_ATTRIBUTES, "")
    if not environment.get(OTEL_SERVICE_NAME) and "service.name=" not in named:
        attributes["service.name"] = "dunno"
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    if "otlp" in exporters:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    if "console" in exporters:
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=sys.stdout)))
    return Traces(provider)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)

"""Whether requests are traced, and the trace of the one that is being worked on.

What makes the spans, `service.telemetry.spans`, is imported only where there is somebody to send
them to: OpenTelemetry's own variables say so, and its SDK is the extra `tracing`.
"""

import importlib
import logging
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from service.errors import install_line

if TYPE_CHECKING:
    from service.telemetry.spans import RequestTrace, Traces

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"
EXPORTERS = ("otlp", "console")
"""Values of `OTEL_TRACES_EXPORTER` besides `none`, separated by commas."""

CURRENT: ContextVar["RequestTrace | None"] = ContextVar("dunno_request_trace", default=None)
"""The trace of the request whose rows are submitted; batches are linked to it."""

log = logging.getLogger(__name__)


def start_tracing(environment: Mapping[str, str]) -> "Traces | None":
    """Return what makes traces, by OpenTelemetry's variables; None if nobody is there to see them.

    A server whose traces cannot be sent serves all the same, and says so in its log.
    """
    exporters = _exporters(environment)
    if not exporters:
        return None
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), SPOKEN)
    if "otlp" in exporters and protocol != SPOKEN:
        log.warning("no traces: only %s is spoken", SPOKEN, extra={"protocol": protocol})
        return None
    try:
        spans = importlib.import_module("service.telemetry.spans")
    except ImportError:
        log.warning("no traces: OpenTelemetry is missing; %s", install_line("tracing"))
        return None
    traces: Traces = spans.exporting(environment, exporters)
    return traces


def _exporters(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the exporters that OpenTelemetry's variables select; none of them disables tracing."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    names = environment.get("OTEL_TRACES_EXPORTER", "").lower().split(",")
    exporters = frozenset(name.strip() for name in names if name.strip())
    if not exporters:
        has_endpoint = any(environment.get(name) for name in ENDPOINTS)
        return frozenset({"otlp"} if has_endpoint else ())
    unknown = exporters - {*EXPORTERS, "none"}
    if unknown:
        named = ", ".join(sorted(unknown))
        log.warning("OTEL_TRACES_EXPORTER: expected otlp, console or none, got %s", named)
    return exporters.intersection(EXPORTERS) if "none" not in exporters else frozenset()


def begin_trace(
    traces: "Traces | None",
    protocol: str,
    request_id: str,
    headers: Iterable[tuple[bytes, bytes]],
    age_s: float = 0.0,
) -> "RequestTrace | None":
    """Return the trace of a request that came `age_s` seconds ago, if it has one: the `CURRENT`."""
    if traces is None:
        return None
    trace = traces.begin(protocol, request_id, headers, age_s)
    CURRENT.set(trace)
    return trace

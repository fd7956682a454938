"""Requests are traced where somebody takes the traces, whichever way they went."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from collector import Collector, collecting, facts, open_metrics
from conftest import Server
from many_callers import serving
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.hotpath import HotProtocol
from service.settings import Settings

ROW = {"instances": [[9, 0, 0]]}
INFERENCE = {"inputs": [{"name": "rows", "shape": [1, 3], "datatype": "FP32", "data": [9, 0, 0]}]}
STAGES = ("decode", "queue", "run", "decide", "encode")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER_ID = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-01", "tracestate": "shop=7"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-00"}


class Way(NamedTuple):
    """One way that a request can go."""

    path: str
    body: object
    protocol: str
    http: type[HttpToolsProtocol]

    def ask(self, models: Path, **headers: str) -> httpx.Response:
        """Return the response of a server that stops behind it."""
        with Server(Settings(models=models), self.http) as address:
            return httpx.post(f"{address}{self.path}", json=self.body, headers=headers)


WAYS = {
    "hot": Way("/predict/fruit", ROW, "native", HotProtocol),
    "asgi": Way("/predict/fruit", ROW, "native", HttpToolsProtocol),
    "v1": Way("/v1/models/fruit:predict", ROW, "v1", HotProtocol),
    "v2": Way("/v2/models/fruit/infer", INFERENCE, "v2", HotProtocol),
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        yield found


@pytest.mark.slow
def test_request_and_its_stages_are_spans_of_the_callers_trace(
    models: Path, collector: Collector, way: Way
) -> None:
    response = way.ask(models, **SAMPLED)

    (request,) = [span for span in collector.spans if span.parent_span_id.hex() == CALLER_ID]
    stages = [collector.one(name) for name in STAGES]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
    assert request.trace_state == "shop=7"
    assert response.headers["traceparent"] == f"00-{TRACE_ID}-{request.span_id.hex()}-01"
    assert (
        facts(request).items()
        >= {
            "dunno.model": "fruit",
            "dunno.version": "2",
            "dunno.protocol": way.protocol,
            "dunno.outcome": "answered",
            "dunno.rows": 1,
            "dunno.request_id": response.headers["x-request-id"],
            "http.response.status_code": 200,
        }.items()
    )
    assert {span.parent_span_id for span in stages} == {request.span_id}
    edges = [
        edge for span in stages for edge in (span.start_time_unix_nano, span.end_time_unix_nano)
    ]
    assert edges == sorted(edges)
    assert request.start_time_unix_nano <= edges[1]
    assert edges[-1] <= request.end_time_unix_nano
    assert collector.resource["service.name"] == "dunno"


@pytest.mark.slow
def test_batch_is_linked_to_its_requests_and_they_to_it(
    models: Path, collector: Collector, way: Way
) -> None:
    way.ask(models)

    batch, run = collector.one("batch"), collector.one("run")
    assert facts(batch) == {"dunno.model": "fruit", "dunno.batch.rows": 1}
    assert [link.span_id for link in batch.links] == [run.parent_span_id]
    assert [link.span_id for link in run.links] == [batch.span_id]


@pytest.mark.parametrize(
    ("path", "body", "facts_of_it"),
    [
        (
            "/predict/fruit",
            {"instances": [["red"]]},
            {"dunno.outcome": "invalid", "http.response.status_code": 400},
        ),
        (
            "/predict/nobody",
            ROW,
            {"dunno.outcome": "not_found", "http.response.status_code": 404},
        ),
        (
            "/v1/models/fruit:predict",
            {"instances": []},
            {"dunno.outcome": "invalid", "http.response.status_code": 400},
        ),
    ],
)
def test_request_that_is_refused_is_a_span_without_stages_and_no_error_of_ours(
    models: Path, collector: Collector, path: str, body: object, facts_of_it: dict[str, object]
) -> None:
    with Server(Settings(models=models), HotProtocol) as address:
        httpx.post(f"{address}{path}", json=body)

    (request,) = collector.spans
    assert facts(request).items() >= facts_of_it.items()
    assert request.status.code == request.status.STATUS_CODE_UNSET


def test_caller_decides_whether_its_request_is_traced(
    models: Path, collector: Collector, way: Way
) -> None:
    response = way.ask(models, **NOT_SAMPLED)

    assert response.status_code == 200
    assert "traceparent" not in response.headers
    assert collector.spans == []


def test_trace_context_that_is_no_context_is_not_followed(
    models: Path, collector: Collector
) -> None:
    headers = {
        b"traceparent": b"00-%b-b7ad6b7169203331-01" % (b"0" * 32),
        b"tracestate": b"=\xff,,",
    }
    with Server(Settings(models=models), HotProtocol) as address:
        response = httpx.post(f"{address}/predict/fruit", json=ROW, headers=headers)

    assert response.status_code == 200
    assert collector.one("POST /predict/{model}").parent_span_id == b""


@pytest.mark.slow
def test_buckets_of_durations_have_traces_as_examples(
    models: Path, collector: Collector, way: Way
) -> None:
    with Server(Settings(models=models), way.http) as address:
        httpx.post(f"{address}{way.path}", json=way.body, headers=SAMPLED)
        accepted = {"Accept": "application/openmetrics-text; version=1.0.0"}
        scraped = httpx.get(f"{address}/metrics", headers=accepted)
        plain = httpx.get(f"{address}/metrics").text

    families = open_metrics(scraped.text)
    for name in ("dunno_request_duration_seconds", "dunno_stage_duration_seconds"):
        found = [s.exemplar.labels for s in families[name].samples if s.exemplar is not None]
        assert found, name
        assert all(labels == {"trace_id": TRACE_ID} for labels in found)
    assert collector.spans
    assert "trace_id" not in plain


def test_lines_of_the_log_tell_the_trace(
    models: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = Settings(models=models, slow_request_ms=0.0001, access_log=True)
    with Server(settings, HotProtocol) as address:
        for path in ("/predict/fruit", "/v1/models/fruit:predict"):
            httpx.post(f"{address}{path}", json=ROW, headers=SAMPLED)

    told = [record for record in caplog.records if record.message in ("slow request", "request")]
    assert len(told) == 4
    assert {record.__dict__["trace_id"] for record in told} == {TRACE_ID}
    assert len(collector.named("run")) == 2


@pytest.mark.slow
def test_server_whose_traces_nobody_takes_serves_and_stops_in_time(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with serving(models) as (process, address):
        assert httpx.post(f"{address}/predict/fruit", json=ROW).status_code == 200
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        },
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "TRUE"},
    ],
)
def test_nothing_is_traced_unless_somebody_is_there_to_take_it(
    models: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with Server(Settings(models=models), HotProtocol) as address:
        response = httpx.post(f"{address}/predict/fruit", json=ROW, headers=SAMPLED)

    assert response.status_code == 200
    assert "traceparent" not in response.headers


def test_traces_are_printed_if_the_console_is_named(
    models: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    with Server(Settings(models=models), HotProtocol) as address:
        response = httpx.post(f"{address}/predict/fruit", json=ROW, headers=SAMPLED)

    assert TRACE_ID in response.headers["traceparent"]
    told = capfd.readouterr().out
    assert '"name": "POST /predict/{model}"' in told
    assert TRACE_ID in told


def test_exporter_that_is_not_known_is_told_and_others_are_used(
    models: Path,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp,zipkin")
    with Server(Settings(models=models), HotProtocol) as address:
        httpx.post(f"{address}/predict/fruit", json=ROW, headers=SAMPLED)

    assert len(collector.named("run")) == 1
    assert "OTEL_TRACES_EXPORTER: expected otlp, console or none, got zipkin" in caplog.messages

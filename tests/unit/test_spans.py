import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest
from fakes import PATIENCE_S, GatedRun
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.batching import Batcher, BatchLimits
from service.telemetry.metrics import Metrics, Timing
from service.telemetry.spans import RequestTrace, Traces
from service.telemetry.tracing import begin_trace

pytestmark = pytest.mark.anyio

NO_TIME = Timing(0, 0, 0, 0, 0)


class Recorded:
    """Traces that stay in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.traces = Traces(provider)

    def begin(self) -> RequestTrace:
        trace = begin_trace(self.traces, "native", "r", ())
        assert trace is not None
        return trace

    def named(self, name: str) -> Sequence[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def number(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


async def test_batch_is_linked_to_every_request_whose_rows_it_ran() -> None:
    recorded, run = Recorded(), GatedRun()
    limits = BatchLimits(max_rows=4, max_queue_rows=16)
    metrics = Metrics().of_model("fruit", "1")
    batcher = Batcher("fruit", [run], limits, metrics)
    batcher.start()

    async def ask(value: float) -> RequestTrace:
        trace = recorded.begin()
        rows = np.array([[value]], np.float32)
        await batcher.submit(rows, time.monotonic() + PATIENCE_S)
        trace.answered("answered", 1, NO_TIME)
        return trace

    first = asyncio.create_task(ask(1))
    assert await asyncio.to_thread(run.has_begun.wait, PATIENCE_S)
    others = [asyncio.create_task(ask(value)) for value in (2, 3)]
    await asyncio.sleep(0)
    run.gate.set()
    await asyncio.gather(first, *others)
    await batcher.close(PATIENCE_S)

    alone, together = recorded.named("batch")
    requests = [number(span) for span in recorded.named("POST /predict/{model}")]
    assert linked(alone) == requests[:1]
    assert linked(together) == requests[1:]
    runs = [linked(span) for span in recorded.named("run")]
    assert runs == [[number(alone)], [number(together)], [number(together)]]


async def test_batch_lies_in_the_trace_of_the_request_that_came_first() -> None:
    recorded = Recorded()
    first, second = recorded.begin(), recorded.begin()

    first.ran([first, second], "fruit", 2, 0.001)

    (batch,) = recorded.named("batch")
    assert batch.context is not None
    assert f"{batch.context.trace_id:032x}" == first.trace_id


async def test_only_a_fault_of_ours_is_an_error_of_the_span() -> None:
    recorded = Recorded()
    for status in (0, 400, 429, 500, 503):
        recorded.begin().failed(status, "error")

    errors = [not span.status.is_unset for span in recorded.named("POST /predict/{model}")]
    assert errors == [False, False, False, True, True]


async def test_stages_end_one_where_the_next_begins() -> None:
    recorded = Recorded()

    recorded.begin().answered("answered", 1, Timing(0.1, 0.2, 0.3, 0.4, 0.5))

    spans = [recorded.named(name)[0] for name in ("decode", "queue", "run", "decide", "encode")]
    lengths = [((span.end_time or 0) - (span.start_time or 0)) / 1e9 for span in spans]
    assert lengths == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [span.end_time for span in spans[:-1]] == [span.start_time for span in spans[1:]]

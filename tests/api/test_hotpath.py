"""The shortcut for common requests: when it is taken, and that nobody can tell."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from conftest import Server
from connections import BODY, Connection, request
from fakes import PATIENCE_S
from keys import WHOLE, write_keys
from numpy.typing import NDArray
from services import Service, begun, until
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.api.fastlane import Fastlane
from service.api.hotpath import HotProtocol
from service.api.keys import digest_of
from service.batching import cost
from service.inputs import Decoded
from service.runtimes import Outputs
from service.settings import Settings


@pytest.fixture
def via_asgi(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the requests that went the way of all requests."""
    paths: list[str] = []
    answer = Fastlane.__call__

    async def noting(self: Fastlane, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            paths.append(scope["path"])
        await answer(self, scope, receive, send)

    monkeypatch.setattr(Fastlane, "__call__", noting)
    return paths


@pytest.fixture(autouse=True)
def _every_model_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine of the tests is."""
    monkeypatch.setattr(cost, "QUICK_RUN_S", 60)


@pytest.fixture
def connection(models: Path) -> Iterator[Connection]:
    with Server(Settings(models=models), HotProtocol) as address:
        connection = Connection(address)
        yield connection
        connection.close()


def test_common_request_takes_the_shortcut(connection: Connection, via_asgi: list[str]) -> None:
    connection.send(request())

    assert connection.response()[0] == 200
    assert via_asgi == []


@pytest.mark.parametrize(
    ("bytes_", "status"),
    [
        pytest.param(request(b'{"instances": [[1]]}'), 400, id="a row that cannot be read"),
        pytest.param(request(path="/predict/tree"), 404, id="no such model"),
        pytest.param(request(path="/predict/fruit?top_k=0"), 422, id="an option out of bounds"),
        pytest.param(request(path="/predict/%66ruit"), 200, id="a path that is encoded"),
        pytest.param(request(Content_Encoding="gzip"), 415, id="a body that is encoded"),
        pytest.param(request(version="1.0"), 200, id="an old protocol"),
    ],
)
def test_everything_else_goes_the_way_of_all_requests(
    connection: Connection, via_asgi: list[str], bytes_: bytes, status: int
) -> None:
    connection.send(bytes_)

    assert connection.response()[0] == status
    assert len(via_asgi) == 1


def test_answers_differ_in_nothing_but_time_and_number(models: Path) -> None:
    answers = []
    for protocol in (HttpToolsProtocol, HotProtocol):
        with Server(Settings(models=models), protocol) as address:
            connection = Connection(address)
            connection.send(request(X_Request_ID="same"))
            status, headers, content = connection.response()
            connection.close()
        for name in ("date", "server-timing"):
            assert headers.pop(name)
        answers.append((status, list(headers.items()), content))

    assert answers[0] == answers[1]


@pytest.mark.anyio
async def test_slow_model_is_not_run_where_everybody_waits(
    tmp_path: Path, via_asgi: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "QUICK_RUN_S", 0)
    threads: list[threading.Thread] = []
    service = Connected(tmp_path)
    run = service.runtime.run

    def watched(rows: NDArray[np.generic]) -> Outputs:
        threads.append(threading.current_thread())
        return run(rows)

    monkeypatch.setattr(service.runtime, "run", watched)
    service.protocol.data_received(request())
    await until(lambda: service.wire.written != b"")

    assert service.wire.written.startswith(b"HTTP/1.1 200")
    assert threading.current_thread() not in threads
    assert via_asgi == []


@pytest.mark.anyio
async def test_deadline_of_a_slow_model_is_kept_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "QUICK_RUN_S", 0)
    service = Connected(tmp_path)
    service.runtime.gate.clear()

    service.protocol.data_received(request(path="/predict/fruit?deadline_ms=20"))
    await until(lambda: service.wire.written != b"")
    service.runtime.gate.set()

    assert service.wire.written.startswith(b"HTTP/1.1 504")
    assert b"while the rows were running" in service.wire.written
    assert service.counted("expired") == 1


@pytest.mark.anyio
async def test_deadline_of_a_quick_model_is_kept_while_a_large_request_runs(tmp_path: Path) -> None:
    service = Connected(tmp_path)
    service.runtime.gate.clear()
    service.runtime.has_begun.clear()
    rows = np.array([[9, 0, 0]] * 16, np.float32)
    terms = service.predictor.judge.default_terms
    deadline_s = time.monotonic() + PATIENCE_S
    large = asyncio.ensure_future(service.predictor.predict_rows(Decoded(rows), terms, deadline_s))
    await begun(service)

    service.protocol.data_received(request(path="/predict/fruit?deadline_ms=20"))
    await until(lambda: service.wire.written != b"")
    service.runtime.gate.set()

    assert service.wire.written.startswith(b"HTTP/1.1 504")
    assert len((await large).rows) == 16


def test_access_log_has_every_request(
    models: Path, via_asgi: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with Server(Settings(models=models, access_log=True), HotProtocol) as address:
        connection = Connection(address)
        connection.send(request())

        assert connection.response()[0] == 200
        connection.close()
    assert via_asgi == ["/predict/fruit"]
    assert [record.message for record in caplog.records].count("request") == 1


class Wire(asyncio.Transport):
    """The far end of a connection, which keeps what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class Connected(Service):
    """The whole service with a quick model, and one connection to it."""

    def __init__(self, models: Path, keys: Path | None = None) -> None:
        super().__init__(models, access_log=False, keys=keys)
        self.runtime.gate.set()
        self.predictor.warm()
        self.predictor.start()
        self.protocol, self.wire = self.connect()

    def connect(self) -> tuple[HotProtocol, Wire]:
        wire = Wire()
        config = uvicorn.Config(self.app, log_config=None, proxy_headers=False)
        protocol = HotProtocol(config, ServerState(), {})
        protocol.connection_made(wire)
        return protocol, wire

    def counted_with_key(self, outcome: str) -> float:
        labels = {"key": "shop", "outcome": outcome}
        return self.metrics.registry.get_sample_value("dunno_key_requests_total", labels) or 0.0


class Nobody:
    """Whose rows wait; it needs no answer."""

    def done(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def set_result(self, _: object) -> None:
        pass

    def set_exception(self, _: object) -> None:
        pass


async def turns() -> None:
    """Let everything that is ready on the loop happen."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.anyio
async def test_caller_that_hangs_up_while_waiting_costs_no_run(tmp_path: Path) -> None:
    service = Connected(tmp_path)
    service.runtime.has_begun.clear()
    service.protocol.data_received(request())

    service.protocol.connection_lost(None)
    await turns()

    assert not service.runtime.has_begun.is_set()
    assert service.wire.written == b""
    assert service.counted("cancelled") == 1
    assert service.counted("answered") == 0


@pytest.mark.anyio
async def test_full_queue_is_refused_where_the_bytes_arrive_and_counted_once(
    tmp_path: Path,
) -> None:
    service = Connected(tmp_path)
    full = {"instances": [[0.5, 0.2, 0.1]] * 8}
    service.predictor.submit(np.zeros((8, 3), np.float32), time.monotonic() + 5, Nobody())

    service.protocol.data_received(request(json.dumps(full).encode()))

    head, _, body = service.wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429")
    assert b"retry-after: 1" in head.lower()
    assert json.loads(body)["type"] == "urn:dunno:queue_full"
    assert service.counted("rejected") == 1
    refused = {"model": "fruit", "cause": "queue_full"}
    assert service.metrics.registry.get_sample_value("dunno_rejections_total", refused) == 1

    await turns()
    service.protocol.data_received(request())
    await turns()
    assert service.wire.written.count(b"HTTP/1.1 200") == 1


@pytest.mark.anyio
async def test_model_that_fails_is_status_500_without_its_inner_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Connected(tmp_path)

    def fail(_: object) -> None:
        raise ValueError("secret")

    monkeypatch.setattr(service.runtime, "run", fail)
    service.protocol.data_received(request())
    await turns()

    head, _, body = service.wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500")
    assert b"application/problem+json" in head
    assert b"secret" not in body
    assert service.counted("error") == 1


@pytest.mark.anyio
async def test_connection_of_a_stopping_server_is_closed_after_its_answer(tmp_path: Path) -> None:
    service = Connected(tmp_path)
    service.protocol.data_received(request())
    service.protocol.shutdown()
    await turns()

    assert service.wire.written.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in service.wire.written
    assert service.wire.is_closed


BATCH = b'{"instances": [' + b", ".join([b"[9, 0, 0]"] * 8) + b"]}"
"""As many rows as one batch of `Service` has, and as its queue holds."""


def shown(body: bytes = BODY, path: str = "/predict/fruit") -> bytes:
    return request(body, path=path, Authorization=f"Bearer {WHOLE}")


def shop(folder: Path, limits: str = "") -> Path:
    return write_keys(folder, shop=f'sha256 = ["{digest_of(WHOLE)}"]\n{limits}')


def statuses_of(address: str, *requests: bytes) -> list[int]:
    """Return the statuses of requests on one connection, each sent when the last was answered."""
    connection = Connection(address)
    statuses = []
    for each in requests:
        connection.send(each)
        statuses.append(connection.response()[0])
    connection.close()
    return statuses


def test_request_with_a_key_takes_the_shortcut_and_one_without_is_refused_at_the_gate(
    models: Path, tmp_path: Path, via_asgi: list[str]
) -> None:
    with Server(Settings(models=models, keys=shop(tmp_path)), HotProtocol) as address:
        statuses = statuses_of(address, shown(), request(), request(X_API_Key=WHOLE))

    assert statuses == [200, 401, 200]
    assert via_asgi == []


def test_request_that_leaves_the_shortcut_is_charged_once(
    models: Path, tmp_path: Path, via_asgi: list[str]
) -> None:
    keys = shop(tmp_path, "requests_per_s = 0.001\nburst = 3")
    bad, rare = shown(b'{"instances": [[1]]}'), shown(path="/predict/%66ruit")
    with Server(Settings(models=models, keys=keys), HotProtocol) as address:
        statuses = statuses_of(address, bad, rare, shown(), shown())

    assert statuses == [400, 200, 200, 429]
    assert len(via_asgi) == 2


@pytest.mark.anyio
async def test_request_that_finds_no_room_on_the_shortcut_is_charged_once(
    tmp_path: Path, via_asgi: list[str]
) -> None:
    keys = shop(tmp_path, "requests_per_s = 0.001\nburst = 3\nconcurrent_requests = 2")
    service = Connected(tmp_path, keys)
    other, wire = service.connect()

    service.protocol.data_received(shown(BATCH))
    other.data_received(shown(BATCH))
    await until(lambda: service.counted_with_key("ok") == 1)
    other.data_received(shown(BATCH))
    await until(lambda: service.counted_with_key("ok") == 2)

    assert service.wire.written.startswith(b"HTTP/1.1 200")
    assert wire.written.startswith(b"HTTP/1.1 429")
    assert b"HTTP/1.1 200" in wire.written
    assert service.counted_with_key("rejected") == 1
    assert via_asgi == []


@pytest.mark.anyio
async def test_key_with_as_many_at_once_as_it_may_is_status_429_until_one_is_answered(
    tmp_path: Path,
) -> None:
    service = Connected(tmp_path, shop(tmp_path, "concurrent_requests = 1"))
    other, wire = service.connect()
    first = shown()

    service.protocol.data_received(first[:-1])  # goes on waiting for its body
    await turns()
    other.data_received(shown())
    await turns()
    refused, wire.written = wire.written, b""
    service.protocol.data_received(first[-1:])
    await until(lambda: service.counted_with_key("ok") == 1)
    other.data_received(shown())
    await turns()

    assert service.wire.written.startswith(b"HTTP/1.1 200")
    assert refused.startswith(b"HTTP/1.1 429")
    assert b"concurrency_exceeded" in refused
    assert b"retry-after: 1\r\n" in refused
    assert wire.written.startswith(b"HTTP/1.1 200")
    assert (service.counted_with_key("ok"), service.counted_with_key("limited")) == (2, 1)


@pytest.mark.anyio
async def test_caller_that_hangs_up_gives_the_place_of_his_key_back(tmp_path: Path) -> None:
    service = Connected(tmp_path, shop(tmp_path, "concurrent_requests = 1"))
    other, wire = service.connect()

    service.protocol.data_received(shown())
    service.protocol.connection_lost(None)
    other.data_received(shown())
    await turns()

    assert wire.written.startswith(b"HTTP/1.1 200")
    assert (service.counted_with_key("cancelled"), service.counted_with_key("ok")) == (1, 1)

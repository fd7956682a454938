"""The shortcut for common requests: when it is taken, and that nobody can tell."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from conftest import Server
from connections import Connection, request
from services import Service
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.api.fastlane import Fastlane
from service.api.hotpath import HotProtocol
from service.batching import cost
from service.settings import Settings


@pytest.fixture
def via_asgi(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the requests that went the way of all requests."""
    paths: list[str] = []
    answer = Fastlane._answer  # noqa: SLF001  the one place that all of them pass

    async def noting(self: Fastlane, scope: dict[str, str], *rest: object) -> None:
        paths.append(scope["path"])
        await answer(self, scope, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Fastlane, "_answer", noting)
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


def test_slow_model_is_not_run_where_everybody_waits(
    models: Path, via_asgi: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "QUICK_RUN_S", 0)
    with Server(Settings(models=models), HotProtocol) as address:
        connection = Connection(address)
        connection.send(request())

        assert connection.response()[0] == 200
        connection.close()
    assert via_asgi == ["/predict/fruit"]


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

    def __init__(self, models: Path) -> None:
        super().__init__(models, access_log=False)
        self.runtime.gate.set()
        self.predictor.warm()
        self.predictor.start()
        self.wire = Wire()
        config = uvicorn.Config(self.app, log_config=None, proxy_headers=False)
        self.protocol = HotProtocol(config, ServerState(), {})
        self.protocol.connection_made(self.wire)


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

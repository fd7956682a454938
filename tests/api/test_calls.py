"""Callers of other protocols than ours, in the middle of a request."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import PATIENCE_S
from numpy.typing import NDArray
from services import Service, begun, running

from service.runtimes import Outputs

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("protocol", ["v1", "v2"])]

PATHS = {"v1": "/v1/models/fruit:predict", "v2": "/v2/models/fruit/infer"}


def body_of(protocol: str, rows: int) -> bytes:
    if protocol == "v1":
        return json.dumps({"instances": [[9, 0, 0]] * rows}).encode()
    tensor = {"name": "rows", "shape": [rows, 3], "datatype": "FP32", "data": [9, 0, 0] * rows}
    return json.dumps({"inputs": [tensor]}).encode()


class Caller:
    """Speaks ASGI by hand, and can hang up whenever it likes."""

    def __init__(self, protocol: str, rows: int = 1, *, has_more: bool = False) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        message = {"type": "http.request", "body": body_of(protocol, rows), "more_body": has_more}
        self.messages.put_nowait(message)
        self.sent: list[dict[str, Any]] = []
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": PATHS[protocol],
            "query_string": b"",
            "headers": [],
        }

    def hang_up(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def error(self) -> str:
        content: dict[str, str] = json.loads(self.sent[1]["body"])
        assert content.keys() == {"error"}
        return content["error"]


def call(service: Service, caller: Caller) -> "asyncio.Task[None]":
    return asyncio.ensure_future(service.app(caller.scope, caller.messages.get, caller.send))  # type: ignore[arg-type]


async def test_caller_that_hangs_up_is_taken_out_of_the_queue(
    tmp_path: Path, protocol: str
) -> None:
    async with running(tmp_path) as service:
        first, leaving = Caller(protocol), Caller(protocol)
        tasks = [call(service, first)]
        await begun(service)
        tasks.append(call(service, leaving))
        await asyncio.sleep(0)
        leaving.hang_up()
        await asyncio.wait_for(tasks[1], PATIENCE_S)
        service.runtime.gate.set()
        await asyncio.gather(*tasks)

    assert (first.status, leaving.status) == (200, None)
    assert service.runtime.batches == [1]
    assert service.counted("cancelled", protocol) == 1
    assert service.counted("answered", protocol) == 1


async def test_caller_that_hangs_up_before_its_body_is_there_costs_no_run(
    tmp_path: Path, protocol: str
) -> None:
    async with running(tmp_path) as service:
        caller = Caller(protocol, has_more=True)
        caller.hang_up()

        await asyncio.wait_for(call(service, caller), PATIENCE_S)

    assert caller.sent == []
    assert service.counted("cancelled", protocol) == 1


async def test_full_queue_is_status_429_with_retry_after(tmp_path: Path, protocol: str) -> None:
    async with running(tmp_path) as service:
        first, second, third = (Caller(protocol, 8) for _ in range(3))
        tasks = [call(service, first)]
        await begun(service)
        tasks.append(call(service, second))
        await asyncio.sleep(0)
        await call(service, third)
        service.runtime.gate.set()
        await asyncio.gather(*tasks)

    assert (first.status, second.status, third.status) == (200, 200, 429)
    assert (b"retry-after", b"1") in third.sent[0]["headers"]
    assert "room" in third.error
    assert service.counted("rejected", protocol) == 1


async def test_stopping_server_is_status_503(tmp_path: Path, protocol: str) -> None:
    async with running(tmp_path) as service:
        await service.predictor.close(PATIENCE_S)
        caller = Caller(protocol)

        await call(service, caller)

    assert caller.status == 503


async def test_caller_that_waits_when_the_server_stops_for_good_is_told(
    tmp_path: Path, protocol: str
) -> None:
    async with running(tmp_path) as service:
        caller = Caller(protocol)
        task = call(service, caller)
        await begun(service)
        task.cancel()
        await task

    assert caller.status == 503
    assert caller.error == "the server is stopping"


async def test_model_that_fails_is_status_500_without_its_inner_life(
    tmp_path: Path, protocol: str
) -> None:
    def fail(_: object) -> object:
        raise ValueError("secret")

    async with running(tmp_path, fail) as service:
        service.runtime.gate.set()
        caller = Caller(protocol)

        await call(service, caller)

    assert caller.status == 500
    assert "secret" not in caller.error
    assert service.counted("error", protocol) == 1


async def test_row_for_which_the_model_returns_nan_fails_the_request(
    tmp_path: Path, protocol: str
) -> None:
    def spoil(rows: NDArray[np.generic]) -> Outputs:
        logits = rows.astype(np.float32)
        logits[-1] = np.nan
        return Outputs(logits, logits[:, 2:])

    async with running(tmp_path, spoil) as service:
        service.runtime.gate.set()
        caller = Caller(protocol, rows=2)

        await call(service, caller)

    assert caller.status == 500
    assert "NaN" in caller.error


async def test_defect_of_ours_is_status_500_with_an_id_that_is_in_the_log(
    tmp_path: Path, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as service:
        caller = Caller(protocol)
        caller.messages.get_nowait()
        caller.messages.put_nowait({})  # no server sends such a message

        await call(service, caller)

    (record,) = [record for record in caplog.records if record.message == "request failed"]
    assert caller.status == 500
    assert vars(record)["request_id"] in caller.error

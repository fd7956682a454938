"""What a caller does in the middle of a request, which no well-behaved client does on demand."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import PATIENCE_S
from numpy.typing import NDArray
from services import Service, begun, running

pytestmark = pytest.mark.anyio

DISCONNECT = {"type": "http.disconnect"}


class Caller:
    """Speaks ASGI by hand: posts rows, and can hang up whenever it likes."""

    def __init__(self, *instances: Sequence[float], query: bytes = b"") -> None:
        body = json.dumps({"instances": instances}).encode()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.messages.put_nowait({"type": "http.request", "body": body})
        self.sent: list[dict[str, Any]] = []
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict/fruit",
            "query_string": query,
            "headers": [(b"content-type", b"application/json")],
        }

    def hang_up(self) -> None:
        self.messages.put_nowait(DISCONNECT)

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None


def call(service: Service, caller: Caller) -> "asyncio.Task[None]":
    return asyncio.ensure_future(service.app(caller.scope, caller.messages.get, caller.send))  # type: ignore[arg-type]


async def test_caller_that_hangs_up_while_waiting_is_taken_out_of_the_queue(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as service:
        first, leaving, staying = Caller([9, 0, 0]), Caller([0, 9, 0]), Caller([0, 0, 9])
        tasks = [call(service, first)]
        await begun(service)
        tasks += [call(service, leaving), call(service, staying)]
        await asyncio.sleep(0)
        leaving.hang_up()
        await asyncio.wait_for(tasks[1], PATIENCE_S)
        service.runtime.gate.set()
        await asyncio.gather(*tasks)

    assert (first.status, leaving.status, staying.status) == (200, None, 200)
    assert service.runtime.batches == [1, 1]
    assert service.counted("cancelled") == 1


async def test_caller_that_hangs_up_before_its_body_is_complete_costs_no_run(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as service:
        caller = Caller([9, 0, 0])
        caller.messages.get_nowait()
        caller.messages.put_nowait({"type": "http.request", "body": b'{"in', "more_body": True})
        caller.hang_up()

        await asyncio.wait_for(call(service, caller), PATIENCE_S)

    assert caller.sent == []
    assert service.runtime.batches == []
    assert service.counted("cancelled") == 1


async def test_full_queue_is_status_429_with_retry_after(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        first, second, third = (Caller(*[[9, 0, 0]] * 8) for _ in range(3))
        tasks = [call(service, first)]
        await begun(service)
        tasks.append(call(service, second))
        await asyncio.sleep(0)
        await call(service, third)
        service.runtime.gate.set()
        await asyncio.gather(*tasks)

    assert (first.status, second.status, third.status) == (200, 200, 429)
    assert (b"retry-after", b"1") in third.sent[0]["headers"]


async def test_deadline_that_passes_during_the_run_is_status_504(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        caller = Caller([9, 0, 0], query=b"deadline_ms=30")

        await call(service, caller)

    assert caller.status == 504
    assert service.counted("expired") == 1


async def test_stopping_server_is_status_503(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        await service.predictor.close(PATIENCE_S)
        caller = Caller([9, 0, 0])

        await call(service, caller)

    assert caller.status == 503


async def test_model_that_fails_is_status_500_without_its_inner_life(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(rows: NDArray[np.generic]) -> Any:
        raise RuntimeError(f"secret of {len(rows)} rows")

    async with running(tmp_path, fail) as service:
        service.runtime.gate.set()
        caller = Caller([9, 0, 0])

        await call(service, caller)

    assert caller.status == 500
    assert b"secret" not in caller.sent[1]["body"]
    assert "secret of 1 rows" in caplog.text


async def test_defect_of_ours_is_status_500_with_an_id_that_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as service:
        caller = Caller([9, 0, 0])
        del service.predictor.decoder

        await call(service, caller)

    problem = json.loads(caller.sent[1]["body"])
    assert caller.status == 500
    assert problem["type"] == "urn:dunno:internal"
    assert problem["request_id"] in [getattr(record, "request_id", "") for record in caplog.records]
    assert service.counted("error") == 1


async def test_access_log_tells_path_status_and_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with running(tmp_path) as service:
        service.runtime.gate.set()
        await call(service, Caller([9, 0, 0]))

    (record,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert (record.path, record.status) == ("/predict/fruit", 200)  # type: ignore[attr-defined]

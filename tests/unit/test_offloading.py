"""Answers of large requests are judged and written in one thread, within bounds."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator

import pytest
from fakes import PATIENCE_S

from service.errors import DeadlineExceeded, QueueFull
from service.prediction.offloading import LIGHT_ROWS, Offloader

MANY = LIGHT_ROWS + 1

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def occupied(offloader: Offloader, rows: int = MANY) -> AsyncIterator[None]:
    """Keep the thread of an offloader busy."""
    gate = threading.Event()
    holding = asyncio.ensure_future(offloader.run(rows, lambda: gate.wait(PATIENCE_S)))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        gate.set()
        await holding


async def test_few_rows_are_handled_at_once_and_many_in_a_thread() -> None:
    offloader = Offloader()

    assert await offloader.run(LIGHT_ROWS, threading.current_thread) is threading.current_thread()
    assert (await offloader.run(MANY, threading.current_thread)).name == "dunno-answer"


async def test_call_of_a_cancelled_request_is_not_made() -> None:
    offloader = Offloader()
    made: list[int] = []
    async with occupied(offloader):
        cancelled = asyncio.ensure_future(offloader.run(MANY, lambda: made.append(1)))
        await asyncio.sleep(0)
        cancelled.cancel()
    await offloader.run(MANY, lambda: made.append(2))

    assert made == [2]


async def test_deadline_is_kept_while_a_call_waits_and_it_is_not_made() -> None:
    offloader = Offloader()
    made: list[int] = []
    async with occupied(offloader):
        deadline_s = time.monotonic() + 0.01
        with pytest.raises(DeadlineExceeded):
            await offloader.run(MANY, lambda: made.append(1), deadline_s)
    await offloader.run(MANY, lambda: made.append(2))

    assert made == [2]


async def test_deadline_is_kept_while_a_call_runs() -> None:
    offloader = Offloader()
    gate = threading.Event()

    with pytest.raises(DeadlineExceeded):
        await offloader.run(MANY, lambda: gate.wait(PATIENCE_S), time.monotonic() + 0.01)
    gate.set()


def test_large_request_is_refused_while_others_are_in_work_and_accepted_afterwards() -> None:
    offloader = Offloader(most_rows=2 * MANY)
    with offloader.reserved(3 * MANY):  # there is no other
        pass
    with offloader.reserved(MANY):
        with pytest.raises(QueueFull, match=f"large requests with {MANY} rows"):
            offloader.reserved(MANY + 1).__enter__()
        with offloader.reserved(LIGHT_ROWS), offloader.reserved(MANY):
            pass

    with offloader.reserved(3 * MANY):
        pass

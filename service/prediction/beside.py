"""Work on the answers of large requests, outside the event loop."""

from collections.abc import Callable
from typing import TypeVar

from service.batching.threads import RunThread

LIGHT_ROWS = 64
"""Rows that the event loop judges and writes itself: some 10 microseconds each."""

Returned = TypeVar("Returned")

_thread = RunThread("answer")


async def beside(rows: int, call: Callable[[], Returned]) -> Returned:
    """Return what a call returns, made in a thread if it concerns more than `LIGHT_ROWS` rows."""
    return call() if rows <= LIGHT_ROWS else await _thread.run(call)

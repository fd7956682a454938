"""A thread for the answers of large requests, so that they do not block the event loop."""

from collections.abc import Callable
from typing import TypeVar

from service.batching.threads import RunThread

LIGHT_ROWS = 64
"""Rows that are judged and encoded on the event loop: about 10 microseconds each."""

Returned = TypeVar("Returned")

_thread = RunThread("answer")


async def offload(rows: int, call: Callable[[], Returned]) -> Returned:
    """Return what `call` returns; it runs in a thread if it handles more than `LIGHT_ROWS` rows."""
    return call() if rows <= LIGHT_ROWS else await _thread.run(call)

"""A thread for the answers of large requests, so that they do not block the event loop."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

from service.batching.threads import RunThread
from service.errors import DeadlineExceeded, QueueFull

LIGHT_ROWS = 64
"""Rows that are judged and encoded on the event loop: about 10 microseconds each."""

MOST_PENDING_ROWS = 65_536
"""Rows that may wait for the thread before large requests are refused: about a second of work."""

Returned = TypeVar("Returned")


class Offloader:
    """Runs calls that handle many rows in one thread, in order; bounded by `look_for_room`.

    A call whose request was cancelled, or whose deadline has passed, is not made.
    """

    def __init__(self, most_rows: int = MOST_PENDING_ROWS) -> None:
        self._thread = RunThread("answer")
        self._most_rows = most_rows
        self._pending_rows = 0

    def look_for_room(self, rows: int) -> None:
        """Refuse a request before its rows run, if their answers would wait for too long.

        A request of any size is accepted while nothing waits.

        Raises:
            QueueFull: if more than `most_rows` rows would wait for the thread.
        """
        pending_rows = self._pending_rows
        if rows > LIGHT_ROWS and pending_rows and pending_rows + rows > self._most_rows:
            raise QueueFull(f"answers to {pending_rows} rows of large requests wait to be written")

    async def run(
        self, rows: int, call: Callable[[], Returned], deadline_s: float = math.inf
    ) -> Returned:
        """Return what `call` returns; it runs in the thread if it handles many rows.

        Args:
            rows: handled by `call`; up to `LIGHT_ROWS` it is called at once, on the event loop.
            call: what to do.
            deadline_s: `time.monotonic()` after which `call` is not made.

        Raises:
            DeadlineExceeded: if the call was still waiting for the thread at `deadline_s`.
        """
        if rows <= LIGHT_ROWS:
            return call()

        def call_in_time() -> Returned:
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded("the deadline passed before the rows were judged")
            return call()

        self._pending_rows += rows
        try:
            return await self._thread.run(call_in_time)
        finally:
            self._pending_rows -= rows


offloader = Offloader()
"""The one of this process: judging and encoding are work of the processor."""

offload = offloader.run

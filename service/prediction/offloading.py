"""A thread for the answers of large requests, so that they do not block the event loop."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from service.batching.threads import RunThread
from service.errors import DeadlineExceeded, QueueFull

LIGHT_ROWS = 64
"""Rows that are judged and encoded on the event loop: about 10 microseconds each."""

MOST_PENDING_ROWS = 65_536
"""Rows of large requests that may be in work before others are refused: about a second of it."""

Returned = TypeVar("Returned")


class Offloader:
    """Runs calls that handle many rows in one thread, in order.

    A call whose request was cancelled, or whose deadline has passed, is not made.
    """

    def __init__(self, most_rows: int = MOST_PENDING_ROWS) -> None:
        self._thread = RunThread("answer")
        self._most_rows = most_rows
        self._pending_rows = 0

    @contextlib.contextmanager
    def reserved(self, rows: int) -> Iterator[None]:
        """Reserve room for a large request, from before its rows run until they are judged.

        A request of any size is accepted while there is no other.

        Args:
            rows: of the request, wrong ones included.

        Raises:
            QueueFull: if large requests would have more than `most_rows` rows together.
        """
        if rows <= LIGHT_ROWS:
            yield
            return
        if self._pending_rows and self._pending_rows + rows > self._most_rows:
            raise QueueFull(f"large requests with {self._pending_rows} rows are in work")
        self._pending_rows += rows
        try:
            yield
        finally:
            self._pending_rows -= rows

    async def run(
        self, rows: int, call: Callable[[], Returned], deadline_s: float = math.inf
    ) -> Returned:
        """Return what `call` returns; it runs in the thread if it handles many rows.

        Args:
            rows: handled by `call`; up to `LIGHT_ROWS` it is called at once, on the event loop.
            call: what to do.
            deadline_s: `time.monotonic()` after which the answer is worthless.

        Raises:
            DeadlineExceeded: at `deadline_s`, if the call has not returned.
        """
        if rows <= LIGHT_ROWS:
            return call()
        left_s = None if math.isinf(deadline_s) else max(0.0, deadline_s - time.monotonic())
        try:
            async with asyncio.timeout(left_s):
                return await self._thread.run(call)
        except TimeoutError:
            message = "the deadline passed while the answer was judged and written"
            raise DeadlineExceeded(message) from None


offloader = Offloader()
"""The one of this process: judging and encoding are work of the processor."""

offload = offloader.run

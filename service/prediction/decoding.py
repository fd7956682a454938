"""Threads that decode what is too heavy for the event loop; bounded, and left when it is late."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from service.errors import DeadlineExceeded, QueueFull
from service.inputs import Payload

Read = TypeVar("Read")
Read_co = TypeVar("Read_co", covariant=True)


class Reader(Protocol[Read_co]):
    """Reads a payload; a `Decoder` is one, and so is what reads a whole request."""

    def is_light(self, payload: Payload) -> bool:
        """Tell whether reading is quick enough for the event loop."""
        ...

    def decode(self, payload: Payload) -> Read_co:
        """Return what the payload holds."""
        ...


class DecoderPool:
    """Decodes payloads of all models; a caller that leaves or is late frees its thread.

    A picture that is being decoded is decoded to its end: no library can be stopped half-way. The
    next one of the same request is not begun.
    """

    def __init__(self, threads: int, max_requests: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="dunno-decode")
        self._max_requests = max_requests
        self._requests = 0

    async def decode(
        self, decoder: Reader[Read_co], payload: Payload, deadline_s: float
    ) -> Read_co:
        """Return what a payload holds, decoded in a thread.

        Args:
            decoder: of the model, or of a whole request.
            payload: the request's body.
            deadline_s: `time.monotonic()` after which the rows are worthless.

        Raises:
            QueueFull: at once, if too many requests wait for a thread.
            DeadlineExceeded: if the rows were not there at `deadline_s`.
            ClientError: as `Decoder.decode` does.
        """
        if self._requests >= self._max_requests:
            raise QueueFull(f"{self._requests} requests are being decoded; there is no room")
        self._requests += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, decoder.decode, payload)
        future.add_done_callback(self._count_done)
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                return await asyncio.shield(future)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the body was decoded") from None
        finally:
            payload.is_abandoned = True  # does no harm to what is finished

    def _count_done(self, future: "asyncio.Future[Any]") -> None:
        self._requests -= 1
        if not future.cancelled():
            future.exception()  # looked at, or asyncio would complain that nobody did

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

"""Threads that decode what is too heavy for the event loop, within a budget of memory."""

import asyncio
import time
from typing import Any, Protocol, TypeVar

from service.batching.threads import RunThread
from service.errors import DeadlineExceeded, DunnoError, QueueFull, without_traceback
from service.inputs import Payload
from service.inputs.budget import ByteBudget, decoding_bytes

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
    """Decodes payloads of all models; a client that leaves or is late frees its thread.

    A picture that is being decoded is decoded to its end: no library can be stopped half-way. The
    next one of the same request is not begun. A thread never keeps the process from ending.
    """

    def __init__(self, threads: int, max_requests: int, budget: ByteBudget | None = None) -> None:
        self._threads = RunThread("decode", threads)
        self._max_requests = max_requests
        self._requests = 0
        self._budget = budget

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
        future = self._threads.run(lambda: self._read(decoder, payload))
        future.add_done_callback(self._count_done)
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                return await asyncio.shield(future)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the body was decoded") from None
        finally:
            payload.is_abandoned = True  # does no harm to what is finished
            del future  # or its exception would refer to this frame, and the frame to it

    def _read(self, decoder: Reader[Read_co], payload: Payload) -> Read_co:
        """Decode in a thread, if the client still waits."""
        if payload.is_abandoned:
            raise DeadlineExceeded("the deadline passed before the body was decoded")
        if self._budget is None:
            return decoder.decode(payload)
        lease = payload.lease = self._budget.lease(lambda: payload.is_abandoned)
        try:
            lease.take(decoding_bytes(len(payload.body)))
            return decoder.decode(payload)
        except DunnoError as error:
            raise without_traceback(error) from None
        finally:
            payload.lease = None
            lease.close()

    def _count_done(self, future: "asyncio.Future[Any]") -> None:
        self._requests -= 1
        if not future.cancelled():
            future.exception()  # looked at, or asyncio would complain that nobody did

    def close(self) -> None:
        """End the threads after what they decode now."""
        self._threads.stop()

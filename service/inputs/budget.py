"""Memory for decoding: one budget of bytes for all threads of the process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import DeadlineExceeded

MOST_OBJECT_BYTES = 128 * 1024 * 1024
"""Most memory that the values of one JSON body may take as Python objects."""

_OBJECT_BYTES = 48  # that a byte of JSON may stand for: a list in a list takes 96 and two brackets

LOOK_S = 0.05
"""How often a thread that waits for memory looks whether its client is still there."""


def decoding_bytes(body_bytes: int) -> int:
    """Return the memory that decoding a body may take, beside that of pictures in it."""
    return min(_OBJECT_BYTES * body_bytes, MOST_OBJECT_BYTES)


class ByteBudget:
    """Memory that decoding may take, counted before it is taken.

    What does not fit waits until other threads have given enough back. One lease at a time may go
    beyond the budget, so that a picture that needs more than all of it is decoded, alone. The most
    that is in use is therefore the budget and the largest single need.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._used_bytes = 0
        self._beyond: Lease | None = None
        self._changed = threading.Condition()

    def lease(self, is_abandoned: Callable[[], bool]) -> "Lease":
        """Return the account of one request.

        Args:
            is_abandoned: tells whether the client has left or the deadline has passed.
        """
        return Lease(self, is_abandoned)

    def acquire(self, need_bytes: int, lease: "Lease") -> None:
        """Take memory for a lease, and wait for it if it must be.

        Raises:
            DeadlineExceeded: if the request was abandoned before there was enough.
        """
        with self._changed:
            while not self._fits(need_bytes, lease):
                self._changed.wait(LOOK_S)
                if lease.is_abandoned():
                    raise DeadlineExceeded("the deadline passed before there was memory to decode")
            self._used_bytes += need_bytes
            if self._used_bytes > self.total_bytes:
                self._beyond = lease

    def _fits(self, need_bytes: int, lease: "Lease") -> bool:
        if self._used_bytes + need_bytes <= self.total_bytes:
            return True
        return self._beyond is None or self._beyond is lease

    def release(self, need_bytes: int, lease: "Lease") -> None:
        """Give memory back, and wake the threads that wait for it."""
        with self._changed:
            self._used_bytes -= need_bytes
            if self._beyond is lease and (
                self._used_bytes <= self.total_bytes or not lease.held_bytes
            ):
                self._beyond = None
            self._changed.notify_all()


class Lease:
    """What one request holds of a budget; used by one thread at a time."""

    def __init__(self, budget: ByteBudget, is_abandoned: Callable[[], bool]) -> None:
        self.is_abandoned = is_abandoned
        self.held_bytes = 0
        self._budget = budget

    def take(self, need_bytes: int) -> None:
        """Take memory until `close`.

        Raises:
            DeadlineExceeded: if the request was abandoned before there was enough.
        """
        self._budget.acquire(need_bytes, self)
        self.held_bytes += need_bytes

    @contextmanager
    def taking(self, need_bytes: int) -> Iterator[None]:
        """Take memory for the time of a `with` block.

        Raises:
            DeadlineExceeded: if the request was abandoned before there was enough.
        """
        self.take(need_bytes)
        try:
            yield
        finally:
            self._give_back(need_bytes)

    def close(self) -> None:
        """Give everything back."""
        if self.held_bytes:
            self._give_back(self.held_bytes)

    def _give_back(self, need_bytes: int) -> None:
        self.held_bytes -= need_bytes
        self._budget.release(need_bytes, self)

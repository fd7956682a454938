"""The memory budget for answers that clients do not read."""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

FILL = 0.9
"""Share of the budget that is left filled after connections were closed."""


class Sending(Protocol):
    """A connection that has sent an answer."""

    peer: str | None
    """Address by which connections of one client are counted; see `doorway.peer_of`."""

    def unsent_bytes(self) -> int:
        """Return how much of its answers the client has not read yet."""
        ...

    def abort(self) -> None:
        """Close the connection at once and drop what was not sent."""
        ...


class UnsentAnswers:
    """Closes connections whose clients do not read, once unread answers exceed the budget.

    First those that read nothing since the budget was last exceeded, then the others. Among either
    first those of the peer that holds most, and then the one that has not read for longest. The
    newest answer stays: it may be larger than the budget.
    """

    def __init__(self, most_bytes: int, count_closed: Callable[[], None]) -> None:
        """Set the budget; `count_closed` is called for each connection that is closed."""
        self._most_bytes = most_bytes
        self._count_closed = count_closed
        self._bytes: dict[Sending, int] = {}  # longest without progress first
        self._total_bytes = 0

    def add(self, connection: Sending) -> None:
        """Count what a client does not read, and close connections if it is too much."""
        self._set(connection, connection.unsent_bytes())
        if self._total_bytes > self._most_bytes:
            self._make_room(connection)

    def remove(self, connection: Sending) -> None:
        """Stop counting an answer: the client has read it, or the connection is closed."""
        self._total_bytes -= self._bytes.pop(connection, 0)

    def _set(self, connection: Sending, size_bytes: int) -> None:
        self.remove(connection)
        self._bytes[connection] = size_bytes
        self._total_bytes += size_bytes

    def _make_room(self, newest: Sending) -> None:
        idle = set(self._bytes)
        held: Counter[str | None] = Counter()
        for connection, before_bytes in tuple(self._bytes.items()):
            now_bytes = connection.unsent_bytes()
            held[connection.peer] += now_bytes
            if now_bytes < before_bytes or connection is newest:
                self._set(connection, now_bytes)
                idle.discard(connection)
        # More than necessary: the next answer shall not need all this again.
        enough_bytes = int(self._most_bytes * FILL)
        for connection in sorted(
            self._bytes,
            key=lambda each: (each is newest, each not in idle, -held[each.peer]),
        ):
            if self._total_bytes <= enough_bytes or connection is newest:
                return
            self.remove(connection)
            self._count_closed()
            connection.abort()

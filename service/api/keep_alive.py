"""When a connection may close behind an answer, without losing the request that comes next."""

import asyncio
import select
from typing import Any


def has_begun_to_answer(cycle: Any) -> bool:
    """Tell whether the head of an answer is written: after it nothing can say that it closes."""
    return bool(cycle.response_complete or getattr(cycle, "response_started", False))


def close_behind(cycle: Any, before: Any) -> None:
    """Let the connection close behind a request, and not behind the one that it waits for.

    Args:
        cycle: of the request that came last, as uvicorn calls it.
        before: of the request before it; None if there was none.
    """
    if before is not None and not has_begun_to_answer(before):
        before.keep_alive = True
    cycle.keep_alive = False


def has_unread(transport: asyncio.Transport) -> bool:
    """Tell whether something has arrived on a connection that was not read yet."""
    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return False
    arrived = select.poll()
    arrived.register(found.fileno(), select.POLLIN)
    return bool(arrived.poll(0))

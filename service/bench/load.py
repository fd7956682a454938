"""Callers in one process: each has a connection and asks again as soon as it has its answer."""

import asyncio
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from service.bench.request import Request
from service.bench.response import AnswerBroken, AnswerReader

RETRY_S = 0.02
"""Pause of a caller that was not let in, so that it does not spend its time on knocking."""


@dataclass
class Tally:
    """What the callers of one process got while it was counted."""

    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    """From request to complete answer, of 2xx answers."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    """Connections that were refused, or ended or went wrong before an answer was complete."""

    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of this process meanwhile."""


class _Desk:
    """Where callers hand in what they got; counts only between `open` and `close`."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.is_open = False
        self._began_s = self._began_cpu_s = 0.0

    def open(self) -> None:
        self._began_s, self._began_cpu_s = time.perf_counter(), time.process_time()
        self.is_open = True

    def close(self) -> None:
        self.is_open = False
        self.tally.elapsed_s = time.perf_counter() - self._began_s
        self.tally.cpu_s = time.process_time() - self._began_cpu_s

    def answered(self, status: int, seconds: float) -> None:
        if self.is_open:
            self.tally.statuses[status] += 1
            if 200 <= status < 300:
                self.tally.seconds.append(seconds)

    def broke(self) -> None:
        self.tally.broken += self.is_open


class _Caller(asyncio.Protocol):
    """One connection of the closed loop."""

    def __init__(self, content: bytes, desk: _Desk, ended: "asyncio.Future[None]") -> None:
        self._content = content
        self._desk = desk
        self._ended = ended
        self._reader = AnswerReader()
        self._asked_s = 0.0
        self._is_waiting = False
        self._write: Callable[[bytes], None]
        self._transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = transport
        self._write = self._transport.write
        self._ask()

    def data_received(self, data: bytes) -> None:
        try:
            is_complete = self._reader.feed(data)
        except AnswerBroken:
            self._transport.abort()
            return
        if is_complete:
            self._take()
            self._ask() if self._reader.is_kept_alive else self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_waiting and self._reader.ends_by_close and exc is None:
            self._take()
        elif self._is_waiting:
            self._desk.broke()
        if not self._ended.done():
            self._ended.set_result(None)

    def _ask(self) -> None:
        self._reader.start()
        self._is_waiting = True
        self._asked_s = time.perf_counter()
        self._write(self._content)

    def _take(self) -> None:
        self._is_waiting = False
        self._desk.answered(self._reader.status, time.perf_counter() - self._asked_s)


def count(request: Request, connections: int, warm_up_s: float, seconds: float) -> Tally:
    """Let so many callers ask for `warm_up_s` and `seconds`, and return what the latter brought."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_count(request, connections, warm_up_s, seconds))


async def _count(request: Request, connections: int, warm_up_s: float, seconds: float) -> Tally:
    desk = _Desk()
    calls = [asyncio.create_task(_call(request, desk)) for _ in range(connections)]
    await asyncio.sleep(warm_up_s)
    desk.open()
    await asyncio.sleep(seconds)
    desk.close()
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    return desk.tally


async def _call(request: Request, desk: _Desk) -> None:
    """Keep one connection busy, and open another one when it ends."""
    loop = asyncio.get_running_loop()
    while True:
        ended: asyncio.Future[None] = loop.create_future()
        try:
            transport, _ = await loop.create_connection(
                partial(_Caller, request.content, desk, ended), request.host, request.port
            )
        except OSError:
            desk.broke()
            await asyncio.sleep(RETRY_S)
            continue
        try:
            await ended
        finally:
            transport.abort()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415  there is none for Windows

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory

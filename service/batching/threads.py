"""A thread for one instance of a runtime, which may never come back from a run."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from service.leaving import expect_end

Returned = TypeVar("Returned")


class RunThread:
    """Makes one call after another outside the event loop, in one thread or a few.

    Unlike those of `concurrent.futures` the threads are daemons: one that hangs is left behind, and
    does not keep the process from ending. Each begins when a call needs it. A call whose future was
    cancelled before its turn is not made.
    """

    def __init__(self, name: str, threads: int = 1) -> None:
        self._name = f"dunno-{name}"
        self._most_threads = threads
        self._threads: list[threading.Thread] = []
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = (
            SimpleQueue()
        )

    def run(self, call: Callable[[], Returned]) -> "asyncio.Future[Returned]":
        """Return what `call` will return, to be awaited on the running loop."""
        if len(self._threads) < self._most_threads:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        future: asyncio.Future[Returned] = asyncio.get_running_loop().create_future()
        self._calls.put((future, call))
        return future

    def stop(self) -> None:
        """End after the calls that were asked for; a thread that hangs is left behind."""
        for thread in self._threads:
            expect_end(thread)
            self._calls.put(None)

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            future, call = asked
            returned: Any = None
            raised: Exception | None = None
            if not future.cancelled():
                try:
                    returned = call()
                except Exception as error:  # noqa: BLE001  it is for the caller
                    raised = error
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                    future.get_loop().call_soon_threadsafe(_settle, future, returned, raised)
            del asked, future, call, returned, raised  # nothing is kept while it waits


class CallHangs(Exception):
    """A call took too long, and its thread was left behind."""

    def __init__(self, message: str, future: "asyncio.Future[Any] | None" = None) -> None:
        super().__init__(message)
        self.future = future
        """What the call will return; None: it was not made, as too many others hang."""


class TimedThread:
    """Makes one call at a time in a thread, and in another one after a call that takes too long."""

    def __init__(self, name: str, limit_s: float, most_hung: int) -> None:
        """Set how long a call may take, and how many threads may be left behind."""
        self._name = name
        self._limit_s = limit_s
        self._most_hung = most_hung
        self._thread = RunThread(name)
        self._turn = asyncio.Lock()
        self._hung: list[asyncio.Future[Any]] = []

    @property
    def is_lost(self) -> bool:
        """Whether so many calls hang that no other is made."""
        self._hung = [future for future in self._hung if not future.done()]
        return len(self._hung) >= self._most_hung

    async def run(self, call: Callable[[], Returned]) -> Returned:
        """Return what `call` returns; the time limit begins when the call does.

        Raises:
            CallHangs: if it took too long, or is not made because of `is_lost`.
        """
        async with self._turn:
            if self.is_lost:
                raise CallHangs(f"{self._name}: {self._most_hung} calls hang; restart the server")
            future = self._thread.run(call)
            done, _ = await asyncio.wait([future], timeout=self._limit_s)
            if done:
                return future.result()
            self._hung.append(future)
            future.add_done_callback(_forget)
            self._thread.stop()  # whenever the call ends
            self._thread = RunThread(self._name)
        message = f"{self._name}: a call did not end within {self._limit_s:g} s"
        raise CallHangs(message, future)

    def stop(self) -> None:
        """End after the calls that were asked for."""
        self._thread.stop()


def _forget(future: "asyncio.Future[Any]") -> None:
    """Retrieve the exception of a call that came too late; asyncio would log it otherwise."""
    if not future.cancelled():
        future.exception()


def _settle(future: "asyncio.Future[Any]", returned: object, raised: Exception | None) -> None:
    if future.done():  # given up
        return
    if raised is None:
        future.set_result(returned)
    else:
        future.set_exception(raised)

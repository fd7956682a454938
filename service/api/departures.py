"""Callers that hang up while their answer is being worked on."""

import asyncio

from starlette.types import Receive

WATCH_AFTER_S = 0.02
"""After so long it is looked whether the caller is still there: most answers come sooner."""


class Departure:
    """Cancels the work of a caller who hangs up while waiting."""

    def __init__(self, receive: Receive) -> None:
        self.has_happened = False
        self._receive = receive
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin to look, after a moment, for the caller of the current task to hang up."""
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._look)

    def forget(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _look(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_happened = True
        if self._task is not None:
            self._task.cancel()

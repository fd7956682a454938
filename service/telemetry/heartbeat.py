"""Whether the event loop still turns, and how late it is.

A run, or anything else, that never comes back to the event loop leaves every caller without an
answer and nobody to tell them. Then the process has to end, so that another takes its place: its
parent's, its container's or its unit's work. A thread looks for that, and says in the log where the
loop stood.

That thread needs the interpreter. Code that keeps it locked, such as a match of `re`, stops the
thread as well. So the kernel counts too: each beat sets a timer of CPU time (`ITIMER_PROF`), whose
signal ends the process without the interpreter. CPU time, because a process that was stopped by
SIGSTOP uses none.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback

from service.telemetry.series import Histogram

PERIOD_S = 0.5
STALLED = 70
"""Exit code of a process whose event loop stood still: EX_SOFTWARE of sysexits.h."""

log = logging.getLogger(__name__)


class Heartbeat:
    """Beats on the running loop and ends the process if that stands still for too long."""

    def __init__(self, lag: Histogram, stall_s: float, cores: float = 1.0) -> None:
        """Store what to do.

        Args:
            lag: told how late each beat was, seconds.
            stall_s: seconds before the process is ended. 0 disables it.
            cores: how many the process may use. With the interpreter locked, the process is ended
                after `stall_s` times `cores` seconds of CPU, as all threads are counted together.
        """
        self._lag = lag
        self._stall_s = stall_s
        self._cpu_s = stall_s * max(1.0, cores)
        self._has_timer = stall_s > 0 and hasattr(signal, "setitimer")  # Windows has none
        self._beats = 0
        self._has_ended = threading.Event()

    def start(self) -> None:
        """Begin to beat, and to look."""
        self._task = asyncio.get_running_loop().create_task(self._beat())
        if self._stall_s:
            threading.Thread(target=self._watch, name="dunno-heartbeat", daemon=True).start()
        if self._has_timer:
            self._stacks = _stacks_to_standard_error()

    def stop(self) -> None:
        """Beat no more."""
        self._has_ended.set()
        self._task.cancel()
        if self._has_timer:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._stacks.close()

    async def _beat(self) -> None:
        while True:
            if self._has_timer:
                signal.setitimer(signal.ITIMER_PROF, self._cpu_s)
            started_s = time.perf_counter()
            await asyncio.sleep(PERIOD_S)
            self._lag.observe(max(0.0, time.perf_counter() - started_s - PERIOD_S))
            self._beats += 1

    def _watch(self) -> None:
        # Looks are counted, not seconds: a process that was stopped as a whole has not stalled.
        looks_left = most_looks = max(1, round(self._stall_s / PERIOD_S))
        beats = self._beats
        while not self._has_ended.wait(PERIOD_S):
            looks_left = most_looks if self._beats != beats else looks_left - 1
            beats = self._beats
            if looks_left == 0:
                extra = {"seconds": self._stall_s, "stacks": _stacks()}
                log.critical("the event loop stands still", extra=extra)
                logging.shutdown()  # waits for the line to be written, but not for ever
                os._exit(STALLED)


def _stacks_to_standard_error() -> contextlib.ExitStack:
    """Let SIGPROF write the stacks of all threads to standard error before it ends the process.

    Returns:
        What undoes it when it is closed.
    """
    undo = contextlib.ExitStack()
    with contextlib.suppress(OSError):
        # Opened again to be non-blocking: a write to a full pipe would never return.
        error = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND)
        undo.callback(os.close, error)
        faulthandler.register(signal.SIGPROF, file=error, all_threads=True, chain=True)
        undo.callback(faulthandler.unregister, signal.SIGPROF)
    return undo


def _stacks() -> dict[str, list[str]]:
    """Return where each thread stands, by its name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        names.get(number, str(number)): traceback.format_stack(frame)
        for number, frame in sys._current_frames().items()  # noqa: SLF001  there is no other way
    }

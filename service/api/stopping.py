"""What happens between the first SIGTERM and the last answer.

Readiness goes off first and all else goes on, so that whoever spreads requests can look elsewhere.
From then on each answer says `Connection: close`, so that clients with open connections do as well.
After a while the server drains: it takes no connection, answers what has come, and exits with 0.
A second SIGTERM ends the while, a third the drain. Ctrl-C drains at once.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType

log = logging.getLogger(__name__)


class Stopping:
    """Stands between SIGTERM and the server's own way to stop."""

    def __init__(self, delay_s: float, announce: Sequence[Callable[[], None]]) -> None:
        """Store what to do.

        Args:
            delay_s: how long to go on.
            announce: turn readiness off, and let answers say that their connections close.
        """
        self._delay_s = delay_s
        self._announce = announce
        self._heard = 0

    def listen(self) -> None:
        """Begin to hear SIGTERM, on the running loop; only a main thread gets signals."""
        self._stop = signal.getsignal(signal.SIGTERM)
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, _: FrameType | None) -> None:
        self._heard += 1
        if self._heard == 1:
            for announce in self._announce:  # a signal may come while an answer is written
                self._loop.call_soon_threadsafe(announce)
            log.info("stopping", extra={"serving_on_s": self._delay_s})
            self._loop.call_soon_threadsafe(self._loop.call_later, self._delay_s, self._drain)
        elif self._heard == 2:
            self._pass(number)
        else:
            self._pass(signal.SIGINT)  # uvicorn gives up on what is in flight

    def _drain(self) -> None:
        if self._heard == 1:  # nobody was in a hurry
            self._pass(signal.SIGTERM)

    def _pass(self, number: int) -> None:
        if callable(self._stop):
            self._stop(number, None)

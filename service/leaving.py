"""The end of a process in which a thread may hang.

A daemon thread keeps no process from ending. But the interpreter, and the libraries that the thread
is in, are torn down under it, and a graph that runs without end makes that an abort (SIGABRT).
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn
from weakref import WeakSet

PATIENCE_S = 0.2
"""So long the end of the process waits for threads that have nothing left to do."""

_leaving: "WeakSet[threading.Thread]" = WeakSet()


def expect_end(thread: threading.Thread) -> None:
    """Note that a daemon thread will end by itself, unless it hangs."""
    _leaving.add(thread)


def end_process(status: int) -> None:
    """End the process at once, as nothing else would end it well, if a thread hangs.

    Otherwise return: it ends as any other.
    """
    until_s = time.monotonic() + PATIENCE_S
    for thread in list(_leaving):
        thread.join(max(0.0, until_s - time.monotonic()))
        if thread.is_alive():
            break
    else:
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, gone or closed
            stream.flush()
    os._exit(status)


def end_on_signal(*_: object) -> NoReturn:
    """End the process, as the signal handler of a server that is still loading its models."""
    end_process(0)
    sys.exit(0)


@contextlib.contextmanager
def sigterm_ends() -> Iterator[None]:
    """Let SIGTERM end the process at once during a load, which may hang."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end_on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

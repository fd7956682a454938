"""The parent of several worker processes: uvicorn's, except for what signals mean to it."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.api.draining import WorkerProcess

HEAR_EVERY_S = 0.1
RETRY_S = 10.0
"""Pause after a replacement that could not start, while other workers serve."""

GRACE_S = 5
"""Time beyond that for draining, after which a worker without a parent ends in any case."""

log = logging.getLogger(__name__)


@contextlib.contextmanager
def hangup_waits() -> Iterator[None]:
    """Let SIGHUP wait, here for a moment and in a process that is started meanwhile."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Worker(WorkerProcess):
    """A worker process that stops when its parent is gone: nobody would replace or reload it."""

    def __init__(self, config: Config, sockets: list[socket.socket], lifeline: Connection) -> None:
        super().__init__(config, sockets)
        self._lifeline = lifeline

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, in the worker process."""
        threading.Thread(target=self._stop_with_parent, daemon=True).start()
        super().target(sockets)

    def _stop_with_parent(self) -> None:
        """Wait for the end of the parent, and stop like after two SIGTERM: at once, and gracefully.

        The kernel closes the parent's end of the pipe, however it ended.
        """
        with contextlib.suppress(EOFError, OSError):
            self._lifeline.recv_bytes()
        log.error("the parent process is gone; this worker stops")
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(HEAR_EVERY_S)
        time.sleep((self.config.timeout_graceful_shutdown or 0) + GRACE_S)
        os._exit(1)


class Supervisor(Multiprocess):
    """Starts workers, replaces those that die or are silent, and passes signals on to them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heard_s: dict[int | None, float] = {}
        self._retry_s: dict[int | None, float] = {}  # when to start again, by the failed process
        self._has_served = False
        self.has_failed = False
        """Whether it stops because no worker could start."""

        self._lifeline, self._held = Pipe(duplex=False)  # closed by the kernel when we end

    def init_processes(self) -> None:
        """Start the workers."""
        self.processes += [self._started() for _ in range(self.processes_num)]

    def handle_ttin(self) -> None:
        """Start one more worker."""
        self.processes_num += 1
        self.processes.append(self._started())

    def _started(self) -> Process:
        """Start a worker in which SIGHUP waits until it can be heard, where it would end it."""
        process = Worker(self.config, self.sockets, self._lifeline)
        with hangup_waits():
            process.start()
        return process

    def keep_subprocess_alive(self) -> None:
        """Replace workers that died, or were silent for `timeout_worker_healthcheck`.

        uvicorn waits for each worker in turn, and handles no signal during that time. It also stops
        all workers if a replacement cannot start. Here that is so only if no worker has served
        yet, or no other is alive; else the others go on, and a start is tried every `RETRY_S`.
        """
        for number, process in enumerate(self.processes):
            if self.should_exit.is_set() or self._is_well(process):
                continue
            if process.pid not in self._retry_s:
                process.kill()
                process.join()
                self._heard_s.pop(process.pid, None)
                told = {"pid": process.pid, "exit_code": process.exitcode}
                if process.exitcode == STARTUP_FAILURE and not self._has_others(process):
                    log.error("worker cannot serve", extra=told)
                    self.has_failed = True
                    self.should_exit.set()
                    return
                if process.exitcode == STARTUP_FAILURE:
                    log.error("worker cannot start; next try in %g s", RETRY_S, extra=told)
                    self._retry_s[process.pid] = time.monotonic() + RETRY_S
                    continue
                log.error("worker died and is replaced", extra=told)
            elif time.monotonic() < self._retry_s[process.pid]:
                continue
            self._retry_s.pop(process.pid, None)
            self.processes[number] = self._started()

    def _has_others(self, process: Process) -> bool:
        """Return whether workers have served, and one other than this is alive."""
        living = (each for each in self.processes if each.process.is_alive())
        return self._has_served and any(each is not process for each in living)

    def _is_well(self, process: Process) -> bool:
        if not process.process.is_alive():
            return False
        now_s = time.monotonic()
        heard_s = self._heard_s.setdefault(process.pid, now_s)
        if process.ping(HEAR_EVERY_S):
            self._heard_s[process.pid] = now_s
            self._has_served = self._has_served or process.is_ready(HEAR_EVERY_S)
            return True
        return now_s - heard_s < self.config.timeout_worker_healthcheck

    def handle_hup(self) -> None:
        """Let every worker reload its catalogue, where uvicorn would start others in their place.

        In a worker that is still starting the signal waits until it serves: it may have read the
        old catalogue. A worker that has died is replaced, and its successor reads the new one.
        """
        for process in self.processes:
            if process.process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)

    def join_all(self) -> None:
        """Wait for the workers to end; whoever is in a hurry meanwhile is heard by them as well."""
        while living := [process for process in self.processes if process.exitcode is None]:
            # First of all: a signal right behind the first one would be the same to a process.
            living[0].process.join(HEAR_EVERY_S)
            while self.signal_queue:
                number = self.signal_queue.pop(0)
                for process in living if number in (signal.SIGTERM, signal.SIGINT) else ():
                    if process.exitcode is None and process.pid is not None:
                        os.kill(process.pid, number)
        super().join_all()

    def handle_term(self) -> None:
        """Begin to stop; one more is for the workers, as soon as they have heard the first."""
        if self.should_exit.is_set():
            self.signal_queue.append(signal.SIGTERM)
        super().handle_term()

"""The parent of several worker processes: uvicorn's, except for what signals mean to it."""

import logging
import os
import signal

from uvicorn.supervisors import Multiprocess

HEAR_EVERY_S = 0.1

log = logging.getLogger(__name__)


class Supervisor(Multiprocess):
    """Starts workers, replaces those that die, and passes signals on to them."""

    def handle_hup(self) -> None:
        """Let every worker reload its catalogue, where uvicorn would start others in their place.

        A worker that is just being started may have read the old one, and could not take a signal.
        """
        for process in self.processes:
            is_ready = process.wait_until_ready(
                self.config.timeout_worker_healthcheck, self.should_exit
            )
            if is_ready and process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)
            else:
                log.error("worker not reloaded", extra={"pid": process.pid})

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

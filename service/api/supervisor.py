"""The parent of several worker processes: uvicorn's, except that SIGHUP reloads models."""

import logging
import os
import signal

from uvicorn.supervisors import Multiprocess

log = logging.getLogger(__name__)


class Supervisor(Multiprocess):
    """Starts workers, replaces those that die, and passes SIGHUP on to them."""

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

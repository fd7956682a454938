"""How many callers may connect and what a connection may hold: read once, counted in one place."""

import logging
import sys
from contextlib import suppress
from typing import NamedTuple

from service.settings import Settings
from service.telemetry.metrics import Metrics

RESERVED = 16
"""So many connections beyond the limit are taken, for one question of those that watch us."""

SPARE_DESCRIPTORS = 128
"""Open files beside connections: models, the event loop, the sockets of workers, callers that are
just being turned away."""

log = logging.getLogger(__name__)


class ConnectionLimits(NamedTuple):
    """Caps on what a caller may do with connections."""

    max_connections: int
    max_header_bytes: int
    max_headers: int
    header_timeout_s: float
    keep_alive_s: float
    write_timeout_s: float


class Doorway:
    """The limits of connections in force, and what is counted of them."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.limits = ConnectionLimits(
            max_connections=fitting_connections(settings.max_connections),
            max_header_bytes=settings.max_header_bytes,
            max_headers=settings.max_headers,
            header_timeout_s=settings.header_timeout_ms / 1000,
            keep_alive_s=settings.keep_alive_ms / 1000,
            write_timeout_s=settings.write_timeout_ms / 1000,
        )
        self.connections = metrics.connections.labels()
        self._rejections = metrics.connection_rejections

    def count_rejection(self, cause: str) -> None:
        """Count a connection that was ended, by one of `CONNECTION_CAUSES`."""
        self._rejections.labels(cause).inc()


def fitting_connections(wanted: int) -> int:
    """Return how many connections this process can have open, `wanted` at most.

    The limit of open files is raised as far as the process may; where that is not enough, the
    number is lowered and the log says so: accepting would fail later, for probes as well.
    """
    if sys.platform == "win32":
        return wanted
    import resource  # noqa: PLC0415  only where there is such a limit

    needed = wanted + RESERVED + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    reachable = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fitting = max(1, open_files - RESERVED - SPARE_DESCRIPTORS)
    if fitting < wanted:
        log.warning(
            "DUNNO_MAX_CONNECTIONS %d needs a limit of %d open files; with %d there are at most "
            "%d connections",
            wanted,
            needed,
            open_files,
            fitting,
        )
    return min(wanted, fitting)

"""How many callers may connect and what a connection may hold: read once, counted in one place."""

import ipaddress
import logging
import math
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

from service.api.unsent import UnsentAnswers
from service.memory import plan_process_memory
from service.settings import Settings, is_loopback
from service.telemetry.metrics import Metrics

HEALTH_VARIABLE = "AIP_HEALTH_ROUTE"
"""Environment variable in which Vertex AI sends the path of its health check."""

RESERVED = 16
"""Connections that are accepted above the limit, each for one request of `PROBES`."""

SPARE_DESCRIPTORS = 128
"""Open files beside connections: models, the event loop, the sockets of workers, callers that are
just being turned away."""

PROBES = frozenset(
    {b"/livez", b"/readyz", b"/metrics", b"/ping", b"/v2/health/live", b"/v2/health/ready"}
)
"""Health checks and /metrics. They are answered even above the connection limit: an overload is no
reason for a restart. The health route of Vertex AI is added to them."""

log = logging.getLogger(__name__)


class Connection(Protocol):
    """A connection that can be told that the server stops."""

    def say_close(self) -> None:
        """Let the next answer say that the connection closes."""
        ...


class ConnectionLimits(NamedTuple):
    """Caps on what a caller may do with connections."""

    max_connections: int
    max_connections_per_peer: float
    max_header_bytes: int
    max_headers: int
    header_timeout_s: float
    keep_alive_s: float
    write_timeout_s: float


class Doorway:
    """The limits of connections in force, and what is counted of them."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        host: str | None = None,
        unsent: UnsentAnswers | None = None,
    ) -> None:
        """Apply the settings to one address.

        Args:
            settings: with the limits.
            metrics: to count in.
            host: address that the server listens on; None: that of the models.
            unsent: memory budget that it shares with other addresses; None: one of its own.
        """
        self.limits = ConnectionLimits(
            max_connections=fitting_connections(settings.max_connections),
            max_connections_per_peer=settings.max_connections_per_peer or math.inf,
            max_header_bytes=settings.max_header_bytes,
            max_headers=settings.max_headers,
            header_timeout_s=settings.header_timeout_ms / 1000,
            keep_alive_s=settings.keep_alive_ms / 1000,
            write_timeout_s=settings.write_timeout_ms / 1000,
        )
        self.probes = PROBES | {(os.environ.get(HEALTH_VARIABLE) or "/ping").encode()}
        """Paths that are answered on connections above the limit."""

        self.connections = metrics.connections.labels()
        self.origins = frozenset(origin.encode() for origin in settings.cors_origins)
        """Origins whose pages may read why a connection was refused."""

        self.hosts = _hosts(settings.allowed_hosts, host or settings.host)
        """Host names with a dot that a Host header may contain; None: any."""

        self._rejections = metrics.connection_rejections
        self._connections_by_peer: dict[str, int] = {}
        self.open_connections: Collection[Connection] = ()
        self.unsent = unsent or UnsentAnswers(
            plan_process_memory(settings).unsent_bytes,
            partial(self.count_rejection, "unsent_answers"),
        )
        self.is_stopping = False
        """Whether each answer says that its connection closes."""

    def enter(self, peer: str | None) -> float:
        """Count a connection of an address, and return by how many these are above their limit."""
        if peer is None:
            return -math.inf
        number = self._connections_by_peer[peer] = self._connections_by_peer.get(peer, 0) + 1
        return number - self.limits.max_connections_per_peer

    def leave(self, peer: str | None) -> None:
        """Count a connection of an address no more."""
        if peer is None:
            return
        number = self._connections_by_peer.pop(peer) - 1
        if number:
            self._connections_by_peer[peer] = number

    def announce_end(self) -> None:
        """Let clients look elsewhere: from now on each answer says that its connection closes."""
        self.is_stopping = True
        for connection in tuple(self.open_connections):
            connection.say_close()

    def count_rejection(self, cause: str) -> None:
        """Count a connection that was ended, by one of `CONNECTION_CAUSES`."""
        self._rejections.labels(cause).inc()


def _hosts(allowed: Collection[str], host: str) -> frozenset[bytes] | None:
    """Return the host names that are allowed on an address; None: all of them."""
    if "*" in allowed or not (allowed or is_loopback(host)):
        return None
    return frozenset(name.lower().encode() for name in (*allowed, host))


def peer_of(address: object) -> str | None:
    """Return what connections of one peer are counted by; None where there is no address.

    An IPv6 network of 64 bits is one peer: its hosts choose the rest of their addresses. An IPv4
    address that is written as IPv6 is that of IPv4.
    """
    if not isinstance(address, tuple) or not address:
        return None
    host = str(address[0])
    if ":" not in host:
        return host
    try:
        found = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


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

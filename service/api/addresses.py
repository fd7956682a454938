"""Addresses beside that of the models: a small server each, on the same event loop."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from service.api.doorway import Doorway
from service.api.guarded import GuardedProtocol
from service.api.listener import join, let_listen, shown, take
from service.settings import Settings

log = logging.getLogger(__name__)


class SideAddress:
    """A small server beside the large one."""

    def __init__(
        self, name: str, app: ASGIApp, sockets: list[socket.socket], doorway: Doorway
    ) -> None:
        """Store what is answered where.

        Args:
            name: of the settings DUNNO_<NAME>_HOST and DUNNO_<NAME>_PORT.
            app: what answers.
            sockets: to listen on.
            doorway: with the limits of connections.
        """
        self._name = name
        self._sockets = sockets
        self._server = _Server(
            uvicorn.Config(
                app,
                http=partial(GuardedProtocol, doorway=doorway),  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )

    def start(self) -> None:
        """Begin to answer, on the running event loop."""
        let_listen(self._sockets)
        self._serving = asyncio.create_task(self._server.serve(self._sockets))
        for each in self._sockets:
            log.info("%s address http://%s", self._name, shown(each))

    async def close(self) -> None:
        """Stop listening, and finish what is being answered."""
        self._server.should_exit = True
        await self._serving


class SideAddresses:
    """Those that a server has, which is often none."""

    def __init__(self, addresses: Sequence[SideAddress]) -> None:
        self._addresses = addresses

    def start(self) -> None:
        """Begin to answer, on the running event loop."""
        for address in self._addresses:
            address.start()

    async def close(self) -> None:
        """Stop listening, and finish what is being answered."""
        for address in self._addresses:
            await address.close()


def take_sides(settings: Settings, *, is_worker: bool) -> dict[str, list[socket.socket]]:
    """Return the sockets of the admin and the metrics address, by name, if they have ports.

    Every worker listens on the metrics address, which the parent process has bound.

    Raises:
        SettingsInvalid: if an address cannot be bound.
    """
    sides = {}
    if settings.admin_port is not None:
        sides["admin"] = take("DUNNO_ADMIN", settings.admin_host, settings.admin_port)
    if settings.metrics_port is not None:
        bind = join if is_worker else take
        sides["metrics"] = bind("DUNNO_METRICS", settings.metrics_host, settings.metrics_port)
    return sides


class _Server(uvicorn.Server):
    """A server that leaves signals to the other one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

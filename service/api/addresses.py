"""Addresses beside that of the models: a small server each, on the same event loop."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp

from service.api.doorway import Doorway
from service.api.guarded import GuardedProtocol
from service.api.listener import listener_at
from service.settings import SettingsInvalid

log = logging.getLogger(__name__)


class Where(NamedTuple):
    """An address to listen on."""

    host: str
    port: int
    """0 for a free one."""

    is_shared: bool = False
    """Whether every worker process listens there."""


class SideAddress:
    """A small server beside the large one."""

    def __init__(self, name: str, app: ASGIApp, where: Where, doorway: Doorway) -> None:
        """Store what is answered where.

        Args:
            name: of the settings DUNNO_<NAME>_HOST and DUNNO_<NAME>_PORT.
            app: what answers.
            where: to listen.
            doorway: with the limits of connections.
        """
        self._name = name
        self._where = where
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

    def listen(self) -> None:
        """Take the address; who calls waits until `start`.

        Raises:
            SettingsInvalid: if it cannot be had.
        """
        self._socket = bound(self._name, self._where)

    def start(self) -> None:
        """Begin to answer, on the running event loop."""
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        host, port = self._socket.getsockname()[:2]
        log.info("%s address http://%s:%d", self._name, host, port)

    async def close(self) -> None:
        """Stop listening, and finish what is being answered."""
        self._server.should_exit = True
        await self._serving


class SideAddresses:
    """Those that a server has, which is often none."""

    def __init__(self, addresses: Sequence[SideAddress]) -> None:
        self._addresses = addresses

    def listen(self) -> None:
        """Take every address.

        Raises:
            SettingsInvalid: if one cannot be had.
        """
        for address in self._addresses:
            address.listen()

    def start(self) -> None:
        """Begin to answer, on the running event loop."""
        for address in self._addresses:
            address.start()

    async def close(self) -> None:
        """Stop listening, and finish what is being answered."""
        for address in self._addresses:
            await address.close()


def bound(name: str, where: Where) -> socket.socket:
    """Return a socket that is bound to an address; a shared one alike in each worker process.

    Raises:
        SettingsInvalid: if the address cannot be had.
    """
    host, port, is_shared = where
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if is_shared:
            return listener_at(family, (host, port))
        return socket.create_server((host, port), family=family)
    except OSError as error:
        setting = f"DUNNO_{name.upper()}"
        message = f"{setting}_HOST, {setting}_PORT: {host}:{port}: {error.strerror}"
        raise SettingsInvalid(message) from None


class _Server(uvicorn.Server):
    """A server that leaves signals to the other one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

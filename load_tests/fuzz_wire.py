"""The service in this process, and connections to it without sockets: bytes in, responses out.

What is asked is the very protocol that `dunno serve` gives to its server, so nothing between the
first byte of a request and the last one of its answer is left out but the kernel.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from service.api.admin import create_admin
from service.api.doorway import Doorway
from service.api.guarded import GuardedProtocol
from service.api.hotpath import HotProtocol
from service.app import compose
from service.prediction import Catalogue, Reloader, load_catalogue
from service.settings import Settings
from service.telemetry.metrics import Metrics

PIECE_BYTES = 262_144
"""What uvloop reads from a socket at once, at most."""

CLOSE_TIMEOUT_S = 5.0

Lane = Literal["hot", "general", "admin"]


class Response(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Request:
    """What is sent, to the byte."""

    target: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"
    raw: bytes | None = None
    """All of it, where its framing may be a lie: such a request has its connection to itself."""

    lane: Lane = "hot"

    @property
    def content(self) -> bytes:
        """What goes over the wire."""
        if self.raw is not None:
            return self.raw
        lines = [("Host", "dunno"), *self.headers, ("Content-Length", str(len(self.body)))]
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return f"{self.method} {self.target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + self.body


class ConnectionClosed(Exception):
    """The service closed the connection without a whole answer."""


class Connection(asyncio.Transport):
    """One connection: to the service a transport, to the caller somebody who answers."""

    def __init__(self, protocol: Callable[[], GuardedProtocol]) -> None:
        super().__init__({"peername": ("127.0.0.1", 9), "sockname": ("127.0.0.1", 8000)})
        self.received = bytearray()
        self._outgoing: list[bytes] = []
        self._is_closing = self._is_paused = self._is_head = False
        self._waiter: asyncio.Future[Response] | None = None
        self._protocol = protocol()
        self._protocol.connection_made(self)

    async def ask(self, request: Request) -> Response:
        """Return the response to a request.

        Raises:
            ConnectionClosed: if there is none.
        """
        self._waiter = asyncio.get_running_loop().create_future()
        self._is_head = request.method == "HEAD"
        content = request.content
        starts = range(0, len(content), PIECE_BYTES)
        self._outgoing += [content[start : start + PIECE_BYTES] for start in starts]
        self._send()
        return await self._waiter

    def hang_up(self) -> None:
        """Close from the caller's side."""
        self.close()

    def _send(self) -> None:
        while self._outgoing and not self._is_paused and not self._is_closing:
            self._protocol.data_received(self._outgoing.pop(0))

    # --- What the service does with a transport -----------------------------------------------

    def write(self, data: "bytes | bytearray | memoryview") -> None:
        """Take what the service says."""
        self.received += data
        if self._waiter is not None and not self._waiter.done():
            found = parsed(self.received, is_head=self._is_head)
            if found is not None:
                response, size = found
                del self.received[:size]
                self._waiter.set_result(response)

    def get_write_buffer_size(self) -> int:
        """Tell that everything is taken at once."""
        return 0

    def can_write_eof(self) -> bool:
        """Tell that the service may end its side first; here that ends both."""
        return True

    def write_eof(self) -> None:
        """End it: whoever is told that it is over hangs up."""
        self.close()

    def abort(self) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """Close, as soon as what runs has returned."""
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        self._protocol.connection_lost(None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionClosed(bytes(self.received[:200])))

    def is_closing(self) -> bool:
        """Tell whether it is of no use any more."""
        return self._is_closing

    def pause_reading(self) -> None:
        """Deliver nothing for a while."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Deliver what waits."""
        self._is_paused = False
        asyncio.get_running_loop().call_soon(self._send)


def parsed(received: bytearray, *, is_head: bool = False) -> tuple[Response, int] | None:
    """Return the first response of what came and its size in bytes, or None: it is not all there.

    Responses without a length do not occur: the service writes whole bodies.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = bytes(received[:end]).decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    status, start = int(first.split()[1]), end + 4
    if status == 100:
        del received[:start]
        return parsed(received, is_head=is_head)
    size = 0 if is_head else int(headers["content-length"])
    if len(received) < start + size:
        return None
    return Response(status, headers, bytes(received[start : start + size])), start + size


class Service:
    """All lanes of one service: the hot one, the general one for the same routes, and admin's."""

    def __init__(self, catalogue: Catalogue, settings: Settings, metrics: Metrics) -> None:
        self.catalogue = catalogue
        self.app = compose(catalogue, settings, metrics)
        self.reloader = Reloader(catalogue, settings, metrics)
        self._state = ServerState()
        self._doorway = Doorway(settings, metrics)
        self._configs = {
            "hot": self._config(self.app, HotProtocol),
            "general": self._config(self.app, GuardedProtocol),
            "admin": self._config(
                create_admin(catalogue, self.reloader, settings), GuardedProtocol
            ),
        }
        self._protocols: dict[str, type[GuardedProtocol]] = {
            "hot": HotProtocol,
            "general": GuardedProtocol,
            "admin": GuardedProtocol,
        }

    def connect(self, lane: Lane) -> Connection:
        """Return a new connection; on a running event loop."""
        config = self._configs[lane]
        kind = self._protocols[lane]
        doorway = self._doorway if lane == "admin" else None
        return Connection(
            lambda: kind(config=config, server_state=self._state, app_state={}, doorway=doorway)
        )

    async def settle(self) -> int:
        """Wait for what still runs, and return how many connections the service believes in."""
        tasks = set(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        return len(self._state.connections)

    @staticmethod
    def _config(app: ASGIApp, protocol: type[GuardedProtocol]) -> uvicorn.Config:
        config = uvicorn.Config(
            app,
            http=protocol,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            ws="none",
            access_log=False,
        )
        config.load()
        return config


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Service]:
    """Serve the catalogue of a folder of models on the running event loop."""
    metrics = Metrics()
    service = Service(load_catalogue(settings, metrics), settings, metrics)
    service.catalogue.start()
    yield service
    await service.settle()
    await service.reloader.close(CLOSE_TIMEOUT_S)
    await service.catalogue.close(CLOSE_TIMEOUT_S)

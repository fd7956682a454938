"""A small proxy that spreads connections over the servers that say they are ready."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx

LOOK_EVERY_S = 0.1


class Proxy:
    """Hands each connection to the next server that was ready when it was looked at last."""

    def __init__(self) -> None:
        self.servers: list[str] = []
        self._ready: list[str] = []
        self._turn = itertools.count()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen, and yield the address."""
        await self._look()
        looking = asyncio.create_task(self._look_again_and_again())
        server = await asyncio.start_server(self._hand_over, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.close()
            looking.cancel()

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look()

    async def _look(self) -> None:
        ready = []
        async with httpx.AsyncClient(timeout=1) as client:
            for address in list(self.servers):
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{address}/readyz")).status_code == 200:
                        ready.append(address)
        self._ready = ready

    async def _hand_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = urlsplit(self._ready[next(self._turn) % len(self._ready)])
        there, back = await asyncio.open_connection(where.hostname, where.port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()

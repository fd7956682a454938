"""One of two servers is replaced while requests come: nobody notices."""

import asyncio
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from deployment.proxy import Proxy
from many_callers import serving

pytestmark = pytest.mark.slow

REQUESTS_PER_S = 200
SECONDS = 5
ROW = {"instances": [[9, 0, 0]]}


async def ask(client: httpx.AsyncClient) -> int | str:
    """Return the status of one request, or the failure's name."""
    try:
        return (await client.post("/predict/fruit", json=ROW)).status_code
    except httpx.HTTPError as error:
        return type(error).__name__


async def ask_steadily(address: str) -> Counter[int | str]:
    """Return what became of requests that come at a constant rate, whatever the answers."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    tasks = []
    alone = httpx.Limits(max_keepalive_connections=0)  # each on a connection of its own
    async with httpx.AsyncClient(base_url=address, limits=alone) as client:
        for number in range(REQUESTS_PER_S * SECONDS):
            await asyncio.sleep(max(0.0, started_s + number / REQUESTS_PER_S - loop.time()))
            tasks.append(asyncio.create_task(ask(client)))
        return Counter(await asyncio.gather(*tasks))


@pytest.mark.anyio
async def test_replacing_one_of_two_servers_loses_no_request(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNNO_STOP_DELAY_MS", "1000")
    proxy = Proxy()
    with ExitStack() as servers:
        first, first_address = servers.enter_context(serving(models))
        _, second_address = servers.enter_context(serving(models))
        proxy.servers = [first_address, second_address]
        async with proxy.listening() as address:
            asking = asyncio.create_task(ask_steadily(address))
            await asyncio.sleep(1)
            first.send_signal(signal.SIGTERM)
            _, third_address = await asyncio.to_thread(servers.enter_context, serving(models))
            proxy.servers.append(third_address)

            outcomes = await asking

        assert await asyncio.to_thread(first.wait, 10) == 0
    assert outcomes == {200: REQUESTS_PER_S * SECONDS}

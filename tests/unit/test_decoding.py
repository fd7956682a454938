import asyncio
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from fakes import PATIENCE_S

from service.errors import DeadlineExceeded, InputInvalid, QueueFull
from service.inputs import Decoded, Payload
from service.prediction import DecoderPool

pytestmark = pytest.mark.anyio


class GatedDecoder:
    """Waits for its gate, then returns no rows; fails on a body of `bad`."""

    media_types = ("text/plain",)

    def __init__(self) -> None:
        self.gate = threading.Event()

    def is_light(self, payload: Payload) -> bool:
        return not payload.body

    def decode(self, payload: Payload) -> Decoded:
        assert self.gate.wait(PATIENCE_S)
        if payload.body == b"bad":
            raise InputInvalid("body", "good", "bad")
        return Decoded(np.empty((0, 1)))


@pytest.fixture
def decoder() -> Iterator[GatedDecoder]:
    decoder = GatedDecoder()
    yield decoder
    decoder.gate.set()


def payload(body: bytes = b"good") -> Payload:
    return Payload(body, "text/plain")


def soon(seconds: float = PATIENCE_S) -> float:
    return time.monotonic() + seconds


async def test_rows_and_failures_come_back_from_the_thread(decoder: GatedDecoder) -> None:
    pool = DecoderPool(threads=1, max_requests=2)
    decoder.gate.set()

    assert len((await pool.decode(decoder, payload(), soon())).rows) == 0
    with pytest.raises(InputInvalid):
        await pool.decode(decoder, payload(b"bad"), soon())
    pool.close()


async def test_deadline_is_kept_although_the_picture_is_still_being_decoded(
    decoder: GatedDecoder,
) -> None:
    pool = DecoderPool(threads=1, max_requests=2)
    late = payload()

    with pytest.raises(DeadlineExceeded, match="decoded"):
        await pool.decode(decoder, late, soon(0.01))

    assert late.is_abandoned
    pool.close()


async def test_caller_that_leaves_abandons_its_payload(decoder: GatedDecoder) -> None:
    pool = DecoderPool(threads=1, max_requests=2)
    left = payload()
    task = asyncio.create_task(pool.decode(decoder, left, soon()))
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert left.is_abandoned
    pool.close()


async def test_more_than_may_wait_are_refused_at_once_and_room_comes_back(
    decoder: GatedDecoder,
) -> None:
    pool = DecoderPool(threads=1, max_requests=2)
    tasks = [asyncio.create_task(pool.decode(decoder, payload(), soon())) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(QueueFull, match="2 requests are being decoded"):
        await pool.decode(decoder, payload(), soon())
    decoder.gate.set()
    await asyncio.gather(*tasks)

    assert len((await pool.decode(decoder, payload(), soon())).rows) == 0
    pool.close()

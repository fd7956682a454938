import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from fakes import PATIENCE_S
from waiting import wait_for

from service.errors import DeadlineExceeded, InputInvalid, QueueFull
from service.inputs import Decoded, Payload
from service.inputs.budget import ByteBudget
from service.prediction import DecoderPool

pytestmark = pytest.mark.anyio


class GatedDecoder:
    """Waits for its gate, then returns no rows; fails on a body of `bad`."""

    media_types = ("text/plain",)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.decoded: list[bytes] = []

    def is_light(self, payload: Payload) -> bool:
        return not payload.body

    def decode(self, payload: Payload) -> Decoded:
        self.decoded.append(payload.body)
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


async def test_body_whose_client_left_before_a_thread_was_free_is_not_decoded(
    decoder: GatedDecoder,
) -> None:
    pool = DecoderPool(threads=1, max_requests=2)
    first = asyncio.create_task(pool.decode(decoder, payload(), soon()))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await pool.decode(decoder, payload(b"bad"), soon(0.01))
    decoder.gate.set()

    await first
    await pool.decode(decoder, payload(b"last"), soon())

    assert decoder.decoded == [b"good", b"last"]
    pool.close()


class Values(list[int]):
    """What a parser made of a body."""


class RefusingDecoder:
    """Refuses what it has parsed, and remembers whether that is still in memory."""

    parsed: "weakref.ref[Values]"

    def is_light(self, payload: Payload) -> bool:
        return not payload.body

    def decode(self, _: Payload) -> Decoded:
        values = Values()
        self.parsed = weakref.ref(values)
        try:
            return Decoded(np.array(values[0]))
        except IndexError as error:
            raise InputInvalid("body", "rows", "none") from error


async def test_refused_body_leaves_nothing_for_a_collection_to_find() -> None:
    pool = DecoderPool(threads=1, max_requests=1, budget=ByteBudget(1000))
    decoder = RefusingDecoder()
    gc.disable()

    try:
        with pytest.raises(InputInvalid):
            await pool.decode(decoder, payload(), soon())
        wait_for(lambda: decoder.parsed() is None)
    finally:
        gc.enable()
        pool.close()


HANGING = """
import asyncio, time
from service.errors import DeadlineExceeded
from service.inputs import Payload
from service.prediction import DecoderPool

class Hanging:
    def is_light(self, payload): return False
    def decode(self, payload): time.sleep(3600)

async def main():
    pool = DecoderPool(threads=1, max_requests=1)
    try:
        await pool.decode(Hanging(), Payload(b"x", "text/plain"), time.monotonic() + 0.05)
    except DeadlineExceeded:
        pool.close()
        print("late")

asyncio.run(main())
"""


def test_picture_that_is_never_done_does_not_keep_the_process_from_ending() -> None:
    done = subprocess.run(  # noqa: S603  our own program
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == "late\n"

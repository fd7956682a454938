import asyncio
import gc
import sys
import threading
import weakref

import numpy as np
import pytest
from services import until

from service.batching.threads import CallHangs, RunThread, TimedThread

pytestmark = pytest.mark.anyio


async def test_calls_are_made_one_after_another_in_one_thread() -> None:
    thread = RunThread("fruit")
    calls = [thread.run(threading.current_thread) for _ in range(3)]

    (made_in,) = set(await asyncio.gather(*calls))
    thread.stop()

    assert made_in.name == "dunno-fruit"
    assert made_in is not threading.current_thread()


async def test_what_a_call_raises_is_for_whoever_awaits_it() -> None:
    thread = RunThread("fruit")

    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 7) == 7
    thread.stop()


async def test_call_that_is_given_up_tells_nobody() -> None:
    thread = RunThread("fruit")
    gate = threading.Event()
    call = thread.run(gate.wait)
    call.cancel()
    gate.set()

    assert await thread.run(lambda: 7) == 7
    thread.stop()


async def test_thread_ends_when_it_is_told_to() -> None:
    thread = RunThread("fruit")
    made_in = await thread.run(threading.current_thread)

    thread.stop()
    await asyncio.to_thread(made_in.join, 5)

    assert not made_in.is_alive()


async def test_nothing_is_kept_between_calls() -> None:
    thread = RunThread("fruit")
    rows = np.zeros(4)
    kept = weakref.ref(rows)
    await thread.run(rows.sum)
    del rows
    await thread.run(lambda: None)

    gc.collect()
    assert kept() is None
    thread.stop()


async def test_calls_behind_one_that_hangs_are_made_in_another_thread() -> None:
    thread = TimedThread("fruit", limit_s=0.05, most_hung=2)
    gate = threading.Event()
    hanging = asyncio.ensure_future(thread.run(gate.wait))
    others = [asyncio.ensure_future(thread.run(lambda: 7)) for _ in range(5)]

    with pytest.raises(CallHangs) as hang:
        await hanging
    assert await asyncio.gather(*others) == [7] * 5
    assert not thread.is_lost

    gate.set()
    assert hang.value.future is not None
    assert await hang.value.future
    thread.stop()


async def test_no_call_is_made_while_too_many_hang_and_again_afterwards() -> None:
    thread = TimedThread("fruit", limit_s=0.01, most_hung=2)
    gate = threading.Event()
    for _ in range(2):
        with pytest.raises(CallHangs, match="did not end within"):
            await thread.run(gate.wait)

    assert thread.is_lost
    with pytest.raises(CallHangs, match="restart the server"):
        await thread.run(lambda: 7)

    gate.set()
    await until(lambda: not thread.is_lost)
    assert await thread.run(lambda: 7) == 7
    thread.stop()


HANGS = """
import asyncio, threading
from service.batching.threads import RunThread

async def main():
    RunThread("fruit").run(threading.Event().wait)
    await asyncio.sleep(0.05)

asyncio.run(main())
"""


async def test_thread_that_hangs_does_not_keep_the_process_from_ending() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGS)
    async with asyncio.timeout(20):
        assert await process.wait() == 0

import json
import signal
import subprocess
import sys
import time

import pytest

from service.telemetry.heartbeat import PERIOD_S, STALLED

PATIENCE_S = 20.0
PROGRAM = """
import asyncio, time
from prometheus_client import CollectorRegistry
from service.telemetry.heartbeat import Heartbeat
from service.telemetry.logs import configure_logs
from service.telemetry.series import Histogram

configure_logs("info")

async def main():
    lag = Histogram("lag", "Of it.", buckets=(0.1,), registry=CollectorRegistry())
    heartbeat = Heartbeat(lag, {stall_s})
    heartbeat.start()
    await asyncio.sleep(0.01)
    print("begun", flush=True)
    {work}
    heartbeat.stop()

asyncio.run(main())
"""


def beating(stall_s: float, work: str) -> "subprocess.Popen[str]":
    program = PROGRAM.format(stall_s=stall_s, work=work)
    process = subprocess.Popen(  # noqa: S603  our own command
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_process_whose_event_loop_stands_still_ends_and_tells_where_it_stood() -> None:
    with beating(2 * PERIOD_S, "time.sleep(60)") as process:
        _, told = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == STALLED
    (stack,) = [text for name, text in stacks(told).items() if name == "MainThread"]
    assert 'File "<string>"' in stack[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_heartbeat_that_stops_leaves_no_file_open() -> None:
    count = "len(__import__('os').listdir('/proc/self/fd'))"
    again = "for _ in range(5):\n        heartbeat.start(); heartbeat.stop()"
    with beating(60, f"before = {count}\n    {again}\n    assert {count} <= before") as process:
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("is_log_read", [True, False])
def test_process_whose_interpreter_stays_locked_ends_and_tells_where_it_stood(
    *, is_log_read: bool
) -> None:
    """One match of `re` holds the interpreter: no thread of Python gets to run."""
    fill = "import os; os.set_blocking(2, False)\n    try:\n        while os.write(2, b'x'): pass\n"
    fill += "    except BlockingIOError: os.set_blocking(2, True)\n    "
    lock = "import re; re.match(r'(?:a|a)+b', 'a' * 60)"
    with beating(2 * PERIOD_S, lock if is_log_read else fill + lock) as process:
        assert process.wait(PATIENCE_S) == -signal.SIGPROF
        assert process.stderr is not None
        assert not is_log_read or 'File "<string>"' in process.stderr.read()


def stacks(told: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(told)["stacks"]
    return found


@pytest.mark.slow
def test_process_whose_event_loop_stands_still_ends_although_nobody_reads_its_log() -> None:
    fill = "import os; os.set_blocking(2, False)\n    try:\n        while os.write(2, b'x'): pass\n"
    fill += "    except BlockingIOError: os.set_blocking(2, True)\n    time.sleep(60)"
    with beating(2 * PERIOD_S, fill) as process:
        assert process.wait(PATIENCE_S) == STALLED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stall_s", "work"),
    [
        pytest.param(2 * PERIOD_S, f"await asyncio.sleep({4 * PERIOD_S})", id="it turns"),
        pytest.param(0, f"time.sleep({4 * PERIOD_S})", id="nobody looks"),
    ],
)
def test_process_lives_on_otherwise(stall_s: float, work: str) -> None:
    with beating(stall_s, work) as process:
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_process_that_was_stopped_as_a_whole_lives_on() -> None:
    with beating(2 * PERIOD_S, f"await asyncio.sleep({PERIOD_S})") as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(4 * PERIOD_S)
        process.send_signal(signal.SIGCONT)

        assert process.wait(PATIENCE_S) == 0

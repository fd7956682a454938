"""More than the server can do: how much is still done in time, and how late is what is answered?

Callers of an open loop do not wait for each other: requests come at random moments at a given rate,
whether or not the server keeps up. First a closed loop finds the saturation of one worker, its peak
rate and its 99th percentile there; then requests with a deadline of `--patience` times that come at
multiples of the peak. Server and callers have a core each. With `--neighbour` another process keeps
the server's core busy once the peak is known. The last column compares with what the server could
do in the share of the core that it got.

    python load_tests/open_loop.py --model fashion_mnist --loads 1,2,3
"""

import argparse
import asyncio
import collections
import contextlib
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from many_callers import JSON, Question, questions, serving

from service.bench.load import count
from service.bench.request import Request, build_request
from service.bench.response import AnswerBroken, AnswerReader

SATURATING = (32, 64, 128)
"""Connections of the closed loop; the best tells the peak, the middle one the percentile."""

MOST_CONNECTIONS = 2000
TICK_S = 0.001


@dataclass
class Tally:
    """What callers got, by status; 0: the connection ended or could not be made."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)
    """From the moment a request was due to its answer, of those that were answered."""


class Caller(asyncio.Protocol):
    """A connection that asks when it is told to and then is free for the next one."""

    def __init__(self, content: bytes, tally: Tally, free: "list[Caller]") -> None:
        self._content = content
        self._tally = tally
        self._free = free
        self._reader = AnswerReader()
        self._due_s = 0.0
        self._is_waiting = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to the server."""
        self._transport = transport

    def ask(self, due_s: float) -> None:
        """Send a request that was due at that time."""
        self._due_s, self._is_waiting = due_s, True
        self._reader.start()
        self._transport.write(self._content)

    def data_received(self, data: bytes) -> None:
        """Count an answer once it is complete."""
        try:
            is_complete = self._reader.feed(data)
        except AnswerBroken:
            self._transport.abort()
            return
        if is_complete:
            self._is_waiting = False
            self._tally.statuses[self._reader.status] += 1
            if self._reader.status == 200:
                self._tally.seconds.append(time.perf_counter() - self._due_s)
            if self._reader.is_kept_alive:
                self._free.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Count what was not answered."""
        if self._is_waiting:
            self._tally.statuses[0] += 1
        elif self in self._free:
            self._free.remove(self)


class OpenLoop:
    """Requests at random moments, at a given mean rate."""

    def __init__(self, request: Request, rate: float) -> None:
        self._request = request
        self._rate = rate
        self._rng = random.Random(7)
        self._free: list[Caller] = []
        self._connections = 0
        self._asking: set[asyncio.Task[None]] = set()
        self.tally = Tally()

    async def run(self, seconds: float) -> None:
        """Ask for so long, then wait for what is on its way."""
        due_s = began_s = time.perf_counter()
        while due_s < began_s + seconds:
            while due_s <= time.perf_counter():
                self._ask(due_s)
                due_s += self._rng.expovariate(self._rate)
            await asyncio.sleep(TICK_S)
        await asyncio.sleep(2)

    def _ask(self, due_s: float) -> None:
        if self._free:
            self._free.pop().ask(due_s)
        elif self._connections < MOST_CONNECTIONS:
            self._connections += 1
            task = asyncio.get_running_loop().create_task(self._connect(due_s))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        else:
            self.tally.statuses[0] += 1

    async def _connect(self, due_s: float) -> None:
        caller = partial(Caller, self._request.content, self.tally, self._free)
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(caller, self._request.host, self._request.port)
        except OSError:
            self.tally.statuses[0] += 1
            self._connections -= 1
            return
        made.ask(due_s)


def p99_of(seconds: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(seconds, n=100)[98] if len(seconds) > 1 else float("nan")


def saturation(request: Request, seconds: float) -> tuple[float, float]:
    """Return the peak rate of answers, and the 99th percentile of the seconds they take there."""
    peaks, percentiles = [], []
    for connections in SATURATING:
        tally = count(request, connections, 1.0, seconds)
        peaks.append(len(tally.seconds) / tally.elapsed_s)
        percentiles.append(p99_of(list(tally.seconds)))
    return max(peaks), percentiles[len(SATURATING) // 2]


def request_of(address: str, question: Question, deadline_ms: float | None) -> Request:
    """Return the question as bytes."""
    query = "" if deadline_ms is None else f"?deadline_ms={deadline_ms:.1f}"
    url = f"{address}/predict/{question.model}{query}"
    return build_request(url, question.body, JSON["content-type"])


@contextlib.contextmanager
def neighbour(core: int) -> Iterator[None]:
    """Keep a core busy for the time of a block."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        os.sched_setaffinity(process.pid, {core})
        try:
            yield
        finally:
            process.kill()


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Find the saturation, pass it, and tell whether the thresholds were kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="fashion_mnist")
    parser.add_argument("--loads", default="1,2,3", help="multiples of the peak")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--patience", type=float, default=1.5, help="deadline in such percentiles")
    parser.add_argument("--neighbour", action="store_true", help="keep the server's core busy")
    parser.add_argument("--least-goodput", type=float, default=0.0, help="of the peak, or exit 1")
    parser.add_argument("--most-late", type=float, default=math.inf, help="p99 of that, or exit 1")
    options = parser.parse_args()
    *_, question = (each for each in questions(options.models) if each.model == options.model)
    is_kept = True
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])  # the server inherits it
    with serving(options.models) as (process, address), contextlib.ExitStack() as stack:
        os.sched_setaffinity(0, cores[1:] or cores)
        peak, p99_s = saturation(request_of(address, question, None), options.seconds)
        print(f"saturation: {peak:,.0f} requests/s, p99 {p99_s * 1000:.1f} ms")
        request = request_of(address, question, options.patience * p99_s * 1000)
        if options.neighbour:
            stack.enter_context(neighbour(cores[0]))
        print(
            "| load | answered/s | of the peak | p99 | of that at saturation | statuses | "
            "of the peak, by CPU |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for load in map(float, options.loads.split(",")):
            loop = OpenLoop(request, load * peak)
            before_s = cpu_s(process.pid)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(loop.run(options.seconds))
            tally = loop.tally
            share = min(1.0, (cpu_s(process.pid) - before_s) / options.seconds)
            goodput = tally.statuses[200] / options.seconds
            late_s = p99_of(tally.seconds)
            print(
                f"| {load:g} | {goodput:,.0f} | {goodput / peak:.2f} | {late_s * 1000:.1f} ms | "
                f"{late_s / p99_s:.2f} | {dict(sorted(tally.statuses.items()))} | "
                f"{goodput / peak / share:.2f} |"
            )
            is_kept = is_kept and goodput >= options.least_goodput * min(load, 1) * peak
            is_kept = is_kept and late_s <= options.most_late * p99_s
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())

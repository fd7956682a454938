"""The saturation curve: throughput and latency by number of connections, and its knee."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from service.bench.failures import BenchFailed
from service.bench.load import Tally, count
from service.bench.request import Request, check_request

KNEE_SHARE = 0.95
"""Share of the best throughput that the knee has."""

BUSY_SHARE = 0.9
"""A client that computed for this share of the time was too slow for the server."""

MAX_WARM_UP_S = 1.0

Shares: TypeAlias = Sequence[int]
CountAll: TypeAlias = Callable[[Request, Shares, float, float], list[Tally]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    connections: tuple[int, ...]
    """Numbers of connections, one step each."""

    seconds: float
    """What is counted of each step; a third of it, at most `MAX_WARM_UP_S`, goes before."""

    processes: int = 1
    """Client processes that share the connections."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one number of connections brought; only 2xx answers count as answers."""

    connections: int
    requests_per_s: float
    p50_s: float
    """Percentiles of seconds from request to complete answer; NaN without an answer."""

    p90_s: float
    p99_s: float
    answers: int
    failures_by_status: dict[int, int]
    broken_connections: int
    client_share: float
    """Share of the time that the busiest client process computed, 0 to 1 or a little more."""

    @property
    def errors(self) -> int:
        """Answers other than 2xx, and connections that broke."""
        return sum(self.failures_by_status.values()) + self.broken_connections

    @property
    def is_limited_by_client(self) -> bool:
        """Whether a client process used up its core, so that the numbers are its own."""
        return self.client_share >= BUSY_SHARE


def measure_curve(request: Request, plan: Plan) -> Iterator[Step]:
    """Yield a step for each number of connections, in order, as they are measured.

    Raises:
        BenchFailed: if the server cannot be reached, refuses the request, or has given no 2xx
            answer by the end.
    """
    check_request(request)
    answers = errors = 0
    with _clients(plan.processes) as count_all:
        for connections in plan.connections:
            shares = _shares(connections, plan.processes)
            warm_up_s = min(MAX_WARM_UP_S, plan.seconds / 3)
            tallies = count_all(request, shares, warm_up_s, plan.seconds)
            step = summary(connections, tallies)
            answers, errors = answers + step.answers, errors + step.errors
            yield step
    if not answers:
        raise BenchFailed(f"{request.url}: no 2xx answer under load, and {errors} errors")


def summary(connections: int, tallies: Sequence[Tally]) -> Step:
    """Return the step that these processes measured together, at the same time."""
    seconds = np.concatenate([np.asarray(tally.seconds) for tally in tallies])
    statuses = sum((tally.statuses for tally in tallies), Counter[int]())
    quantiles = np.quantile(seconds, [0.5, 0.9, 0.99]) if len(seconds) else np.full(3, np.nan)
    p50_s, p90_s, p99_s = quantiles.tolist()
    return Step(
        connections=connections,
        requests_per_s=sum(len(tally.seconds) / tally.elapsed_s for tally in tallies),
        p50_s=p50_s,
        p90_s=p90_s,
        p99_s=p99_s,
        answers=len(seconds),
        failures_by_status={
            status: number for status, number in sorted(statuses.items()) if not 200 <= status < 300
        },
        broken_connections=sum(tally.broken for tally in tallies),
        client_share=max(tally.cpu_s / tally.elapsed_s for tally in tallies),
    )


def knee(steps: Sequence[Step]) -> Step:
    """Return the step of the fewest connections with `KNEE_SHARE` of the best throughput."""
    enough = KNEE_SHARE * max(step.requests_per_s for step in steps)
    return min(
        (step for step in steps if step.requests_per_s >= enough),
        key=lambda step: step.connections,
    )


def _shares(connections: int, processes: int) -> Shares:
    each, more = divmod(connections, processes)
    shares = [each + (number < more) for number in range(processes)]
    return [share for share in shares if share]


@contextmanager
def _clients(processes: int) -> Iterator[CountAll]:
    """Yield what counts in so many processes at the same time."""
    if processes == 1:
        yield lambda request, shares, *times: [count(request, shares[0], *times)]
        return
    context = multiprocessing.get_context("spawn")  # a copy of threads is no thread
    # Nobody begins before everybody is there: counts at other times do not add up.
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, initializer=barrier.wait) as pool:
        wait([pool.submit(os.getpid) for _ in range(processes)])  # each starts a process

        def count_all(
            request: Request, shares: Shares, warm_up_s: float, seconds: float
        ) -> list[Tally]:
            counts = [pool.submit(count, request, share, warm_up_s, seconds) for share in shares]
            return [each.result() for each in counts]

        yield count_all

"""Rows of many callers -> one run -> each caller's own part of the outputs.

Order: jobs run in the order they came. A job that does not fit into a batch begins the next one,
and nobody overtakes it.

One batch in flight: a second one would share the same cores and only make the first one later.
While it runs, whatever arrives is the next batch, so that load makes batches and no timer does;
an idle server runs a lone row at once. `max_wait_s` can be set for runtimes where a larger batch
costs hardly more than a small one.

A caller that leaves: the future belongs to the job. Cancelling it takes the job out of the queue,
with its rows, and touches nobody else. If its batch is already running, its part of the outputs is
dropped and counted as waste.

A run that fails: the batch is split once, each job runs alone, and only the culprit gets the
failure. Rows were validated before they came here, so that this is rare; it is not worth bisecting.

Everything but the run itself happens on the event loop, so that no lock is needed. The run gets one
thread of its own, because NumPy and the runtimes let go of the interpreter while they compute.

Considered and not done: splitting a job over two batches (the predictor cuts large requests, so
that small ones get a turn in between); a timer that closes batches (its wait is paid by everybody
at low load, which is when latency is looked at).
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.batching.limits import BatchLimits, Cause
from service.errors import DeadlineExceeded, Draining, QueueFull, RunFailed
from service.telemetry.metrics import ModelMetrics

log = logging.getLogger(__name__)


class Divisible(Protocol):
    """Outputs of a batch, of which each job gets its rows."""

    def part(self, start: int, stop: int) -> Self:
        """Return the outputs of the rows `start` to `stop`."""
        ...


Outputs = TypeVar("Outputs", bound=Divisible)


class Delivery(NamedTuple, Generic[Outputs]):
    """What a job gets, and how long it took."""

    outputs: Outputs
    queue_s: float
    run_s: float


@dataclass(eq=False, slots=True)
class _Job(Generic[Outputs]):
    rows: NDArray[np.generic]
    deadline_s: float
    arrived_s: float
    future: "asyncio.Future[Delivery[Outputs]]"


@dataclass(frozen=True, slots=True)
class Statistics:
    """A look at the batcher, for tests and metrics."""

    waiting_rows: int
    running_rows: int


class Batcher(Generic[Outputs]):
    """Queue, loop and one batch in flight for one runtime; nothing is lost and nobody mixed up."""

    def __init__(
        self,
        name: str,
        run: Callable[[NDArray[np.generic]], Outputs],
        limits: BatchLimits,
        metrics: ModelMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._run = run
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        # Ordered, and a job can leave it anywhere.
        self._waiting: OrderedDict[_Job[Outputs], None] = OrderedDict()
        self._waiting_rows = 0
        self._running_rows = 0
        self._arrival = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dunno-run")
        self._loop_task: asyncio.Task[None] | None = None
        metrics.queue_capacity_rows.set(limits.max_queue_rows)

    def start(self) -> None:
        """Begin to run batches, on the running event loop."""
        self._loop_task = asyncio.get_running_loop().create_task(self._run_batches())
        self._loop_task.add_done_callback(self._note_end)

    @property
    def is_running(self) -> bool:
        """Whether jobs are taken and run."""
        return self._loop_task is not None and not self._loop_task.done() and not self._is_draining

    def statistics(self) -> Statistics:
        """Return how many rows wait and run."""
        return Statistics(self._waiting_rows, self._running_rows)

    async def submit(self, rows: NDArray[np.generic], deadline_s: float) -> Delivery[Outputs]:
        """Return the outputs of `rows`, computed together with other callers' rows.

        Args:
            rows: shape (rows, *input), already validated; never split over two batches.
            deadline_s: `time.monotonic()` after which the answer is worthless.

        Raises:
            QueueFull: at once, if the queue has no room for `rows`.
            Draining: at once, if the batcher is closing.
            DeadlineExceeded: if there was no answer at `deadline_s`.
            RunFailed: if the run failed for these very rows.
        """
        job = self._enqueue(rows, deadline_s)
        timer = asyncio.get_running_loop().call_later(
            max(0.0, deadline_s - job.arrived_s), self._expire, job
        )
        try:
            return await job.future
        finally:
            timer.cancel()
            self._dequeue(job)

    async def close(self, timeout_s: float) -> None:
        """Refuse new jobs, finish those that wait, and stop.

        Args:
            timeout_s: after which jobs still waiting are told that the server is stopping.
        """
        self._is_draining = True
        self._arrival.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            waiting = {"model": self._name, "waiting_rows": self._waiting_rows}
            log.warning("drain timed out", extra=waiting)
        self._fail_waiting(Draining("the server is stopping"))
        if self._loop_task is not None:
            self._loop_task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        """The loop ends when it is cancelled; if it ends otherwise, nobody may wait for it."""
        if task.cancelled():
            return
        self._is_draining = True  # not ready, and nothing new is taken
        log.critical("batches stopped", exc_info=task.exception(), extra={"model": self._name})
        self._fail_waiting(RunFailed("the model stopped working"))

    def _fail_waiting(self, error: Exception) -> None:
        for job in self._waiting:
            _fail(job, error)

    def _enqueue(self, rows: NDArray[np.generic], deadline_s: float) -> _Job[Outputs]:
        if self._is_draining:
            self._metrics.rejections["draining"].inc()
            raise Draining("the server is stopping")
        if self._waiting_rows + len(rows) > self._limits.max_queue_rows:
            self._metrics.rejections["queue_full"].inc()
            raise QueueFull(
                f"{self._waiting_rows} rows are waiting; "
                f"there is no room for {len(rows)} more (cap {self._limits.max_queue_rows})"
            )
        future: asyncio.Future[Delivery[Outputs]] = asyncio.get_running_loop().create_future()
        job = _Job(rows, deadline_s, self._clock(), future)
        self._waiting[job] = None
        self._count_waiting(len(rows))
        self._arrival.set()
        self._idle.clear()
        return job

    def _dequeue(self, job: _Job[Outputs]) -> None:
        if job in self._waiting:
            del self._waiting[job]
            self._count_waiting(-len(job.rows))

    def _count_waiting(self, rows: int) -> None:
        self._waiting_rows += rows
        self._metrics.queue_rows.inc(rows)  # shared by the versions of a name

    def _expire(self, job: _Job[Outputs]) -> None:
        stage = "waiting" if job in self._waiting else "running"
        _fail(job, DeadlineExceeded(f"the deadline passed while the rows were {stage}"))

    async def _run_batches(self) -> None:
        while True:
            while not self._waiting:
                self._idle.set()
                self._arrival.clear()
                await self._arrival.wait()
            cause = await self._wait_for_company()
            jobs = self._take()
            if jobs:
                await self._run_jobs(jobs, cause)

    async def _wait_for_company(self) -> Cause:
        while self._waiting:
            now_s = self._clock()
            waited_s = now_s - next(iter(self._waiting)).arrived_s
            until_deadline_s = self._first_deadline_s() - now_s
            cause = self._limits.cause(
                self._waiting_rows, waited_s, until_deadline_s, is_draining=self._is_draining
            )
            if cause is not None:
                return cause
            self._arrival.clear()
            try:
                async with asyncio.timeout(self._limits.patience_s(waited_s, until_deadline_s)):
                    await self._arrival.wait()
            except TimeoutError:
                continue
        return "idle"

    def _first_deadline_s(self) -> float:
        if self._limits.max_wait_s == 0:
            return math.inf  # nobody waits for company: nobody asks
        return min(job.deadline_s for job in self._waiting)

    def _take(self) -> list[_Job[Outputs]]:
        jobs: list[_Job[Outputs]] = []
        rows = 0
        now_s = self._clock()
        while self._waiting:
            job = next(iter(self._waiting))
            if jobs and rows + len(job.rows) > self._limits.max_rows:
                break
            self._dequeue(job)
            if job.deadline_s <= now_s:
                _fail(job, DeadlineExceeded("the deadline passed while the rows were waiting"))
            elif not job.future.done():
                jobs.append(job)
                rows += len(job.rows)
        return jobs

    async def _run_jobs(self, jobs: list[_Job[Outputs]], cause: Cause) -> None:
        try:
            await self._run_together(jobs, cause)
        except asyncio.CancelledError:
            for job in jobs:
                _fail(job, Draining("the server is stopping"))
            raise
        finally:
            self._running_rows = 0

    async def _run_together(self, jobs: list[_Job[Outputs]], cause: Cause) -> None:
        started_s = self._clock()
        try:
            outputs = await self._run_in_thread(self._batch(jobs, cause, started_s))
            self._deliver(jobs, outputs, started_s)
        except Exception as error:  # noqa: BLE001  whatever a runtime raises is the run's failure
            await self._run_one_by_one(jobs, error)

    def _batch(
        self, jobs: list[_Job[Outputs]], cause: Cause, started_s: float
    ) -> NDArray[np.generic]:
        rows = np.concatenate([job.rows for job in jobs]) if len(jobs) > 1 else jobs[0].rows
        run_rows = self._limits.run_rows(len(rows))
        self._running_rows = len(rows)
        self._metrics.count_batch(
            len(rows), run_rows - len(rows), cause, started_s - jobs[0].arrived_s
        )
        return _padded(rows, run_rows)

    async def _run_in_thread(self, rows: NDArray[np.generic]) -> Outputs:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, rows)

    async def _run_one_by_one(self, jobs: list[_Job[Outputs]], error: Exception) -> None:
        if len(jobs) == 1:
            log.error("run failed", exc_info=error, extra={"model": self._name})
            _fail(jobs[0], RunFailed("the model failed on these rows"))
            return
        failed = {"model": self._name, "jobs": len(jobs)}
        log.warning("batch failed; running its jobs one by one", extra=failed)
        for job in jobs:
            started_s = self._clock()
            try:
                outputs = await self._run_in_thread(job.rows)
                self._deliver([job], outputs, started_s)
            except Exception as own_error:  # noqa: BLE001  see _run_together
                await self._run_one_by_one([job], own_error)

    def _deliver(self, jobs: list[_Job[Outputs]], outputs: Outputs, started_s: float) -> None:
        run_s = self._clock() - started_s
        self._metrics.count_success(time.time())
        start = 0
        for job in jobs:
            stop = start + len(job.rows)
            if not job.future.done():
                queue_s = started_s - job.arrived_s
                job.future.set_result(Delivery(outputs.part(start, stop), queue_s, run_s))
            else:
                cause = "cancelled" if job.future.cancelled() else "expired"
                self._metrics.count_waste(len(job.rows), cause)
            start = stop


def _padded(rows: NDArray[np.generic], length: int) -> NDArray[np.generic]:
    """Repeat the first row: unlike zeros, it is input that the model knows how to run."""
    if length == len(rows):
        return rows
    return np.concatenate([rows, np.repeat(rows[:1], length - len(rows), axis=0)])


def _fail(job: "_Job[Outputs]", error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)

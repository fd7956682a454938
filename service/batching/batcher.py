"""Rows of many callers -> one run -> each caller's own part of the outputs.

Order: `service.batching.waiting` tells who is next.

One batch in flight for each instance of the runtime, and one instance unless the operator asks for
more: a second batch would share the same cores and only make the first one later. While it runs,
whatever arrives is the next batch, so that load makes batches and no timer does; an idle server
runs a lone row at once. `max_wait_s` can be set for runtimes where a larger batch costs hardly more
than a small one.

A caller that leaves: the future belongs to the job. Cancelling it takes the job out of the queue,
with its rows, and touches nobody else. If its batch is already running, its part of the outputs is
dropped and counted as waste.

A run that fails: the batch is split once, each job runs alone, and only the culprit gets the
failure. Rows were validated before they came here, so that this is rare; it is not worth bisecting.
Then the instance is looked at: one that does not give the golden outputs any more is lost.

An instance that is lost, or does not come back from a run in its thread, is built anew in a thread
while the others go on; its jobs are told at once. Without any the model takes no rows. A run that
hangs on the event loop is for `service.telemetry.heartbeat`.

A job whose deadline would pass before its turn is refused when it comes, by how quickly the queue
has been shrinking and with a margin (`Pace`): work on it would be wasted, and the caller can still
go elsewhere.

Everything but the run itself happens on the event loop, so that no lock is needed. A quick run
happens there as well: a hop to a thread and back would cost more than the run. After each batch
others have a turn, so that busy models share the loop batch by batch. A slow run gets a thread of
its instance's own, because NumPy and the runtimes let go of the interpreter while they compute.

A job of more rows than a batch runs in the thread, batch by batch, before others have a turn: the
predictor cuts large requests into such jobs of some 15 ms.

Considered and not done: splitting a job over two batches; a timer that closes batches (its wait is
paid by everybody at low load, which is when latency is looked at).
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.batching.cost import Pace, RunCost
from service.batching.limits import BatchLimits, Cause
from service.batching.threads import RunThread
from service.batching.waiting import Job, Lane, Receiver, WaitingJobs
from service.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    Draining,
    NotReady,
    QueueFull,
    RunFailed,
)
from service.telemetry.metrics import ModelMetrics
from service.telemetry.tracing import CURRENT

CHECK_EVERY_S = 1.0
"""Between two looks at instances that were found well: rows that fail shall not cost much."""

LEAST_PART = 4
"""However short the timeouts are, a batch may have a fourth of the maximum rows."""

PATIENT_S, PATIENCE_WEIGHT = 3600.0, 0.05
"""Longest timeout that is counted, and the weight of each new request in the moving average."""

BULK_PART = 16
"""One part of a large request takes at most a sixteenth of the queue, so that others find room."""

_LOST = "the model has stopped working and is being loaded anew"

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Between attempts to build an instance anew."""

log = logging.getLogger(__name__)


class Divisible(Protocol):
    """Outputs of a batch, one element a row, of which each job gets its slice."""

    def __getitem__(self, rows: slice, /) -> Self:
        """Return the outputs of these rows."""
        ...


class Care(Protocol):
    """Looks after the instances of a runtime; called in their threads."""

    def check_instance(self, number: int) -> None:
        """Raise if the instance does not give the golden outputs."""
        ...

    def rebuild_instance(self, number: int) -> None:
        """Put a new one in its place; raise if that cannot be done."""
        ...


Outputs = TypeVar("Outputs", bound=Divisible)
Run = Callable[[NDArray[np.generic]], Outputs]
"""Runs a batch on one instance of a runtime."""


class Delivery(NamedTuple, Generic[Outputs]):
    """What a job gets, and how long it took."""

    outputs: Outputs
    queue_s: float
    run_s: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """A look at the batcher, for tests and metrics."""

    waiting_rows: int
    running_rows: int


class Batcher(Generic[Outputs]):
    """Queue and batches in flight for one runtime; nothing is lost and nobody mixed up.

    Instances are known by their numbers.

    Idle, it does nothing. An arrival makes it look at the queue on the next turn of the event loop,
    when everything that arrived with it is there; so does the end of a run.
    """

    def __init__(  # noqa: PLR0913  two of them are for tests, or are not there
        self,
        name: str,
        runs: Sequence[Run[Outputs]],
        limits: BatchLimits,
        metrics: ModelMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        care: Care | None = None,
    ) -> None:
        """Make an idle one.

        Args:
            name: of the model, for logs.
            runs: one for each instance of the runtime; each is called once at a time. Rows of a
                job that is larger than a batch it has to run batch by batch.
            limits: what closes a batch.
            metrics: of the model.
            clock: of deadlines, seconds.
            care: looks after the instances; without it none is ever lost.
        """
        self._name = name
        self._runs = list(runs)
        # Instances that are free, and what the others run; those in neither are being built anew.
        self._free = list(range(len(runs)))
        self._running: dict[int, list[Job]] = {}
        self._running_batches: dict[int, int] = {}
        self._care = care
        self._checked_s = -math.inf
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._waiting = WaitingJobs(metrics.queue_rows)
        self._next_look: asyncio.Handle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._threads = [RunThread(f"run-{name}") for _ in runs]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.cost = RunCost()
        self.pace = Pace()
        self._has_missed = False
        self._patience_s = 0.0  # no request yet
        for capacity in metrics.queue_capacity_rows.values():
            capacity.set(limits.max_queue_rows)

    def start(self) -> None:
        """Begin to run batches, on the running event loop."""
        self._metrics.batch_limit_rows.set_function(lambda: self._most_rows)
        self._metrics.batch_latency_goal.set_function(lambda: self.cost.goal_s)
        self._loop = asyncio.get_running_loop()
        self._look_soon()

    @property
    def is_running(self) -> bool:
        """Whether jobs are taken and run."""
        return self._loop is not None and not self._is_draining and self._has_instances

    @property
    def _has_instances(self) -> bool:
        return bool(self._free or self._running)

    def statistics(self) -> Statistics:
        """Return how many rows wait and run."""
        return Statistics(self._waiting.rows, sum(map(_rows_of, self._running.values())))

    async def submit(
        self, rows: NDArray[np.generic], deadline_s: float, lane: Lane = "interactive"
    ) -> Delivery[Outputs]:
        """Return the outputs of `rows`, computed together with other callers' rows.

        Args:
            rows: shape (rows, *input), already validated; never split over two batches.
            deadline_s: `time.monotonic()` after which the answer is worthless.
            lane: where to wait.

        Raises:
            CapacityError: at once, as `enqueue` does.
            DeadlineExceeded: if there was no answer at `deadline_s`.
            RunFailed: if the run failed for these very rows.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Delivery[Outputs]] = loop.create_future()
        job = self.enqueue(rows, deadline_s, future, lane)
        timer = loop.call_later(max(0.0, deadline_s - job.arrived_s), self.expire, job)
        try:
            return await future
        finally:
            timer.cancel()
            self.withdraw(job)

    def enqueue(
        self,
        rows: NDArray[np.generic],
        deadline_s: float,
        receiver: Receiver,
        lane: Lane = "interactive",
    ) -> Job:
        """Let `rows` wait for the next run; the same as `submit` for those who cannot await.

        The deadline is looked at before the run only.

        Raises:
            QueueFull: if the lane has no room for `rows`.
            DeadlineUnreachable: if those that wait already would take too long.
            NotReady: if the runtime is being built anew.
            Draining: if the batcher is closing.
        """
        now_s = self._clock()
        self.look_for_room(len(rows), deadline_s - now_s, lane)
        has_estimate = lane == "interactive" and self._waiting.rows_of("interactive") > 0
        job = Job(rows, deadline_s, now_s, receiver, lane, CURRENT.get(), has_estimate)
        if lane == "interactive":
            patience_s = min(PATIENT_S, deadline_s - now_s)
            weight = PATIENCE_WEIGHT if self._patience_s else 1
            self._patience_s += weight * (patience_s - self._patience_s)
        self._waiting.add(job)
        self._idle.clear()
        self._look_soon()
        return job

    def look_for_room(self, rows: int, patience_s: float, lane: Lane | None = None) -> None:
        """Raise, as `enqueue` does, if so many rows would be refused: before work on them is lost.

        Args:
            rows: how many.
            patience_s: in how many seconds their answer is worthless.
            lane: where they would wait; None: that is not known yet.
        """
        if self._is_draining:
            self._metrics.rejections["draining"].inc()
            raise Draining("the server is stopping")
        if self._waiting or not self._free:
            self._refuse_what_is_too_much(rows, patience_s, lane)

    def _refuse_what_is_too_much(self, rows: int, patience_s: float, lane: Lane | None) -> None:
        if not self._has_instances:
            self._metrics.rejections["not_ready"].inc()
            raise NotReady(_LOST)
        waiting_rows = self._waiting.rows_of(lane) if lane else self._waiting.least_rows
        room = self._limits.max_queue_rows - waiting_rows
        if rows > room:
            self._metrics.rejections["queue_full"].inc()
            message = f"{waiting_rows} rows are waiting; there is no room for {rows} more"
            cap = f"(cap {self._limits.max_queue_rows})"
            raise QueueFull(f"{message} {cap}", self.pace.seconds(self._batches(rows - room)))
        # Interactive rows are taken first, so that bulk rows wait for them as well.
        ahead = self._waiting.rows if lane == "bulk" else self._waiting.rows_of("interactive")
        batches = self._batches(ahead + rows) + sum(self._running_batches.values())
        wait_s = self.pace.careful_seconds(batches)
        # Where nobody waits one is let in, late or not: else a pace that was learnt in a bad
        # moment would never be learnt anew.
        if ahead and wait_s > patience_s:
            self._metrics.rejections["deadline_unreachable"].inc()
            raise DeadlineUnreachable(
                f"{ahead} rows wait already, and answers take {wait_s * 1000:.0f} ms; "
                f"the deadline leaves {max(0.0, patience_s) * 1000:.0f} ms",
                wait_s - patience_s,
            )

    def _batches(self, rows: int) -> int:
        return -(-rows // self._most_rows)

    def _runs_of(self, rows: int) -> int:
        """Return in how many runs the rows of one batch are run: one, unless it is a large job."""
        return -(-rows // self._limits.max_rows)

    @property
    def bulk_rows(self) -> int:
        """Rows of a large request that are best submitted as one job: whole batches."""
        most_rows = self._limits.max_rows
        room = self._limits.max_queue_rows // BULK_PART // most_rows
        return most_rows * max(1, min(room, self.cost.bulk_batches(most_rows)))

    def withdraw(self, job: Job) -> None:
        """Take a job out of the queue if it is there."""
        self._waiting.remove(job)

    def expire(self, job: Job) -> None:
        """Tell whoever waits for a job that its deadline has passed."""
        stage = "waiting" if job in self._waiting else "running"
        self._has_missed |= job.has_estimate and stage == "waiting"
        self.withdraw(job)
        _fail(job, DeadlineExceeded(f"the deadline passed while the rows were {stage}"))

    async def close(self, timeout_s: float) -> None:
        """Refuse new jobs, finish those that wait, and stop.

        Args:
            timeout_s: after which jobs still waiting are told that the server is stopping.
        """
        self._is_draining = True
        self._look_soon()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            waiting = {"model": self._name, "waiting_rows": self._waiting.rows}
            log.warning("drain timed out", extra=waiting)
        stopping = Draining("the server is stopping")
        self._fail_waiting(stopping)
        for jobs in self._running.values():
            for job in jobs:
                _fail(job, stopping)
        for task in self._tasks:
            task.cancel()
        for thread in self._threads:
            thread.stop()

    def _fail_waiting(self, error: Exception) -> None:
        for job in self._waiting.jobs():
            self.withdraw(job)
            _fail(job, error)

    def _look_soon(self) -> None:
        """Look at the queue on the next turn of the loop, unless a run's end will."""
        if not self._free or self._loop is None:
            return
        if self._next_look is not None:
            if not isinstance(self._next_look, asyncio.TimerHandle):
                return
            self._next_look.cancel()  # it waited for company, and that has come
        self._next_look = self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Run what waits, wait for company, or rest."""
        self._next_look = None
        try:
            while self._waiting and self._free:
                cause = self._cause()
                if cause is None:
                    return
                jobs = self._take()
                if jobs:
                    self._run_jobs(jobs, cause)
                    break  # others have a turn on the loop before the next batch
            if self._waiting:
                self._look_soon()
            elif not self._running:
                self._idle.set()
        except Exception as error:
            self._is_draining = True  # not ready, and nothing new is taken
            log.critical("batches stopped", exc_info=error, extra={"model": self._name})
            self._fail_waiting(RunFailed("the model stopped working"))
            self._idle.set()

    def _cause(self) -> Cause | None:
        """Return why the next batch closes now; None: it may wait, and will be looked at again."""
        now_s = self._clock()
        waited_s = now_s - self._waiting.oldest_s()
        until_deadline_s = self._first_deadline_s() - now_s
        cause = self._limits.cause(
            self._waiting.rows, waited_s, until_deadline_s, is_draining=self._is_draining
        )
        if cause is None and self._loop is not None:
            patience_s = self._limits.patience_s(waited_s, until_deadline_s)
            self._next_look = self._loop.call_later(patience_s, self._look)
        return cause

    def _first_deadline_s(self) -> float:
        if self._limits.max_wait_s == 0:
            return math.inf  # nobody waits for company: nobody asks
        return min(job.deadline_s for job in self._waiting.jobs())

    @property
    def _most_rows(self) -> int:
        """Most rows of the next run.

        A quick model must not block the event loop for long. Batches of a slow model are smaller if
        timeouts are short: otherwise a request that arrives during a run could not meet its own.
        """
        most_rows = self._limits.max_rows
        if self.cost.is_quick:
            return min(most_rows, self.cost.quick_rows)
        least_rows = -(-most_rows // LEAST_PART)
        patient_rows = self.cost.patient_rows(self._patience_s or PATIENT_S)
        return max(least_rows, int(min(most_rows, patient_rows)))

    def _take(self) -> list[Job]:
        jobs, late = self._waiting.take(self._most_rows, self._clock())
        for job in late:
            _fail(job, DeadlineExceeded("the deadline passed while the rows were waiting"))
            self._has_missed |= job.has_estimate
        self.pace.learn_deadlines(were_missed=self._has_missed)
        self._has_missed = False
        return jobs

    def _run_jobs(self, jobs: list[Job], cause: Cause) -> None:
        started_s = self._clock()
        rows = self._batch(jobs, cause, started_s)
        number = self._free.pop()
        self._running[number] = jobs
        self._running_batches[number] = self._runs_of(len(rows))
        if not self.cost.is_quick or any(job.lane == "bulk" for job in jobs):
            self._run_beside(number, rows, started_s)
            return
        try:
            self._deliver(jobs, self._runs[number](rows), started_s)
        except Exception as error:  # noqa: BLE001  whatever a runtime raises is the run's failure
            self._recover(number, error)
        else:
            self._release(number)

    def _run_beside(self, number: int, rows: NDArray[np.generic], started_s: float) -> None:
        """Run a batch in the thread of its instance, and give it up if it does not come back."""
        assert self._loop is not None  # noqa: S101  nothing runs before `start`
        running = self._threads[number].run(partial(self._runs[number], rows))
        timer = self._loop.call_later(self._limits.max_run_s, self._give_up, number, running)
        running.add_done_callback(partial(self._end_run, number, started_s, timer))

    def _end_run(
        self,
        number: int,
        started_s: float,
        timer: asyncio.TimerHandle,
        running: "asyncio.Future[Outputs]",
    ) -> None:
        """Deliver what a run in a thread returned, and look at the queue."""
        timer.cancel()
        if running.cancelled():  # given up
            return
        try:
            self._deliver(self._running[number], running.result(), started_s)
        except Exception as error:  # noqa: BLE001  see _run_jobs
            self._recover(number, error)
        else:
            self._release(number)
        self._look()

    def _give_up(self, number: int, running: "asyncio.Future[Outputs]") -> None:
        """Tell the jobs of a run that hangs, and leave its thread behind."""
        if not running.cancel():
            return  # it came back in the last moment
        for job in self._running[number]:
            _fail(job, self._hung())
        self._leave_behind(number)
        self._lose(number, "hung")

    def _hung(self) -> RunFailed:
        return RunFailed(f"the model did not answer within {self._limits.max_run_s:g} s")

    def _leave_behind(self, number: int) -> None:
        self._threads[number].stop()
        self._threads[number] = RunThread(f"run-{self._name}")

    def _release(self, number: int) -> None:
        del self._running[number], self._running_batches[number]
        self._free.append(number)

    def _lose(self, number: int, cause: str) -> None:
        """Do without an instance until there is another in its place."""
        facts = {"model": self._name, "instance": number}
        log.critical("instance lost", extra={**facts, "cause": cause})
        self._metrics.lost_instances[cause].inc()
        del self._running[number], self._running_batches[number]
        self._keep(self._rebuild(number, facts))
        if not self._has_instances:
            self._fail_waiting(NotReady(_LOST))
        self._look()

    async def _rebuild(self, number: int, facts: dict[str, object]) -> None:
        pause_s = FIRST_PAUSE_S
        while self._care is not None:
            try:
                await self._threads[number].run(partial(self._care.rebuild_instance, number))
                break
            except Exception as error:
                log.error("instance not rebuilt", exc_info=error, extra=facts)  # noqa: TRY400
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        log.warning("instance rebuilt", extra=facts)
        self._free.append(number)
        self._look_soon()

    async def _examine(self, number: int) -> None:
        """After a failure: let an instance go on if it gives the golden outputs, else lose it."""
        if self._care is None or self._clock() - self._checked_s < CHECK_EVERY_S:
            self._release(number)
            self._look()
            return
        check = self._threads[number].run(partial(self._care.check_instance, number))
        try:
            async with asyncio.timeout(self._limits.max_run_s):
                await check
        except TimeoutError:
            self._leave_behind(number)
            self._lose(number, "hung")
        except Exception as error:
            log.warning("instance is broken", exc_info=error, extra={"model": self._name})
            self._lose(number, "broken")
        else:
            self._checked_s = self._clock()
            self._release(number)
            self._look()

    def _batch(self, jobs: list[Job], cause: Cause, started_s: float) -> NDArray[np.generic]:
        rows = np.concatenate([job.rows for job in jobs]) if len(jobs) > 1 else jobs[0].rows
        run_rows = self._limits.run_rows(len(rows))
        wait_s = started_s - jobs[0].arrived_s
        for start in range(0, len(rows), self._limits.max_rows):
            size = min(self._limits.max_rows, len(rows) - start)
            padded_rows = run_rows - len(rows) if start + size == len(rows) else 0
            self._metrics.count_batch(size, padded_rows, cause, wait_s)
        return _padded(rows, run_rows)

    def _recover(self, number: int, error: Exception) -> None:
        """A run failed: fail its only job, or run each of its jobs alone, in the thread."""
        jobs = self._running[number]
        if len(jobs) == 1:
            self._fail_run(jobs[0], error)
            self._keep(self._examine(number))
            return
        failed = {"model": self._name, "jobs": len(jobs)}
        log.warning("batch failed; running its jobs one by one", extra=failed)
        self._keep(self._run_one_by_one(number, jobs))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None  # noqa: S101  nothing runs before `start`
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail_run(self, job: Job, error: Exception) -> None:
        log.error("run failed", exc_info=error, extra={"model": self._name})
        _fail(job, RunFailed("the model failed on these rows"))

    async def _run_one_by_one(self, number: int, jobs: list[Job]) -> None:
        for job in jobs:
            if job.receiver.done():
                continue
            started_s = self._clock()
            running = self._threads[number].run(partial(self._runs[number], job.rows))
            try:
                async with asyncio.timeout(self._limits.max_run_s):
                    outputs = await running
                self._deliver([job], outputs, started_s)
            except TimeoutError:
                _fail(job, self._hung())
                self._leave_behind(number)
                for other in jobs[jobs.index(job) + 1 :]:
                    self._waiting.add(other)
                self._lose(number, "hung")
                return
            except Exception as error:  # noqa: BLE001  see _run_jobs
                self._fail_run(job, error)
        await self._examine(number)

    def _deliver(self, jobs: list[Job], outputs: Outputs, started_s: float) -> None:
        run_s = self._clock() - started_s
        rows = _rows_of(jobs)
        self.cost.learn(rows, run_s)
        self.pace.learn(
            started_s + run_s, run_s, is_busy=bool(self._waiting), batches=self._runs_of(rows)
        )
        self._metrics.count_success(time.time())
        traces = [job.trace for job in jobs if job.trace is not None]
        if traces:
            traces[0].ran(traces, self._name, rows, run_s)
        start = 0
        for job in jobs:
            stop = start + len(job.rows)
            if not job.receiver.done():
                queue_s = started_s - job.arrived_s
                _give(job, Delivery(outputs[start:stop], queue_s, run_s))
            else:
                cause = "cancelled" if job.receiver.cancelled() else "expired"
                self._metrics.count_waste(len(job.rows), cause)
            start = stop


def _rows_of(jobs: Sequence[Job]) -> int:
    return sum(len(job.rows) for job in jobs)


def _padded(rows: NDArray[np.generic], length: int) -> NDArray[np.generic]:
    """Repeat the first row: unlike zeros, it is input that the model knows how to run."""
    if length == len(rows):
        return rows
    return np.concatenate([rows, np.repeat(rows[:1], length - len(rows), axis=0)])


def _give(job: Job, delivery: Delivery[Any]) -> None:
    try:
        job.receiver.set_result(delivery)
    except Exception:
        log.exception("outputs were not taken")  # whose fault it is, the others get theirs


def _fail(job: Job, error: Exception) -> None:
    if job.receiver.done():
        return
    try:
        job.receiver.set_exception(error)
    except Exception:
        log.exception("a failure was not taken")

"""Jobs that wait for a run, in two lanes.

Interactive jobs run first, in the order they came. Bulk jobs, the parts of requests that are larger
than a batch, take the room that is left; after `BULK_TURN` batches that went by without them they
begin the next one, so that they are late and never forgotten.

A job that does not fit begins the next batch, and nobody overtakes it in its lane.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.telemetry.series import GaugeSeries

if TYPE_CHECKING:
    from service.telemetry.spans import RequestTrace

Lane = Literal["interactive", "bulk"]

BULK_TURN = 4
"""So many batches in a row may go by without the bulk jobs that wait."""


class Receiver(Protocol):
    """Who waits for a job's outputs; an `asyncio.Future` is one."""

    def done(self) -> bool:
        """Whether it needs nothing any more."""
        ...

    def cancelled(self) -> bool:
        """Whether that is because its caller left."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Take the `Delivery`."""
        ...

    def set_exception(self, exception: Any, /) -> None:
        """Take the failure instead."""
        ...


@dataclass(eq=False, slots=True)
class Job:
    """Rows that wait or run."""

    rows: NDArray[np.generic]
    deadline_s: float
    arrived_s: float
    receiver: Receiver
    lane: Lane = "interactive"
    trace: "RequestTrace | None" = None
    """Of the request that the rows came with, if it has one."""

    has_estimate: bool = False
    """Whether the job was let in because its deadline seemed within reach."""


class _LaneJobs:
    """Jobs of one lane, in the order they came; a job can leave it anywhere."""

    def __init__(self, gauge: GaugeSeries) -> None:
        self.jobs: OrderedDict[Job, None] = OrderedDict()
        self.rows = 0
        self._gauge = gauge  # shared by the versions of a name

    def count(self, rows: int) -> None:
        self.rows += rows
        self._gauge.inc(rows)


class WaitingJobs:
    """The queue of one runtime."""

    def __init__(self, gauges: dict[Lane, GaugeSeries]) -> None:
        self._lanes: dict[Lane, _LaneJobs] = {
            lane: _LaneJobs(gauge) for lane, gauge in gauges.items()
        }
        self._interactive, self._bulk = self._lanes["interactive"], self._lanes["bulk"]
        self._batches_without_bulk = 0

    def __bool__(self) -> bool:
        return bool(self._interactive.jobs or self._bulk.jobs)

    def __contains__(self, job: Job) -> bool:
        return job in self._lanes[job.lane].jobs

    @property
    def rows(self) -> int:
        """Rows of all lanes."""
        return self._interactive.rows + self._bulk.rows

    @property
    def least_rows(self) -> int:
        """Rows of the lane that has fewest."""
        return min(self._interactive.rows, self._bulk.rows)

    def rows_of(self, lane: Lane) -> int:
        """Return how many rows wait in a lane."""
        return self._lanes[lane].rows

    def add(self, job: Job) -> None:
        """Let a job wait behind those of its lane."""
        lane = self._lanes[job.lane]
        lane.jobs[job] = None
        lane.count(len(job.rows))

    def remove(self, job: Job) -> None:
        """Take a job out if it waits."""
        lane = self._lanes[job.lane]
        if job in lane.jobs:
            del lane.jobs[job]
            lane.count(-len(job.rows))

    def jobs(self) -> list[Job]:
        """Return all jobs."""
        return [*self._interactive.jobs, *self._bulk.jobs]

    def oldest_s(self) -> float:
        """Return when the oldest job came; there has to be one."""
        first = [next(iter(lane.jobs)).arrived_s for lane in self._lanes.values() if lane.jobs]
        return min(first)

    def take(self, most_rows: int, now_s: float) -> tuple[list[Job], list[Job]]:
        """Take out the jobs of the next batch, and those whose deadline has passed.

        Args:
            most_rows: of the batch; a job that is larger makes one alone.
            now_s: the clock of the deadlines.
        """
        jobs: list[Job] = []
        late: list[Job] = []
        rows = 0
        for lane in self._in_turn():
            while lane.jobs:
                job = next(iter(lane.jobs))
                if jobs and rows + len(job.rows) > most_rows:
                    return jobs, late
                self.remove(job)
                if job.deadline_s <= now_s:
                    late.append(job)
                elif not job.receiver.done():
                    jobs.append(job)
                    rows += len(job.rows)
        return jobs, late

    def _in_turn(self) -> tuple[_LaneJobs, ...]:
        """Return the lanes in the order in which the next batch takes from them."""
        if not self._bulk.jobs:
            self._batches_without_bulk = 0
            return (self._interactive,)
        if self._interactive.jobs and self._batches_without_bulk < BULK_TURN:
            self._batches_without_bulk += 1
            return (self._interactive, self._bulk)
        self._batches_without_bulk = 0
        return (self._bulk, self._interactive)

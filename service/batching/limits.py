"""When a batch closes: pure arithmetic, no clock and no queue."""

from dataclasses import dataclass
from typing import Literal

Cause = Literal["full", "idle", "max_wait", "deadline", "drain"]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What closes a batch. By default it is work-conserving: it closes as soon as it can run."""

    max_rows: int
    """Most rows of one run."""

    max_queue_rows: int
    """Most rows that wait."""

    max_wait_s: float = 0.0
    """Longest time the first job waits for company; 0 = never wait."""

    max_run_s: float = 30.0
    """Longest time of a run in a thread; an instance that takes longer hangs."""

    has_buckets: bool = False
    """Whether a run is padded to a power of two."""

    def cause(
        self, rows: int, waited_s: float, until_deadline_s: float, *, is_draining: bool
    ) -> Cause | None:
        """Return why the batch closes now, None while it may wait for company.

        Args:
            rows: rows waiting.
            waited_s: how long the oldest job has waited.
            until_deadline_s: seconds until the first deadline among the waiting jobs.
            is_draining: whether no company will come.
        """
        if rows >= self.max_rows:
            return "full"
        if self.max_wait_s == 0:
            return "idle"
        if is_draining:
            return "drain"
        if waited_s >= self.max_wait_s:
            return "max_wait"
        return "deadline" if until_deadline_s <= self.max_wait_s else None

    def patience_s(self, waited_s: float, until_deadline_s: float) -> float:
        """Return how long the batch may still wait for company."""
        return max(0.0, min(self.max_wait_s - waited_s, until_deadline_s - self.max_wait_s))

    def run_rows(self, rows: int) -> int:
        """Return how many rows a run of `rows` is padded to."""
        if not self.has_buckets or rows >= self.max_rows:
            return rows
        return min(1 << (rows - 1).bit_length(), self.max_rows)

    def warm_rows(self) -> list[int]:
        """Return the batch sizes to run before traffic: powers of two, then the largest."""
        exponents = range((self.max_rows - 1).bit_length())
        return [*(1 << exponent for exponent in exponents), self.max_rows]

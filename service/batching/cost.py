"""What a run costs, learnt from the runs themselves."""

import math

QUICK_RUN_S = 0.005
"""A run that takes no longer may happen on the event loop, where everybody else waits for it: a hop
to a thread and back costs each of its requests about 0.1 ms under load."""

WORTHWHILE_ROWS = 16
"""A model that runs fewer rows in that time is slow, and runs in a thread."""

BULK_RUN_S = 0.015
"""Run time of one part of a large request, in the thread of the runtime. Shorter parts would cost
more in hops between thread and event loop than a quick model takes to run."""

PATIENCE_PARTS = 4
"""A batch should take at most a fourth of its clients' timeouts: a request waits for the running
batch and for its own, and the estimate has a margin of one more."""

SLOW_FACTOR = 2.0
"""So much slower a quick model must become to be slow."""

FORGETTING = 1.02
"""The least cost seen grows by so much a run, so that what has become slower is noticed."""


PACE_WEIGHT = 0.1
"""Of the latest batch: some ten of them are remembered."""

SPREADS = 2.0
"""Deviations that an estimate with a margin lies above the mean, for each root of a batch."""

MISSED_FACTOR, KEPT_FACTOR, MOST_CAUTION = 1.05, 0.995, 4.0
"""What caution is multiplied by after a batch in whose queue deadlines passed, and after another.
It stays where one batch in eleven is of the first kind."""


class RunCost:
    """Tells whether a model is quick, and how many rows it may run on the event loop at once.

    By the least seconds a row of recent runs: on a busy machine a run takes longer now and then,
    and never less long than it takes.
    """

    def __init__(self) -> None:
        self._row_s = math.inf
        self._mean_row_s = 0.0
        self.is_quick = False

    @property
    def goal_s(self) -> float:
        """How long a run should take at most: what runs beside the event loop may take its time."""
        return QUICK_RUN_S if self.is_quick else math.inf

    @property
    def quick_rows(self) -> int:
        """How many rows a quick model runs in `QUICK_RUN_S`, `WORTHWHILE_ROWS` at least."""
        return max(WORTHWHILE_ROWS, int(QUICK_RUN_S / self._row_s))

    def patient_rows(self, patience_s: float) -> float:
        """Return how many rows run, on average, in a fourth of `patience_s`."""
        if not self._mean_row_s:
            return math.inf
        return patience_s / PATIENCE_PARTS / self._mean_row_s

    def bulk_batches(self, rows: int) -> int:
        """Return how many batches of `rows` rows run in `BULK_RUN_S`, at least one."""
        return max(1, int(BULK_RUN_S / (rows * self._row_s)))

    def learn(self, rows: int, seconds: float) -> None:
        """Take note of a run of so many rows."""
        row_s = seconds / rows
        self._row_s = min(self._row_s * FORGETTING, row_s)
        self._mean_row_s += (row_s - self._mean_row_s) * (PACE_WEIGHT if self._mean_row_s else 1)
        slowest_s = QUICK_RUN_S / WORTHWHILE_ROWS * (SLOW_FACTOR if self.is_quick else 1)
        self.is_quick = self._row_s <= slowest_s


class Pace:
    """Tells how long a queue takes to shrink, by how quickly it did while there was enough to do.

    By batches, as a batch of one row may take as long as a full one; and not by their runs alone:
    between them the process does all else, for this model and for others. A batch behind which
    nobody waits tells no more than its run.

    An estimate with a margin is what decides who may wait. Without a margin the queue is filled up
    to the very deadline, and any slow spell turns nearly all that waits into late answers.
    """

    def __init__(self) -> None:
        self._batch_s = 0.0
        self._deviation_s = 0.0
        self.caution = 1.0
        """What the mean is multiplied by, learnt from deadlines that were missed."""

        self._since_s: float | None = None

    def seconds(self, batches: int) -> float:
        """Return how long so many batches take on average; 0 before the first."""
        return batches * self._batch_s

    def careful_seconds(self, batches: int) -> float:
        """Return in how long so many batches are done most likely; 0 before the first.

        One more batch is counted, as a request waits about so long in its socket before the event
        loop sees it. Batches are taken to vary independently of each other (their deviations add up
        by the root); what slow spells add is learnt from deadlines that were missed.
        """
        spread_s = SPREADS * self._deviation_s * math.sqrt(batches)
        return self.caution * self.seconds(batches) + self._batch_s + spread_s

    def learn(self, now_s: float, run_s: float, *, is_busy: bool, batches: int = 1) -> None:
        """Take note of batches that are done; `is_busy` if others wait behind them."""
        batch_s = (run_s if self._since_s is None else now_s - self._since_s) / batches
        if self._batch_s:
            self._deviation_s += PACE_WEIGHT * (abs(batch_s - self._batch_s) - self._deviation_s)
            self._batch_s += PACE_WEIGHT * (batch_s - self._batch_s)
        else:
            self._batch_s = batch_s
        self._since_s = now_s if is_busy else None

    def learn_deadlines(self, *, were_missed: bool) -> None:
        """Take note of a batch: whether deadlines that seemed within reach passed in the queue."""
        if were_missed:
            self.caution = min(MOST_CAUTION, self.caution * MISSED_FACTOR)
        else:
            self.caution = max(1.0, self.caution * KEPT_FACTOR)

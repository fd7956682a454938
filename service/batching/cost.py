"""What a run costs, learnt from the runs themselves."""

import math

QUICK_RUN_S = 0.005
"""A run that takes no longer may happen on the event loop, where everybody else waits for it: a hop
to a thread and back costs each of its requests about 0.1 ms under load."""

WORTHWHILE_ROWS = 16
"""A model that runs fewer rows in that time is slow, and runs in a thread."""

SLOW_FACTOR = 2.0
"""So much slower a quick model must become to be slow."""

FORGETTING = 1.02
"""The least cost seen grows by so much a run, so that what has become slower is noticed."""


PACE_WEIGHT = 0.1
"""Of the latest batch: some ten of them are remembered."""


class RunCost:
    """Tells whether a model is quick, and how many rows it may run on the event loop at once.

    By the least seconds a row of recent runs: on a busy machine a run takes longer now and then,
    and never less long than it takes.
    """

    def __init__(self) -> None:
        self._row_s = math.inf
        self.is_quick = False

    @property
    def goal_s(self) -> float:
        """How long a run should take at most: what runs beside the event loop may take its time."""
        return QUICK_RUN_S if self.is_quick else math.inf

    @property
    def quick_rows(self) -> int:
        """How many rows a quick model runs in `QUICK_RUN_S`, `WORTHWHILE_ROWS` at least."""
        return max(WORTHWHILE_ROWS, int(QUICK_RUN_S / self._row_s))

    def learn(self, rows: int, seconds: float) -> None:
        """Take note of a run of so many rows."""
        self._row_s = min(self._row_s * FORGETTING, seconds / rows)
        slowest_s = QUICK_RUN_S / WORTHWHILE_ROWS * (SLOW_FACTOR if self.is_quick else 1)
        self.is_quick = self._row_s <= slowest_s


class Pace:
    """Tells how long a queue takes to shrink, by how quickly it did while there was enough to do.

    By batches, as a batch of one row may take as long as a full one; and not by their runs alone:
    between them the process does all else, for this model and for others. A batch behind which
    nobody waits tells no more than its run.
    """

    def __init__(self) -> None:
        self._batch_s = 0.0
        self._since_s: float | None = None

    def seconds(self, batches: int) -> float:
        """Return how long so many batches take; 0 before the first."""
        return batches * self._batch_s

    def learn(self, now_s: float, run_s: float, *, is_busy: bool) -> None:
        """Take note of a batch that is done; `is_busy` if others wait behind it."""
        batch_s = run_s if self._since_s is None else now_s - self._since_s
        # What was slow for once is forgotten sooner than it was learnt.
        weight = PACE_WEIGHT if batch_s > self._batch_s else 3 * PACE_WEIGHT
        self._batch_s += weight * (batch_s - self._batch_s) if self._batch_s else batch_s
        self._since_s = now_s if is_busy else None

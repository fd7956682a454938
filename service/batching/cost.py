"""What a run costs, learnt from the runs themselves."""

import math

QUICK_RUN_S = 0.006
"""A batch that takes no longer may run on the event loop, where everybody else waits for it: a hop
to a thread and back costs each of its requests about 0.1 ms under load."""

SLOW_FACTOR = 2.0
"""So much longer it must take before it leaves the event loop again."""

FORGETTING = 1.02
"""The least cost seen grows by so much a run, so that what has become slower is noticed."""


class RunCost:
    """Tells whether the largest batch of a model is quick.

    By the least seconds a row of recent runs: on a busy machine a run takes longer now and then,
    and never less long than it takes.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._row_s = math.inf
        self.is_quick = False

    def learn(self, rows: int, seconds: float) -> None:
        """Take note of a run of so many rows."""
        self._row_s = min(self._row_s * FORGETTING, seconds / rows)
        largest_s = self._row_s * self._max_rows
        self.is_quick = largest_s <= QUICK_RUN_S * (SLOW_FACTOR if self.is_quick else 1)

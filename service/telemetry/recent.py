"""Results of the last requests and rows of one version, to compare it with another."""

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

FAILURES = frozenset({"error", "expired", "rejected"})
"""Outcomes that count against a version; the others are the client's."""

MOST_SHARE = 0.05
"""Largest share of the window that the rows of one request may fill."""


class Recent:
    """A window of the last requests and a window of the last rows of one version."""

    def __init__(self, most: int) -> None:
        self._most_of_one = max(1, int(most * MOST_SHARE))
        self._failed: deque[bool] = deque(maxlen=most)
        self._unknown: deque[bool] = deque(maxlen=most)
        self._seconds: deque[float] = deque(maxlen=most)

    def see_request(self, seconds: float, reasons: Sequence[str | None]) -> None:
        """Record a request that got its verdicts; of many rows, a sample.

        Args:
            seconds: duration of the request.
            reasons: for each row, why it was not answered; None for an answer.
        """
        self.see_answered([seconds])
        self.see_rows(reasons[:: math.ceil(len(reasons) / self._most_of_one) or 1])

    def see_answered(self, seconds: Iterable[float]) -> None:
        """Record requests that got their verdicts, by their duration in seconds."""
        for each in seconds:
            self._failed.append(False)
            self._seconds.append(each)

    def see_failure(self, outcome: str) -> None:
        """Record a request that got no verdict."""
        if outcome in FAILURES:
            self._failed.append(True)

    def see_rows(self, reasons: Iterable[str | None]) -> None:
        """Record rows by the reason why they were not answered; None for an answer."""
        self._unknown.extend(reason is not None for reason in reasons)

    @property
    def requests(self) -> int:
        """How many requests are remembered."""
        return len(self._failed)

    @property
    def answered(self) -> int:
        """How many requests that got their verdicts are remembered."""
        return len(self._seconds)

    @property
    def rows(self) -> int:
        """How many rows are remembered."""
        return len(self._unknown)

    @property
    def failures(self) -> int:
        """How many of the requests failed."""
        return sum(self._failed)

    @property
    def unknown(self) -> int:
        """How many of the rows were not answered."""
        return sum(self._unknown)

    def p99_s(self) -> float:
        """Return the 99th percentile of the time of answered requests."""
        return float(np.percentile(self._seconds, 99)) if self._seconds else 0.0

    def slower_than(self, seconds: float) -> int:
        """Return how many of the answered requests took longer."""
        return sum(each > seconds for each in self._seconds)

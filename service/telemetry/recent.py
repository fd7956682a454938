"""What became of the last requests and rows of one version, to compare it with another."""

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

FAILURES = frozenset({"error", "expired", "rejected"})
"""Outcomes of a request that a version has to answer for; the others are its caller's."""


MOST_SHARE = 0.05
"""Of the remembered rows that may be of one request: no single caller shall decide."""


class Recent:
    """The last requests and the last rows, so many of each at most."""

    def __init__(self, most: int) -> None:
        self._most_of_one = max(1, int(most * MOST_SHARE))
        self._failed: deque[bool] = deque(maxlen=most)
        self._unknown: deque[bool] = deque(maxlen=most)
        self._seconds: deque[float] = deque(maxlen=most)

    def see_request(self, seconds: float, reasons: Sequence[str | None]) -> None:
        """Take note of a request that got its verdicts, and of some of its rows if it has many.

        Args:
            seconds: how long it took.
            reasons: of each row not to answer it, None for an answer.
        """
        self.see_answered([seconds])
        self.see_rows(reasons[:: math.ceil(len(reasons) / self._most_of_one) or 1])

    def see_answered(self, seconds: Iterable[float]) -> None:
        """Take note of requests that got their verdicts, by how long they took."""
        for each in seconds:
            self._failed.append(False)
            self._seconds.append(each)

    def see_failure(self, outcome: str) -> None:
        """Take note of a request that got none."""
        if outcome in FAILURES:
            self._failed.append(True)

    def see_rows(self, reasons: Iterable[str | None]) -> None:
        """Take note of rows by the reason not to answer them, None for an answer."""
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

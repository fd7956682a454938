"""A candidate that sees a copy of the traffic and answers nobody; what it would say is compared.

It never makes an answer later: rows are copied when their answer is written, run in a thread of
their own, one batch at a time, and are dropped while that is busy.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.batching.threads import RunThread
from service.decision import Row
from service.prediction.predictor import Predictor
from service.telemetry.metrics import ShadowMetrics

log = logging.getLogger(__name__)


class Opinion(NamedTuple):
    """What a version says of a row by default."""

    verdict: str
    best: str
    """Label it finds most probable, answered or not."""


class Shadow:
    """Compares a candidate with the version that answers, by the default terms of each."""

    def __init__(self, candidate: Predictor, live: Predictor, metrics: ShadowMetrics) -> None:
        self.candidate = candidate
        self._live = live
        self._metrics = metrics
        self._waiting: list[tuple[NDArray[np.generic], Sequence[Row]]] = []
        self._waiting_rows = 0
        self._running: asyncio.Future[list[Row]] | None = None
        self._thread = RunThread("shadow")
        self._is_well = True
        self._is_closed = False

    def copy(self, rows: NDArray[np.generic], live: Sequence[Row]) -> None:
        """Let rows wait for the candidate, on the event loop; dropped if there is no room.

        Args:
            rows: shape (rows, *input), as the live version ran them.
            live: what the live version found, one a row.
        """
        waiting_rows = self._waiting_rows + len(rows)
        is_full = self._waiting and not self.candidate.fits_a_batch(waiting_rows)
        if is_full or self._is_closed:
            self._metrics.count("dropped", len(rows))
            return
        self._waiting.append((rows, live))
        self._waiting_rows = waiting_rows
        if self._running is None:
            self._run()

    async def close(self, timeout_s: float) -> None:
        """Forget what waits, and wait for what runs, in at most `timeout_s`."""
        self._is_closed = True  # rows that were submitted before may still come
        self._waiting.clear()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=timeout_s)
        self._thread.stop()

    def _run(self) -> None:
        copies, self._waiting, self._waiting_rows = self._waiting, [], 0
        live = [row for _, found in copies for row in found]
        rows = [each for each, _ in copies]
        self._running = self._thread.run(lambda: self._assess(rows))
        self._running.add_done_callback(partial(self._end_run, live))

    def _assess(self, copies: list[NDArray[np.generic]]) -> list[Row]:
        return self.candidate.assess(np.concatenate(copies))

    def _end_run(self, live: Sequence[Row], running: "asyncio.Future[list[Row]]") -> None:
        self._running = None
        error = running.exception()
        if error is None:
            self._compare(live, running.result())
        else:
            self._metrics.count("failed", len(live))
            if self._is_well:
                facts = {"model": self._live.name, "version": self.candidate.manifest.version}
                log.warning("shadow failed", exc_info=error, extra=facts)
        self._is_well = error is None
        if self._waiting:
            self._run()

    def _compare(self, live: Sequence[Row], candidate: Sequence[Row]) -> None:
        for mine, other in zip(live, candidate, strict=True):
            if not (mine.is_finite and other.is_finite):
                self._metrics.count("failed", 1)
                continue
            ours, theirs = _opinion(self._live, mine), _opinion(self.candidate, other)
            if ours == theirs:
                self._metrics.count("agreed", 1)
            else:
                self._metrics.count("disagreed", 1)
                self._metrics.count_disagreement(ours.best, f"{ours.verdict}/{theirs.verdict}")


def _opinion(predictor: Predictor, row: Row) -> Opinion:
    verdict = predictor.judge.verdict(row, predictor.judge.default_terms)
    best = predictor.manifest.labels[row.best]
    return Opinion("answer" if verdict.reason is None else "dont_know", best)

"""Batch settings for a latency goal, from what runs of a model cost on this machine.

A request that arrives just after a batch was closed waits for that batch and runs in the next one:
two batches. So the largest batch may take half of the goal.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GOAL_SHARE = 0.5
LEAST_RUNS = 3
SIZE_S = 0.05
"""Time spent on each number of rows, if that is more than `LEAST_RUNS`."""


@dataclass(frozen=True, slots=True)
class CostLine:
    """What a run costs: seconds = `fixed_s` + `row_s` * rows, neither below zero."""

    fixed_s: float
    row_s: float

    def seconds(self, rows: int) -> float:
        """Return how long a run of so many rows is expected to take."""
        return self.fixed_s + self.row_s * rows


@dataclass(frozen=True, slots=True)
class Trial:
    """What runs took with so many threads."""

    device: str
    """Where they ran, `cpu` or `cuda`."""

    threads: int
    workers: int
    """Processes of that many threads for which there are cores."""

    seconds_by_rows: dict[int, float]


@dataclass(frozen=True, slots=True)
class Tuned:
    """Settings, and what is expected of them."""

    threads: int
    workers: int
    max_batch_rows: int
    batch_s: float
    """Expected time of the largest batch."""

    rows_per_s: float
    """Expected of all workers together, in largest batches, if they do not slow each other."""

    @property
    def variables(self) -> dict[str, int]:
        """DUNNO_* variable -> value."""
        return {
            "DUNNO_MAX_BATCH_ROWS": self.max_batch_rows,
            "DUNNO_RUNTIME_THREADS": self.threads,
            "DUNNO_WORKERS": self.workers,
        }


def time_runs(
    run: Callable[[NDArray[np.generic]], object], rows: NDArray[np.generic], enough_s: float
) -> dict[int, float]:
    """Return the median seconds of runs by their number of rows.

    Args:
        run: called with arrays of shape (rows, *input).
        rows: shape (rows, *input), any number of real ones; they are repeated as needed.
        enough_s: two numbers of rows are timed, and more until a run takes longer than this.
    """
    seconds_by_rows: dict[int, float] = {}
    for size in BATCH_ROWS:
        batch = np.resize(rows, (size, *rows.shape[1:]))
        run(batch)  # the first one allocates, traces, compiles
        seconds_by_rows[size] = statistics.median(_run_times(partial(run, batch)))
        if seconds_by_rows[size] > enough_s and len(seconds_by_rows) > 1:
            break
    return seconds_by_rows


def _run_times(run: Callable[[], object]) -> list[float]:
    times_s: list[float] = []
    now_s = time.perf_counter()
    until_s = now_s + SIZE_S
    while len(times_s) < LEAST_RUNS or now_s < until_s:
        started_s = now_s
        run()
        now_s = time.perf_counter()
        times_s.append(now_s - started_s)
    return times_s


def fit_line(seconds_by_rows: Mapping[int, float]) -> CostLine:
    """Return the line with the least squares of relative errors, so that small runs count too."""
    rows = np.array(list(seconds_by_rows), np.float64)
    weights = 1 / np.array(list(seconds_by_rows.values()))
    columns = np.stack([weights, weights * rows], axis=1)
    fixed_s, row_s = np.linalg.lstsq(columns, np.ones(len(rows)))[0].tolist()
    if row_s < 0:
        return CostLine(_scale(weights), 0.0)
    if fixed_s < 0:
        return CostLine(0.0, _scale(weights * rows))
    return CostLine(fixed_s, row_s)


def _scale(values: NDArray[np.float64]) -> float:
    """Return the factor that brings `values` closest to one."""
    return float(values.sum() / (values @ values))


def largest_batch_rows(seconds_by_rows: Mapping[int, float], line: CostLine, limit_s: float) -> int:
    """Return the most rows that a run takes in `limit_s`, by the line and by what was measured.

    0 if one row takes longer; never more than the largest number of rows that was measured.
    """
    in_time = [rows for rows, seconds in seconds_by_rows.items() if seconds <= limit_s]
    largest_in_time = max(in_time, default=0)
    larger = [rows for rows in seconds_by_rows if rows > largest_in_time]
    most = min(larger) - 1 if larger else largest_in_time
    while most > 0 and line.seconds(most) > limit_s:
        most -= 1
    return most


def tuned(trial: Trial, goal_s: float) -> Tuned | None:
    """Return the settings that a trial speaks for, None if one row takes half of the goal."""
    line = fit_line(trial.seconds_by_rows)
    rows = largest_batch_rows(trial.seconds_by_rows, line, goal_s * GOAL_SHARE)
    if rows == 0:
        return None
    # A GPU is one, however many processes ask it.
    workers = trial.workers if trial.device == "cpu" else 1
    batch_s = line.seconds(rows)
    return Tuned(trial.threads, workers, rows, batch_s, workers * rows / batch_s)


def best(candidates: Sequence[Tuned]) -> Tuned:
    """Return the candidate with the most rows a second; of equals the one with fewest threads."""
    return max(candidates, key=lambda each: (each.rows_per_s, -each.threads))


def thread_counts(cores: int) -> Iterator[int]:
    """Yield the numbers of threads worth a trial: powers of two, and all cores."""
    threads = 1
    while threads < cores:
        yield threads
        threads *= 2
    yield cores


def environment_file(settings: Tuned, remark: str) -> str:
    """Return the content of a file for `docker run --env-file` or systemd's `EnvironmentFile`."""
    lines = [f"{name}={value}" for name, value in settings.variables.items()]
    return "\n".join([f"# {remark}", *lines, ""])

"""Memory budgets of requests, as shares of what the container's limit leaves."""

import ctypes
import os
from pathlib import Path
from typing import NamedTuple

from service.settings import MEBIBYTE, Settings, usable_memory_bytes, worker_count

ARRIVING_PART = 6
DECODING_PART = 8
UNSENT_PART = 12
"""Bodies may take a sixth of the memory that is left, decoding an eighth, unread answers a twelfth.
The rest is for one request above the decoding budget, for waiting rows, for answers, and for what
malloc keeps."""

ROWS_PART = 8
"""The decoded rows of one request, and those that wait for one model, may take an eighth of the
memory of a worker each."""

LEAST_BYTES = 16 * MEBIBYTE
"""Neither is smaller, or no picture of a phone would be decoded."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGE_BYTES = MEBIBYTE
_KEPT_BYTES = 16 * MEBIBYTE


class MemoryPlan(NamedTuple):
    """What requests may take together, in bytes."""

    arriving_bytes: int
    """Bodies that came in several parts."""

    decoding_bytes: int
    """Decoding, in all threads; see `service.inputs.budget.ByteBudget`."""

    unsent_bytes: int
    """Answers that clients do not read; see `service.api.unsent.UnsentAnswers`."""


def plan_memory(settings: Settings, usable_bytes: int, resident_bytes: int) -> MemoryPlan:
    """Return what requests may take.

    Args:
        settings: with the number of workers and the largest room for bodies.
        usable_bytes: of this machine or container, for all workers.
        resident_bytes: of this process, with its models loaded.
    """
    left_bytes = max(0, usable_bytes // worker_count(settings) - resident_bytes)
    arriving_bytes = max(LEAST_BYTES, left_bytes // ARRIVING_PART)
    return MemoryPlan(
        min(settings.max_arriving_bytes, arriving_bytes),
        max(LEAST_BYTES, left_bytes // DECODING_PART),
        max(LEAST_BYTES, left_bytes // UNSENT_PART),
    )


def plan_process_memory(settings: Settings) -> MemoryPlan:
    """Return what requests of this process may take, now that its models are loaded."""
    return plan_memory(settings, usable_memory_bytes(), resident_bytes())


def fitting_rows(wanted: int, row_bytes: int, settings: Settings, usable_bytes: int) -> int:
    """Return how many rows of a model may be in memory: `wanted`, or fewer if they do not fit.

    Args:
        wanted: by the settings.
        row_bytes: of one decoded row.
        settings: with the number of workers, and the rows of a batch, which always fit.
        usable_bytes: of this machine or container, for all workers.
    """
    budget_bytes = usable_bytes // worker_count(settings) // ROWS_PART
    return min(wanted, max(settings.max_batch_rows, budget_bytes // row_bytes))


def resident_bytes() -> int:
    """Return the memory that this process has now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_large_blocks_back() -> None:
    """Let malloc return blocks of 1 MiB and more to the system as soon as they are freed.

    By default glibc raises that size to 32 MiB once such a block was freed, and keeps the memory:
    in each thread as much as its largest body once needed. Other C libraries have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)

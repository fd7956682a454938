"""When a canary loses its traffic: pure rules on what became of the last requests of two versions.

Counts are compared with what a full window may hold, so that a canary that fails every request is
found out long before its window is full.
"""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from service.telemetry.recent import Recent

SLOWEST_SHARE = 0.01  # what lies above a 99th percentile


class Rollback(BaseModel):
    """How much worse than the default version a canary may be; None disables a comparison.

    Only requests that were assigned by `weights` are compared, and only those with the deadline
    `DUNNO_DEADLINE_MS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    errors: float | None = Field(default=None, ge=0, le=1)
    """Share of failed requests, above that of the default version."""

    dont_know: float | None = Field(default=None, ge=0, le=1)
    """Share of rows that are not answered, above that of the default version."""

    p99_ms: float | None = Field(default=None, ge=0)
    """99th percentile of the time of answered requests, above that of the default version."""

    rows: int = Field(default=500, ge=10, le=100_000)
    """Number of the last rows, and of the last requests, of each version that are compared. Of one
    request at most 5 % of this number of rows are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a canary is not good enough."""

    reason: str
    """`errors`, `dont_know` or `p99`."""

    detail: str


def find_fault(canary: Recent, default: Recent, rule: Rollback) -> Finding | None:
    """Return what is wrong with a canary; None as long as nothing is, or too little is known.

    Args:
        canary: of a window of `rule.rows`.
        default: of a window of `rule.rows` as well; nothing is said before it is full.
        rule: how much worse the canary may be.
    """
    n = rule.rows
    if rule.errors is not None and default.requests >= n:
        share, usual = canary.failures / n, default.failures / n
        if share > usual + rule.errors:
            return Finding("errors", f"{share:.1%} of requests fail, usual are {usual:.1%}")
    if rule.dont_know is not None and default.rows >= n:
        share, usual = canary.unknown / n, default.unknown / n
        if share > usual + rule.dont_know:
            return Finding("dont_know", f"{share:.1%} are not answered, usual are {usual:.1%}")
    if rule.p99_ms is not None and default.answered >= n:
        usual_s = default.p99_s()
        most_s = usual_s + rule.p99_ms / 1000
        if canary.slower_than(most_s) > SLOWEST_SHARE * n:
            return Finding("p99", f"above {most_s * 1000:.3g} ms, usual is {usual_s * 1000:.3g} ms")
    return None

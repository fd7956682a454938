"""Logits and novelty scores become verdicts: pure mathematics, no clock, no queue.

Two steps, because a batch holds rows of many callers: what the model makes of each row depends only
on the model and is found once for the batch (`Judge.assess_rows`); `Judge.verdict` depends on the
caller's terms, and only compares numbers that are there already.

Every comparison with a threshold happens in float64 after rounding to 1e-6, so that the last bits
by which batch sizes and runtimes differ do not turn a verdict.
"""

from service.decision.arrays import DECIMALS, Assessment, calibrated, tail
from service.decision.judge import (
    Answered,
    Floor,
    Judge,
    Reason,
    Row,
    Terms,
    Unknown,
    Verdict,
)

__all__ = [
    "DECIMALS",
    "Answered",
    "Assessment",
    "Floor",
    "Judge",
    "Reason",
    "Row",
    "Terms",
    "Unknown",
    "Verdict",
    "calibrated",
    "tail",
]

"""The mathematics of verdicts for one row, in plain Python.

`service.decision.arrays` has it for many: the same operations on the same float64 numbers, in the
same order. For a few rows NumPy would spend several times as long on its calls.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import copysign, exp, inf, isfinite
from typing import NamedTuple

from service.bundle.manifest import Calibration, Novelty, PowerMap, TailTable
from service.decision.arrays import DECIMALS, table_arrays

_SCALE = 10.0**DECIMALS
_TO_WHOLE = 1.5 * 2**52  # a float64 of this size has no binary places: half to even, as NumPy does
_LARGEST_EXPONENT = 700.0


class SingleAssessment(NamedTuple):
    """What the model makes of one row."""

    probabilities: list[float]
    """One a label, calibrated."""

    novelty_p: float | None


class SingleRow:
    """Assesses rows of one model."""

    def __init__(self, calibration: Calibration, novelty: Novelty | None) -> None:
        self._calibration = calibration
        self._tables = [] if novelty is None else [_Table(table) for table in novelty.tables]
        self._combined = None if novelty is None else _Table(novelty.combined)

    def assess(self, logits: list[float], scores: list[float]) -> SingleAssessment | None:
        """Return probabilities and novelty, or None where a number is not finite."""
        if not isfinite(sum(logits) + sum(scores)):
            return None
        calibration = self._calibration
        if isinstance(calibration, PowerMap):
            probabilities = _power_mapped(logits, calibration)
        else:
            probabilities = _softmax(logits, calibration.temperature)
        novelty_p = None
        if self._combined is not None:
            fisher = 0.0
            for table, score in zip(self._tables, scores, strict=True):
                fisher -= table.log_tail(score)
            novelty_p = rounded(exp(self._combined.log_tail(fisher)))
        return SingleAssessment(probabilities, novelty_p)


def rounded(value: float) -> float:
    """Return a number up to a million rounded to `DECIMALS`, as `numpy.round` does."""
    return (value * _SCALE + _TO_WHOLE - _TO_WHOLE) / _SCALE


def rounded_all(values: Sequence[float]) -> list[float]:
    """Return `rounded` of each value, without a call for each."""
    return [(value * _SCALE + _TO_WHOLE - _TO_WHOLE) / _SCALE for value in values]


def _softmax(logits: list[float], temperature: float) -> list[float]:
    scaled = [logit / temperature for logit in logits]
    highest = max(scaled)
    powers = [exp(value - highest) for value in scaled]
    total = sum(powers)
    return [power / total for power in powers]


def _power_mapped(logits: list[float], power: PowerMap) -> list[float]:
    margin = logits[1] - logits[0]
    try:
        bent = copysign(abs(margin) ** power.gamma, margin)
    except OverflowError:  # where NumPy returns infinity
        bent = copysign(inf, margin)
    mapped = power.a * bent + power.b
    mapped = min(max(mapped, -_LARGEST_EXPONENT), _LARGEST_EXPONENT)
    second = 1 / (1 + exp(-mapped))
    return [1 - second, second]


class _Table:
    """A `TailTable`, interpolated in the logarithm of the tail."""

    def __init__(self, table: TailTable) -> None:
        values, log_tails = table_arrays(table)
        self._values: list[float] = values.tolist()
        self._log_tails: list[float] = log_tails.tolist()

    def log_tail(self, score: float) -> float:
        """Return the logarithm of P(score on familiar rows >= `score`)."""
        values, log_tails = self._values, self._log_tails
        right = bisect_right(values, score)
        if right == 0:
            return log_tails[0]
        if right == len(values):
            return log_tails[-1]
        left = right - 1
        slope = (log_tails[right] - log_tails[left]) / (values[right] - values[left])
        return slope * (score - values[left]) + log_tails[left]

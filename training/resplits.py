"""How often does a certificate break its promise? Calibration and test, pooled and split anew.

The rows are scored once; each time another part of them certifies, by the rule of
`training.calibrate`, and the rest are the inputs that the promise is about. Beside it stands what
a threshold chosen by eye would do: the loosest one whose error on the calibration part is small
enough. It breaks its promise about every other time.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from training.calibrate import DELTA_PER_RISK, RISKS, Judged, Plan, passed

RESPLITS = 1000


@dataclass(frozen=True, slots=True)
class Promise:
    """How one row of the certified table fared; shares of all re-splits."""

    max_error: float
    certified: float
    """Some threshold was certified."""

    broken: float
    """One was, and of the other part's rows that pass it more than `max_error` are wrong."""

    broken_by_eye: float
    """The same for the loosest threshold with at most `max_error` on the calibration part."""


@dataclass(frozen=True, slots=True)
class Violations:
    """How the certified table fared."""

    promises: tuple[Promise, ...]
    """One for each of `RISKS`."""

    broken: float
    """Share of re-splits in which any row of the table broke its promise; `DELTA` is allowed, and
    the chance of the draw: the other part is finite too."""


def violations(
    pooled: Judged, plan: Plan, novelty_alpha: float, calibration_rows: int, seed: int
) -> Violations:
    """Return how often certificates break their promise over `RESPLITS` random re-splits.

    Args:
        pooled: the rows of calibration and test together, judged by what the validation split
            chose; none of the rows may have chosen it.
        plan: thresholds, and where to start, as the validation split plans them.
        novelty_alpha: least novelty p-value to answer.
        calibration_rows: how many of the rows certify; the others are the inputs.
        seed: of the re-splits.
    """
    confidence, wrong = pooled.passing(novelty_alpha), pooled.wrong
    # Position of the strictest threshold that a row passes; len(grid) if it passes none.
    grid = np.asarray(plan.grid)
    first = np.searchsorted(-grid, -confidence, side="left")
    all_passing, all_errors = _counts(first, wrong, len(grid))
    rng = np.random.default_rng(seed)
    passing = np.empty((RESPLITS, len(grid)), np.int64)
    errors = np.empty_like(passing)
    for split in range(RESPLITS):
        part = rng.permutation(len(wrong))[:calibration_rows]
        passing[split], errors[split] = _counts(first[part], wrong[part], len(grid))
    broken = np.zeros(RESPLITS, np.bool_)
    promises = []
    for risk in RISKS:
        is_broken = (all_errors - errors) > risk * (all_passing - passing)
        levels = plan.levels(risk, DELTA_PER_RISK)
        certified = certified_positions(passing, errors, risk, levels)
        by_eye = _last(errors <= risk * passing)
        promises.append(
            Promise(
                max_error=risk,
                certified=float((certified >= 0).mean()),
                broken=float(_at(is_broken, certified).mean()),
                broken_by_eye=float(_at(is_broken, by_eye).mean()),
            )
        )
        broken |= _at(is_broken, certified)
    return Violations(tuple(promises), float(broken.mean()))


def certified_positions(
    passing: NDArray[np.int64],
    errors: NDArray[np.int64],
    max_error: float,
    levels: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return the position in the grid that `training.calibrate.certify` arrives at, -1 for none.

    Args:
        passing: shape (resplits, grid), how many calibration rows pass each threshold.
        errors: the same shape, how many of those are wrong.
        max_error: risk to certify; the table's `DELTA` is shared by all `RISKS`.
        levels: shape (grid,), as `training.calibrate.certify` takes them.
    """
    return _last(passed(binom.cdf(errors, passing, max_error), levels))


def _counts(
    first: NDArray[np.int64], wrong: NDArray[np.bool_], thresholds: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many rows pass each threshold and how many of those are wrong."""
    passing = np.bincount(first, minlength=thresholds + 1)[:thresholds].cumsum()
    errors = np.bincount(first[wrong], minlength=thresholds + 1)[:thresholds].cumsum()
    return passing, errors


def _last(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the last position of each row that is set, -1 for none."""
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    return np.where(mask.any(axis=1), last, -1)


def _at(values: NDArray[np.bool_], positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the value at the position of each row, False for -1."""
    picked: NDArray[np.bool_] = values[np.arange(len(values)), positions]
    return picked & (positions >= 0)

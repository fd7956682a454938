"""95 % intervals of numbers that are no shares of rows: how they vary over resampled rows."""

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Interval, Intervals
from training.calibrate import Judged
from training.mappings import mean_nll

DRAWS = 200
"""Enough for a standard error (Efron and Tibshirani 1993, section 6.4); quantiles need more."""

_NORMAL_QUANTILE = 1.96


def intervals(judged: Judged, values: dict[str, float], bins: int, seed: int) -> Intervals:
    """Return value +- 1.96 standard errors, none below 0.

    Not the quantiles of the draws: resampling adds noise, so that a calibration error near its
    floor is larger in nearly every draw than on the rows themselves.

    Args:
        judged: the rows.
        values: `nll`, `ece` and `aurc` of these rows.
        bins: of the calibration error.
        seed: of the draws.
    """
    errors = _draws(judged, bins, seed).std(axis=0, ddof=1)
    return Intervals(
        **{
            name: Interval(
                low=max(0.0, values[name] - _NORMAL_QUANTILE * error),
                high=values[name] + _NORMAL_QUANTILE * error,
            )
            for name, error in zip(("nll", "ece", "aurc"), errors.tolist(), strict=True)
        }
    )


def _draws(judged: Judged, bins: int, seed: int) -> NDArray[np.float64]:
    """Return nll, ece and aurc of each draw, shape (draws, 3)."""
    rng = np.random.default_rng(seed)
    n = len(judged.targets)
    # Most confident first, so that a sorted draw of places needs no sorting by confidence; rows of
    # equal confidence in any order.
    order = rng.permutation(n)
    order = order[np.argsort(-judged.probabilities.max(axis=1)[order], kind="stable")]
    probabilities, targets = judged.probabilities[order], judged.targets[order]
    wrong = judged.wrong[order]
    gaps = probabilities.max(axis=1) - ~wrong
    starts = np.unique(np.linspace(0, n, bins + 1).astype(int)[:-1])
    ranks = np.arange(1, n + 1)
    drawn = np.empty((DRAWS, 3))
    for draw in drawn:
        places = np.sort(rng.integers(0, n, n))
        draw[:] = (
            mean_nll(probabilities[places], targets[places]),
            np.abs(np.add.reduceat(gaps[places], starts)).sum() / n,
            (wrong[places].cumsum() / ranks).mean(),
        )
    return drawn

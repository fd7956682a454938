"""Scores become facts of the manifest: probabilities, thresholds with a guarantee, limits.

Two splits, two purposes. `validation` chooses: temperature or power map, conformal limits, novelty
tables, the grid of thresholds. `calibration` is touched once: it certifies thresholds of that grid
and describes familiar traffic. A recipe that cross-validates has scores out of fold instead; then
each row is calibrated by what the other folds say, and the guarantee is approximate. A test split
beside the folds decides nothing: it gives the numbers of the card, as it does beside two splits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from service.bundle.manifest import (
    Calibration,
    CertifiedRow,
    Conformal,
    Histogram,
    Novelty,
    Policy,
    Reference,
)
from service.decision import DECIMALS, calibrated, tail
from training.mappings import fit_calibration, rows_of
from training.recipe import OutOfFold, Recipe, Scores
from training.tails import fisher, novelty_tables

RISKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Rows of the certified table."""

DELTA = 0.05
"""Probability that any row of the table breaks its promise; each row has a sixth of it."""

CONFORMAL_LEVEL = 0.95
# Half a per mille apart where little is withheld, half a per cent elsewhere: that is where the
# thresholds of a good model lie.
_WITHHELD = np.unique(np.concatenate([np.linspace(0, 0.05, 101), np.linspace(0.05, 1, 191)]))
_HISTOGRAM_BINS = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows with what the calibrated model makes of them."""

    probabilities: NDArray[np.float64]
    """Shape (rows, labels)."""

    targets: NDArray[np.int64]
    novelty_p: NDArray[np.float64] | None

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Largest probability, rounded as the service rounds it."""
        largest: NDArray[np.float64] = self.probabilities.max(axis=1)
        return largest.round(DECIMALS)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether the best label is not the true one."""
        mistaken: NDArray[np.bool_] = self.probabilities.argmax(axis=1) != self.targets
        return mistaken

    def passing(self, alpha: float) -> NDArray[np.float64]:
        """Return the confidence, below every threshold where the novelty gate is closed."""
        if self.novelty_p is None:
            return self.confidence
        return np.where(self.novelty_p >= alpha, self.confidence, -1.0)

    def part(self, mask: NDArray[np.bool_]) -> "Judged":
        """Return the rows of `mask`."""
        novelty_p = None if self.novelty_p is None else self.novelty_p[mask]
        return Judged(self.probabilities[mask], self.targets[mask], novelty_p)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The parts of the manifest that decide."""

    calibration: Calibration
    novelty: Novelty | None
    conformal: Conformal
    policy: Policy
    reference: Reference

    def judge(self, scores: Scores) -> Judged:
        """Return what the calibrated model makes of `scores`."""
        return judge(scores, self.calibration, self.novelty)


def judge(scores: Scores, calibration: Calibration, novelty: Novelty | None) -> Judged:
    """Return calibrated probabilities and novelty p-values of `scores`."""
    novelty_p = None
    if novelty is not None:
        sums = fisher(scores.novelty_scores, novelty.tables)
        novelty_p = tail(sums, novelty.combined).round(DECIMALS)
    return Judged(calibrated(scores.logits, calibration), scores.targets, novelty_p)


def calibrate(recipe: Recipe, validation: Scores, calibration: Scores, mixture: str) -> Calibrated:
    """Return everything that decides, fitted on one split and certified on another."""
    mapping = fit_calibration(recipe.calibration, validation, "validation")
    novelty = novelty_tables(validation, recipe.novelty_names, "validation")
    chosen = judge(validation, mapping, novelty)
    once = judge(calibration, mapping, novelty)
    grid = threshold_grid(chosen.confidence, recipe.least_confidence)
    table = certified_table(once, grid, recipe.novelty_alpha)
    policy = make_policy(recipe, table, len(once.targets), mixture, "calibration")
    return Calibrated(
        mapping,
        novelty,
        conformal_limits(chosen, "validation"),
        policy,
        reference_profile(once, policy, recipe.labels),
    )


@dataclass(frozen=True, slots=True)
class CrossCalibrated:
    """The parts that decide, and how the same procedure fared on each fold left out."""

    parts: Calibrated
    judged: Judged
    """Every row, calibrated by the other folds."""

    answered: dict[float, NDArray[np.bool_]]
    """Risk -> whether a row is answered by the threshold that the other folds certified."""


def cross_calibrate(recipe: Recipe, out_of_fold: OutOfFold, mixture: str) -> CrossCalibrated:
    """Return everything that decides, from scores out of fold.

    What is shipped is fitted on all folds. Its numbers come from nesting: each fold is judged by
    a calibration and by thresholds that the other folds alone gave.
    """
    scores, folds = out_of_fold.scores, out_of_fold.folds
    judged = _judge_by_other_folds(recipe, out_of_fold)
    grid = threshold_grid(judged.confidence, recipe.least_confidence)
    table = certified_table(judged, grid, recipe.novelty_alpha)
    policy = make_policy(recipe, table, len(folds), mixture, "folds")
    mapping = fit_calibration(recipe.calibration, scores, "folds")
    novelty = novelty_tables(scores, recipe.novelty_names, "folds")
    parts = Calibrated(
        mapping,
        novelty,
        conformal_limits(judged, "folds"),
        policy,
        reference_profile(judged, policy, recipe.labels),
    )
    answered = {row.max_error: np.zeros(len(folds), np.bool_) for row in table}
    for fold in np.unique(folds):
        inside = folds == fold
        for row in certified_table(judged.part(~inside), grid, recipe.novelty_alpha):
            if row.max_error in answered:
                passes = judged.passing(recipe.novelty_alpha) >= row.threshold
                answered[row.max_error] |= inside & passes
    return CrossCalibrated(parts, judged, answered)


def _judge_by_other_folds(recipe: Recipe, out_of_fold: OutOfFold) -> Judged:
    scores, folds = out_of_fold.scores, out_of_fold.folds
    probabilities = np.empty(scores.logits.shape, np.float64)
    novelty_p = np.ones(len(folds)) if recipe.novelty_names else None
    for fold in np.unique(folds):
        inside = folds == fold
        others, own = rows_of(scores, ~inside), rows_of(scores, inside)
        part = judge(
            own,
            fit_calibration(recipe.calibration, others, "folds"),
            novelty_tables(others, recipe.novelty_names, "folds"),
        )
        probabilities[inside] = part.probabilities
        if novelty_p is not None and part.novelty_p is not None:
            novelty_p[inside] = part.novelty_p
    return Judged(probabilities, scores.targets, novelty_p)


def threshold_grid(confidence: NDArray[np.float64], least: float = 0) -> list[float]:
    """Return thresholds, strict to loose, fixed before the calibration split is looked at.

    None is below `least`, which ends the walk if familiar rows are less confident than that.
    """
    values = np.quantile(confidence, _WITHHELD, method="lower").round(DECIMALS)
    return sorted({max(value, least) for value in values.tolist()}, reverse=True)


def certify(
    confidence: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    grid: Sequence[float],
    max_error: float,
    delta: float,
) -> CertifiedRow | None:
    """Return the loosest threshold below which the error is certified, or None.

    With probability 1 - `delta` over the draw of the rows, at most `max_error` of the inputs that
    pass the threshold are wrong. Learn-then-Test with a fixed sequence and the exact binomial
    tail: Angelopoulos et al. 2021, section 4.

    Args:
        confidence: shape (rows,), rounded to 1e-6; below every threshold where a gate is closed.
        wrong: shape (rows,).
        grid: thresholds, strict to loose, chosen without these rows.
        max_error: risk to certify.
        delta: probability that the certificate may be wrong.
    """
    least = fewest_rows(max_error, delta, len(confidence))
    certified = None
    for threshold in grid:
        passing = confidence >= threshold
        n = int(passing.sum())
        if n < least:
            continue
        errors = int(wrong[passing].sum())
        if binom.cdf(errors, n, max_error) > delta:
            break
        coverage = n / len(confidence)
        certified = CertifiedRow(
            max_error=max_error, threshold=threshold, coverage=coverage, n=n, errors=errors
        )
    return certified


def fewest_rows(max_error: float, delta: float, n: int) -> int:
    """Return how many rows must be answered for a threshold to be tested at all.

    The first failed test ends the walk, so it may begin only where a good model passes: at the
    fewest rows of which a third of `max_error` may be wrong, one at least. Otherwise a single
    mislabelled row among the most confident ones ends the walk before it begins. With too few rows
    for that it begins where no error at all would pass. Neither looks at an error, so the
    guarantee stands.
    """
    without_error = math.ceil(math.log(delta) / math.log1p(-max_error))
    rows = np.arange(without_error, n + 1)
    passes = binom.cdf(np.ceil(rows * max_error / 3), rows, max_error) <= delta
    return int(rows[passes][0]) if passes.any() else without_error


def certified_table(
    judged: Judged, grid: Sequence[float], novelty_alpha: float
) -> tuple[CertifiedRow, ...]:
    """Return the certified row of each risk that has one; all hold at once."""
    confidence = judged.passing(novelty_alpha)
    rows = (certify(confidence, judged.wrong, grid, risk, DELTA / len(RISKS)) for risk in RISKS)
    return tuple(row for row in rows if row is not None)


def make_policy(
    recipe: Recipe,
    table: tuple[CertifiedRow, ...],
    n: int,
    mixture: str,
    split: Literal["calibration", "folds"],
) -> Policy:
    """Return the policy whose default is the recipe's risk or the next larger certified one.

    If nothing can be certified nothing is answered: the threshold is 1.
    """
    default = next((row for row in table if row.max_error >= recipe.max_error), None)
    status: Literal["certified", "cross_fitted"] = (
        "certified" if split == "calibration" else "cross_fitted"
    )
    return Policy(
        max_error=default.max_error if default else None,
        threshold=default.threshold if default else 1.0,
        novelty_alpha=recipe.novelty_alpha,
        table=table,
        status=status if default else "uncertified",
        confidence=1 - DELTA,
        split=split,
        n=n,
        mixture=mixture,
    )


def conformal_limits(judged: Judged, split: str) -> Conformal:
    """Return class-conditional split conformal limits (Vovk 2012) for sets {y: 1-p_y <= q_y}."""
    labels = judged.probabilities.shape[1]
    limits = []
    for label in range(labels):
        scores = np.sort(1 - judged.probabilities[judged.targets == label, label])
        rank = math.ceil((len(scores) + 1) * CONFORMAL_LEVEL)
        # Too few rows of the label: only the full set keeps the promise.
        limit = scores[rank - 1] if rank <= len(scores) else 1.0
        # Rounded up, so that the served comparison is never the stricter one.
        limits.append(min(1.0, math.ceil(limit * 10**DECIMALS) / 10**DECIMALS))
    return Conformal(
        level=CONFORMAL_LEVEL, limits=tuple(limits), split=split, n=len(judged.targets)
    )


def reference_profile(judged: Judged, policy: Policy, labels: Sequence[str]) -> Reference:
    """Return what traffic looks like when nothing drifts."""
    best = judged.probabilities.argmax(axis=1)
    shares = np.bincount(best, minlength=len(labels)) / len(best)
    answered = judged.passing(policy.novelty_alpha) >= policy.threshold
    novelty_p = judged.novelty_p
    return Reference(
        confidence=_histogram(judged.confidence),
        novelty_p=None if novelty_p is None else _histogram(novelty_p),
        labels=dict(zip(labels, shares.tolist(), strict=True)),
        answered=float(answered.mean()),
    )


def _histogram(values: NDArray[np.float64]) -> Histogram:
    counts, edges = np.histogram(values, bins=_HISTOGRAM_BINS, range=(0, 1))
    shares = counts / len(values)
    return Histogram(edges=tuple(edges.round(2).tolist()), shares=tuple(shares.tolist()))

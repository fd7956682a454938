"""Scores become facts of the manifest: probabilities, thresholds with a guarantee, limits.

Two splits, two purposes. `validation` chooses: temperature or power map, conformal limits, novelty
tables, the grid of thresholds. `calibration` is touched once: it certifies thresholds of that grid
and describes familiar traffic. A recipe that cross-validates has scores out of fold instead; then
each row is calibrated by what the other folds say, and the guarantee is approximate. A test split
beside the folds decides nothing: it gives the numbers of the card, as it does beside two splits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, poisson

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
"""Probability that any row of the table breaks its promise."""

DELTA_PER_RISK = DELTA / len(RISKS)
"""Probability that one given row of the table breaks its promise."""

CONFORMAL_LEVEL = 0.95
# Half a per mille apart where little is withheld, half a per cent elsewhere: that is where the
# thresholds of a good model lie.
_WITHHELD = np.unique(np.concatenate([np.linspace(0, 0.05, 101), np.linspace(0.05, 1, 191)]))
_HISTOGRAM_BINS = 20
_EVEN_STARTS = 4
_EVEN_SHARE = 0.2
"""Part of a test's level that the thresholds of `even_levels` share."""

_AS_LIKELY = 0.01
"""Likelihoods this close are taken for equal."""


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


def calibrate(
    recipe: Recipe,
    validation: Scores,
    calibration: Scores,
    mixture: str,
    risks: Sequence[float] = RISKS,
) -> Calibrated:
    """Return everything that decides, fitted on one split and certified on another."""
    mapping = fit_calibration(recipe.calibration, validation, "validation")
    novelty = novelty_tables(validation, recipe.novelty_names, "validation")
    chosen = judge(validation, mapping, novelty)
    once = judge(calibration, mapping, novelty)
    grid = threshold_grid(chosen.confidence, recipe.least_confidence)
    plan = plan_tests(chosen, recipe.novelty_alpha, grid)
    table = certified_table(once, plan, recipe.novelty_alpha, risks)
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


def cross_calibrate(
    recipe: Recipe, out_of_fold: OutOfFold, mixture: str, risks: Sequence[float] = RISKS
) -> CrossCalibrated:
    """Return everything that decides, from scores out of fold.

    What is shipped is fitted on all folds. Its numbers come from nesting: each fold is judged by
    a calibration and by thresholds that the other folds alone gave.
    """
    scores, folds = out_of_fold.scores, out_of_fold.folds
    judged = _judge_by_other_folds(recipe, out_of_fold)
    grid = threshold_grid(judged.confidence, recipe.least_confidence)
    alpha = recipe.novelty_alpha
    table = certified_table(judged, plan_tests_blindly(judged, alpha, grid), alpha, risks)
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
        others = judged.part(~inside)
        for row in certified_table(others, plan_tests_blindly(others, alpha, grid), alpha, risks):
            if row.max_error in answered:
                passes = judged.passing(alpha) >= row.threshold
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


@dataclass(frozen=True, slots=True)
class Plan:
    """Thresholds to test, and how each test is expected to end, without the rows that certify."""

    grid: Sequence[float]
    """Thresholds, strict to loose."""

    n: NDArray[np.int64]
    """Shape (grid,): rows expected to pass each threshold."""

    errors: NDArray[np.float64]
    """Shape (grid,): how many of these are expected to be wrong."""

    def levels(self, max_error: float, delta: float) -> NDArray[np.float64]:
        """Return the level at which each threshold is tested first, shape (grid,); sum `delta`.

        Most of `delta` goes to the threshold that is most likely to pass, the loosest of the best.
        A few others share a fifth of it, so that one unlucky row does not end all tests. A
        threshold gets nothing where so small a level needs more rows than there are.
        """
        levels = even_levels(len(self.grid), delta * _EVEN_SHARE)
        levels[_allowed_errors(self.n, max_error, levels) < 0] = 0
        rest = delta - levels.sum()
        # Errors are rare and nearly independent: Poisson.
        likelihood = poisson.cdf(_allowed_errors(self.n, max_error, rest), self.errors)
        likeliest = np.flatnonzero(likelihood >= likelihood.max() - _AS_LIKELY)[-1]
        levels[likeliest] += rest
        return levels


def plan_tests(seen: Judged, novelty_alpha: float, grid: Sequence[float]) -> Plan:
    """Return a plan from rows that certify nothing, about as many as those that do.

    The plan expects the errors of these rows, or those that their confidences tell if they are
    more: confident rows may have wrong labels.
    """
    blind = plan_tests_blindly(seen, novelty_alpha, grid)
    _, wrong = count_passing(seen.passing(novelty_alpha), seen.wrong, grid)
    return replace(blind, errors=np.maximum(blind.errors, wrong))


def plan_tests_blindly(judged: Judged, novelty_alpha: float, grid: Sequence[float]) -> Plan:
    """Return a plan from confidences alone, which may be those of the rows that certify."""
    confidence = judged.passing(novelty_alpha)
    return Plan(grid, *count_passing(confidence, 1 - judged.confidence, grid))


def count_passing(
    confidence: NDArray[np.float64], weight: NDArray[np.generic], grid: Sequence[float]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return how many rows pass each threshold, and the sum of their weights, shape (grid,)."""
    order = np.argsort(-confidence, kind="stable")
    n = np.searchsorted(-confidence[order], -np.asarray(grid), side="right")
    sums = np.concatenate([[0], weight[order].cumsum()])
    return n, sums[n]


def even_levels(thresholds: int, delta: float) -> NDArray[np.float64]:
    """Return `delta` in equal parts at a few thresholds far apart, shape (thresholds,)."""
    levels = np.zeros(thresholds)
    positions = (np.arange(1, _EVEN_STARTS + 1) * (thresholds - 1)) // _EVEN_STARTS
    np.add.at(levels, positions, delta / _EVEN_STARTS)
    return levels


def _allowed_errors(
    n: NDArray[np.int64], max_error: float, level: float | NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return with how many errors among `n` rows a test passes; -1 if not even with none."""
    # ppf is the least k of P(k or fewer errors) >= level: allowed if equal, else the one below.
    least = binom.ppf(level, n, max_error).astype(np.int64)
    allowed: NDArray[np.int64] = np.where(binom.cdf(least, n, max_error) <= level, least, least - 1)
    return allowed


def certify(
    confidence: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    grid: Sequence[float],
    max_error: float,
    levels: NDArray[np.float64],
) -> CertifiedRow | None:
    """Return the loosest threshold below which the error is certified, or None.

    With probability 1 - sum of `levels` over the draw of the rows, at most `max_error` of the
    inputs that pass the threshold are wrong. Learn-then-Test (Angelopoulos et al. 2021, sections 3
    and 4) with the exact binomial tail as p-value and the fallback procedure, see `passed`. No
    level depends on these rows, so one more row that is right never loses a certificate.

    Args:
        confidence: shape (rows,), rounded to 1e-6; below every threshold where a gate is closed.
        wrong: shape (rows,).
        grid: thresholds, strict to loose, chosen without these rows.
        max_error: risk to certify.
        levels: shape (grid,), chosen without these rows, as by `Plan.levels`.
    """
    n, errors = count_passing(confidence, wrong, grid)
    is_certified = passed(binom.cdf(errors, n, max_error), levels)
    if not is_certified.any():
        return None
    last = int(np.flatnonzero(is_certified)[-1])
    return CertifiedRow(
        max_error=max_error,
        threshold=grid[last],
        coverage=int(n[last]) / len(confidence),
        n=int(n[last]),
        errors=int(errors[last]),
    )


def passed(p_values: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which tests of a sequence pass; the family-wise error rate is the sum of `levels`.

    The fallback procedure: a test that passes adds its level to that of the next test. Wiens 2003;
    Wiens and Dmitrienko 2005 prove the error rate.

    Args:
        p_values: shape (..., tests).
        levels: shape (tests,), chosen without the rows of the p-values.
    """
    passes = np.zeros(p_values.shape, np.bool_)
    handed_on = np.zeros(p_values.shape[:-1])
    for test, level in enumerate(levels):
        available = handed_on + level
        # At level 0 nothing passes, not even a p-value that underflows to 0.
        passes[..., test] = (p_values[..., test] <= available) & (available > 0)
        handed_on = np.where(passes[..., test], available, 0.0)
    return passes


def certified_table(
    judged: Judged, plan: Plan, novelty_alpha: float, risks: Sequence[float] = RISKS
) -> tuple[CertifiedRow, ...]:
    """Return the certified row of each risk that has one, strict to loose; all hold at once.

    Args:
        judged: the rows that certify.
        plan: thresholds, and where to start.
        novelty_alpha: least novelty p-value to answer.
        risks: what to certify; they share `DELTA`.
    """
    confidence, delta = judged.passing(novelty_alpha), DELTA / len(risks)
    rows = (
        certify(confidence, judged.wrong, plan.grid, risk, plan.levels(risk, delta))
        for risk in sorted(risks)
    )
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

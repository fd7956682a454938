"""Scores of labelled rows become what decides, certified as well as their number allows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from service.bundle.manifest import Policy
from training import calibrate
from training.calibrate import (
    Calibrated,
    Judged,
    certified_table,
    make_policy,
    reference_profile,
)
from training.errors import PackRefused
from training.packing.classifiers import Look
from training.packing.heads import (
    MAX_FEATURES,
    Energy,
    LowProbability,
    Mahalanobis,
    NoveltyHead,
    Returns,
    fit_mahalanobis,
)
from training.recipe import OutOfFold, Recipe, Scores

ENOUGH_ROWS = 1000
"""From here on one half fits and the other certifies; below, too little would be left of either."""

FOLDS = 10
FEWEST_OF_A_LABEL = 5
"""Different rows that each label must have: with fewer, most folds would not know it."""


@dataclass(frozen=True, slots=True)
class Parting:
    """Which calibration rows fit and which certify."""

    kind: Literal["halves", "folds"]
    parts: NDArray[np.int64]
    """Shape (rows,). Halves: 0 fits, 1 certifies. Folds: each is judged by the others."""

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Whether a row may fit what is put into the graph."""
        if self.kind == "folds":
            return np.ones(len(self.parts), np.bool_)
        return np.equal(self.parts, 0)

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Whether numbers may be measured on a row: all that did not fit what judges them."""
        return ~self.fits if self.kind == "halves" else self.fits

    @property
    def reason(self) -> str:
        """One sentence for the user."""
        n = len(self.parts)
        if self.kind == "halves":
            fits = int(self.fits.sum())
            return f"{fits:,} rows fit the calibration, the other {n - fits:,} certify"
        folds = int(self.parts.max()) + 1
        return (
            f"{n:,} rows are too few to be halved (from {ENOUGH_ROWS:,} on they are): {folds} "
            "folds, each judged by the others, so that the guarantee is approximate"
        )


def part_rows(rows: NDArray[np.generic], targets: NDArray[np.int64], seed: int) -> Parting:
    """Return which rows fit and which certify; equal rows stay together.

    Raises:
        PackRefused: if a label has too few rows.
    """
    groups = np.unique([row.tobytes() for row in rows], return_inverse=True)[1]
    fewest = min(len(set(groups[targets == label].tolist())) for label in np.unique(targets))
    if fewest < FEWEST_OF_A_LABEL:
        raise PackRefused(
            f"the calibration file has {fewest} different rows of its rarest label; at least "
            f"{FEWEST_OF_A_LABEL} of each are needed, and some hundreds to certify much"
        )
    kind: Literal["halves", "folds"] = "halves" if len(rows) >= ENOUGH_ROWS else "folds"
    splits = 2 if kind == "halves" else min(FOLDS, fewest)
    parts = np.empty(len(rows), np.int64)
    splitter = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
    for number, (_, inside) in enumerate(splitter.split(rows, targets, groups)):
        parts[inside] = number
    return Parting(kind, parts)


def novelty_head(
    look: Look, targets: NDArray[np.int64], fits: NDArray[np.bool_], returns: Returns
) -> NoveltyHead:
    """Return what measures novelty: over features if there are any, else over logits.

    Raises:
        PackRefused: if the features cannot be measured.
    """
    if look.features is None:
        return Energy() if returns == "logits" else LowProbability()
    columns = look.features.shape[1]
    if columns > MAX_FEATURES:
        raise PackRefused(
            f"the feature output has {columns:,} numbers a row, more than {MAX_FEATURES:,}; name a "
            "smaller one with --feature-output, such as the last one before the labels"
        )
    if not np.isfinite(look.features).all():
        bad = int((~np.isfinite(look.features).all(axis=1)).sum())
        raise PackRefused(
            f"the feature output is NaN or infinite on {bad} calibration rows; name one behind the "
            "imputation with --feature-output"
        )
    return fit_mahalanobis(look.features[fits], targets[fits])


def left_out_novelty(
    look: Look, targets: NDArray[np.int64], parting: Parting, scores: Scores
) -> Scores:
    """Return the scores with the novelty of each fold as the other folds measure it.

    The rows that fitted a distance are closer to it than any that come later.
    """
    if parting.kind == "halves" or look.features is None:
        return scores
    novelty = np.empty_like(scores.novelty_scores)
    for fold in np.unique(parting.parts):
        inside = parting.parts == fold
        head = fit_mahalanobis(look.features[~inside], targets[~inside])
        novelty[inside] = _measured(head, look.features[inside])
    return Scores(scores.logits, novelty, scores.targets)


def _measured(head: Mahalanobis, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(head.scores(keras.ops, None, keras.ops.convert_to_tensor(features)))


@dataclass(frozen=True, slots=True)
class Decided:
    """The parts of the manifest that decide, and rows judged by them that did not fit them."""

    parts: Calibrated
    judged: Judged
    answered: dict[float, NDArray[np.bool_]]
    """Risk -> which of the judged rows are answered."""

    split: str
    """What the judged rows are, in words."""


def decide(
    recipe: Recipe, risks: Sequence[float], scores: Scores, parting: Parting, mixture: str
) -> Decided:
    """Return what decides, with a certified row for each of `risks` that has one."""
    if parting.kind == "halves":
        return _decide_by_halves(recipe, risks, scores, parting, mixture)
    crossed = calibrate.cross_calibrate(recipe, OutOfFold(scores, parting.parts), mixture)
    grid = calibrate.threshold_grid(crossed.judged.confidence)
    alpha = recipe.novelty_alpha
    table = certified_table(crossed.judged, grid, alpha, risks=risks)
    policy = make_policy(recipe, table, len(parting.parts), mixture, "folds")
    answered = {row.max_error: np.zeros(len(parting.parts), np.bool_) for row in table}
    for fold in np.unique(parting.parts):
        inside = parting.parts == fold
        for row in certified_table(crossed.judged.part(~inside), grid, alpha, risks=risks):
            if row.max_error in answered:
                passes = crossed.judged.passing(alpha) >= row.threshold
                answered[row.max_error] |= inside & passes
    parts = _with_policy(crossed.parts, policy, crossed.judged, recipe.labels)
    return Decided(parts, crossed.judged, answered, "calibration rows, each fold by the others")


def _decide_by_halves(
    recipe: Recipe, risks: Sequence[float], scores: Scores, parting: Parting, mixture: str
) -> Decided:
    fits = parting.fits
    parts = calibrate.calibrate(recipe, _rows_of(scores, fits), _rows_of(scores, ~fits), mixture)
    judged = parts.judge(_rows_of(scores, ~fits))
    chosen = parts.judge(_rows_of(scores, fits))
    grid = calibrate.threshold_grid(chosen.confidence)
    table = certified_table(judged, grid, recipe.novelty_alpha, chosen, risks)
    policy = make_policy(recipe, table, len(judged.targets), mixture, "calibration")
    passing = judged.passing(recipe.novelty_alpha)
    answered = {row.max_error: passing >= row.threshold for row in table}
    parts = _with_policy(parts, policy, judged, recipe.labels)
    return Decided(parts, judged, answered, "calibration rows that certify")


def _with_policy(
    parts: Calibrated, policy: Policy, judged: Judged, labels: tuple[str, ...]
) -> Calibrated:
    return replace(parts, policy=policy, reference=reference_profile(judged, policy, labels))


def _rows_of(scores: Scores, mask: NDArray[np.bool_]) -> Scores:
    return Scores(scores.logits[mask], scores.novelty_scores[mask], scores.targets[mask])

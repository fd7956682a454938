"""Scores of labelled rows become what decides, certified as well as their number allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from training.calibrate import Calibrated, Judged, calibrate, cross_calibrate
from training.errors import PackRefused
from training.mappings import rows_of
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
    crossed = cross_calibrate(recipe, OutOfFold(scores, parting.parts), mixture, risks)
    split = "calibration rows, each fold by the others"
    return Decided(crossed.parts, crossed.judged, crossed.answered, split)


def _decide_by_halves(
    recipe: Recipe, risks: Sequence[float], scores: Scores, parting: Parting, mixture: str
) -> Decided:
    fitting, certifying = (rows_of(scores, mask) for mask in (parting.fits, ~parting.fits))
    parts = calibrate(recipe, fitting, certifying, mixture, risks)
    judged = parts.judge(certifying)
    passing = judged.passing(recipe.novelty_alpha)
    answered = {row.max_error: passing >= row.threshold for row in parts.policy.table}
    return Decided(parts, judged, answered, "calibration rows that certify")

"""A bundle's scores become the numbers of its card; nothing is fitted or chosen here.

Training measures what it has just calibrated, `dunno evaluate` a bundle as it lies on the disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle
from service.bundle.manifest import Condition, Evaluation, Manifest, OutlierFamily, Policy
from service.decision import Judge
from service.runtimes import RuntimeOptions, load_runtime
from training import evaluate, export, outlier_tests, reasons
from training.calibrate import CrossCalibrated, Judged, judge
from training.recipe import Data, Scores, Split
from training.store import keep_scores

_BATCH_ROWS = 64
_CONDITION = "condition "
_OUTLIERS = "outliers "


def measured_splits(data: Data) -> dict[str, Split]:
    """Return the splits that are measured, by name: test, its conditions, outlier families."""
    test = {} if data.splits.test is None else {"test": data.splits.test}
    return {
        **test,
        **{_CONDITION + name: split for name, split in data.splits.conditions.items()},
        **{
            # They have no target; none is looked at.
            _OUTLIERS + name: Split(rows, np.zeros(len(rows), np.int64))
            for name, rows in data.outliers.items()
        },
    }


def score(bundle: Bundle, splits: Mapping[str, Split], folder: Path) -> None:
    """Write what the ONNX graph of a bundle says of each split to `folder`."""
    runtime = load_runtime("onnx", bundle, RuntimeOptions(threads=2, device="cpu"))
    scores = {}
    for name, split in splits.items():
        outputs = export.run_rows(runtime, split.rows, _BATCH_ROWS)
        scores[name] = Scores(outputs["logits"], outputs["novelty_scores"], split.targets)
    keep_scores(folder, scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """Rows of the labels that a card reports on, judged by nothing that was fitted to them."""

    rows: NDArray[np.generic]
    """Shape (rows, *input)."""

    judged: Judged
    answered: Mapping[float, NDArray[np.bool_]]
    """Risk -> which of the rows are answered, for each row of the certified table."""

    split: str
    """What the rows are, in words."""


def on_test_split(data: Data, judged: Judged, policy: Policy) -> Reported:
    """Return the test rows, which chose nothing, as they are served."""
    return Reported(
        rows=measured_splits(data)["test"].rows,
        judged=judged,
        answered=evaluate.answers(judged, policy),
        split="official test split",
    )


def on_folds(data: Data, crossed: CrossCalibrated, policy: Policy) -> Reported:
    """Return the training rows, each fold judged by what the other folds say."""
    return Reported(
        rows=data.splits.train.rows,
        judged=crossed.judged,
        answered={**evaluate.answers(crossed.judged, policy), **crossed.answered},
        split="folds left out",
    )


def measure(
    manifest: Manifest, reported: Reported, scores: Mapping[str, Scores], data: Data
) -> Evaluation:
    """Return all numbers of a card.

    Args:
        manifest: what decides.
        reported: rows of the labels.
        scores: of the splits in `measured_splits`, by name; others are not looked at.
        data: what was scored.
    """
    court = Judge(manifest)
    evaluation = evaluate.evaluate(
        reported.judged,
        reported.answered,
        manifest.policy,
        split=reported.split,
        seed=manifest.provenance.seed,
    )
    more: dict[str, object] = {
        "reasons": reasons.shares(reasons.verdicts(court, reported.judged)),
        "conditions": tuple(
            _condition(name.removeprefix(_CONDITION), court, manifest, part)
            for name, part in scores.items()
            if name.startswith(_CONDITION)
        ),
        "outliers": tuple(
            _family(name.removeprefix(_OUTLIERS), court, judged_by(manifest, part), data)
            for name, part in scores.items()
            if name.startswith(_OUTLIERS)
        ),
    }
    return evaluation.model_copy(update=more)


def judged_by(manifest: Manifest, scores: Scores) -> Judged:
    """Return rows as a manifest judges them."""
    return judge(scores, manifest.calibration, manifest.novelty)


def _condition(name: str, court: Judge, manifest: Manifest, scores: Scores) -> Condition:
    judged = judged_by(manifest, scores)
    given = reasons.verdicts(court, judged)
    return evaluate.condition(name, judged, given, manifest.provenance.seed)


def _family(name: str, court: Judge, judged: Judged, data: Data) -> OutlierFamily:
    family = evaluate.outlier_family(name, reasons.verdicts(court, judged))
    test, declared = data.splits.test, data.input
    if test is None or declared.kind != "image":
        return family
    pairs = outlier_tests.averaged_labels(test, data.outliers[name])
    if pairs is None:
        return family
    held = reasons.hold_both(court, judged.probabilities, pairs)
    both = evaluate.share(int(held.sum()), len(held))
    return family.model_copy(update={"both_labels": both})

"""`dunno evaluate`: a bundle as it lies on the disk is measured again, and its card written anew.

Nothing is fitted or calibrated: the bundle's own graph, tables and policy judge the recipe's frozen
lists. Only a recipe that cross-validates, whose numbers come from folds, needs what its fit left in
the work folder, and fits again if that is gone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.bundle import Bundle, read_bundle
from service.bundle.manifest import Baseline, Manifest
from service.bundle.store import file_of
from training import measuring
from training.calibrate import cross_calibrate
from training.comparison import Compared, compare
from training.describing import CURVES, Subject, undescribed, write_described
from training.errors import RecipeDiffers
from training.fingerprints import array_fingerprint, fingerprint
from training.measuring import Reported
from training.packing.packed_recipe import PackedRecipe, remeasure_packed
from training.pipeline import Place, find_recipe, fitted, lecture_baselines, own_work
from training.recipe import Data, Recipe, Scores
from training.steps import Step
from training.store import read_scores

_TRAIN_AGAIN = "the recipe has changed since: train the model again"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Remeasured:
    """A bundle with its new card, and how its numbers compare with those it had."""

    bundle: Bundle
    compared: tuple[Compared, ...]


def remeasure(name: str, place: Place) -> Remeasured:
    """Measure the bundle of the recipe `name` and write its card, pictures and evaluation.

    Whatever decides stays as it is: graph, calibration, novelty, policy, golden rows.

    Raises:
        RecipeMissing: if there is no such recipe.
        BundleMissing, ManifestInvalid, BundleCorrupt: if the bundle cannot be trusted.
        RecipeDiffers: if the recipe has other labels or another input than the bundle.
        DataMissing, DataCorrupt: if the data cannot be had.
    """
    recipe, lecture = find_recipe(name)
    before = read_bundle(place.bundle)
    refuse_other_labels(recipe, before)
    if isinstance(recipe, PackedRecipe):
        after = remeasure_packed(recipe, place.data, place.work / name, before)
    else:
        baselines = lecture_baselines(name, lecture, place)
        after = remeasure_recipe(recipe, place, before, baselines)
    evaluation = after.manifest.evaluation
    if evaluation is None:
        raise TypeError("a measured bundle has an evaluation")
    return Remeasured(after, compare(before.manifest.evaluation, evaluation))


def remeasure_recipe(
    recipe: Recipe, place: Place, bundle: Bundle, baselines: Sequence[Baseline] = ()
) -> Bundle:
    """Measure a bundle that `pipeline.make` wrote, write its card, and return it.

    Args:
        recipe: what was made.
        place: where its data and its steps are.
        bundle: what came of it.
        baselines: for the card; none keeps those that it has.
    """
    data = recipe.load(place.data)
    manifest = bundle.manifest
    refuse_other_data(bundle, data)
    scores = _scores(bundle, data, place.work / recipe.name / "evaluation")
    reported = _reported(recipe, manifest, data, scores, own_work(recipe.name, place))
    evaluation = measuring.measure(manifest, reported, scores, data)
    if manifest.evaluation:
        shown = tuple(baselines) or manifest.evaluation.baselines
        kept = {"baselines": shown, "facts": manifest.evaluation.facts}
        evaluation = evaluation.model_copy(update=kept)
    return write_described(
        bundle.path,
        undescribed(bundle),
        manifest.model_copy(update={"evaluation": evaluation}),
        Subject(
            recipe=recipe,
            data=data,
            reported=reported,
            curves=bundle.read(CURVES) if CURVES in manifest.files else None,
        ),
    )


def refuse_other_data(bundle: Bundle, data: Data) -> None:
    """Raise if a bundle takes other rows than its recipe loads now.

    Raises:
        RecipeDiffers: naming the bundle.
    """
    manifest = bundle.manifest
    if data.input != manifest.input or any(
        manifest.files.get(name) != file_of(content) for name, content in data.files.items()
    ):
        raise RecipeDiffers(f"{bundle.path}: its input or vocabulary differs; {_TRAIN_AGAIN}")


def refuse_other_labels(recipe: Recipe, bundle: Bundle) -> None:
    """Raise if a bundle has other labels than its recipe.

    Raises:
        RecipeDiffers: naming the bundle.
    """
    if recipe.labels != bundle.manifest.labels:
        raise RecipeDiffers(f"{bundle.path}: its labels are other ones; {_TRAIN_AGAIN}")


def _scores(bundle: Bundle, data: Data, folder: Path) -> dict[str, Scores]:
    """Return what the bundle says of everything that is measured, kept for the next time."""
    splits = measuring.measured_splits(data)
    made_from = fingerprint(
        bundle.manifest.files["model.onnx"].sha256,
        {
            name: (array_fingerprint(split.rows), array_fingerprint(split.targets))
            for name, split in splits.items()
        },
    )
    step = Step(folder, made_from)
    log.info("scoring what is measured, unless it has been")
    step.ensure(partial(measuring.score, bundle, splits))
    return read_scores(step.folder)


def _reported(
    recipe: Recipe, manifest: Manifest, data: Data, scores: dict[str, Scores], work: Path
) -> Reported:
    if "test" in scores:
        judged = measuring.judged_by(manifest, scores["test"])
        return measuring.on_test_split(data, judged, manifest.policy)
    out_of_fold = fitted(recipe, data, work).out_of_fold
    if out_of_fold is None:
        raise TypeError(f"{recipe.name}: a recipe without test split has scores out of fold")
    crossed = cross_calibrate(recipe, out_of_fold, data.mixture)
    return measuring.on_folds(data, crossed, manifest.policy)

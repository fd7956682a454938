"""Recipe name -> bundle: load, fit, export, verify, calibrate, evaluate, write.

Everything up to the scores of each split is kept in the work folder and not redone unless the code
or the data it came from have changed; what follows takes seconds and is always redone.
"""

import hashlib
import importlib
import logging
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np

from service.bundle import Bundle, read_bundle, write_bundle
from service.bundle.manifest import Baseline, File, Graph, Manifest
from training import evaluate, export, measuring, plots, recipes
from training.calibrate import Calibrated, calibrate, cross_calibrate
from training.describing import Subject, write_described
from training.errors import RecipeMissing
from training.fingerprints import array_fingerprint, code_fingerprint, fingerprint
from training.golden import GOLDEN, golden_file, spread
from training.packing.packed_recipe import PackedRecipe, make_packed
from training.provenance import LIBRARIES, provenance_of
from training.recipe import Data, Recipe, Scores, Split, Workbench
from training.steps import Step
from training.store import Kept, keep_fitted, read_fitted, read_scores

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run reads and writes."""

    data: Path
    work: Path
    bundle: Path
    """Folder of the version; its name is the version."""


def recipe_names() -> list[str]:
    """Return the names of all recipes: the modules in `training/recipes/`."""
    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))


def find_recipe(name: str) -> tuple[Recipe, tuple[Recipe, ...]]:
    """Return the recipe of that name and those of the networks that lectures show for it.

    Raises:
        RecipeMissing: if there is no such module.
    """
    if name not in recipe_names():
        raise RecipeMissing(f"no recipe {name!r}; there are: {', '.join(recipe_names())}")
    module = importlib.import_module(f"{recipes.__name__}.{name}")
    return module.RECIPE, module.LECTURE


def train(name: str, network: str, place: Place) -> Bundle:
    """Train a network of the recipe `name` and return the bundle written last.

    Networks that lectures show come first, so that our own can be compared with them; their
    bundles stay below the work folder.

    Args:
        name: of the recipe.
        network: one of `training.recipe.NETWORKS`.
        place: `work` is shared by all recipes.
    """
    own, lecture = find_recipe(name)
    if isinstance(own, PackedRecipe):
        return make_packed(own, place.data, place.work / name, place.bundle)
    bundle = None
    for number, other in enumerate(lecture, start=1):
        log.info("lecture network: %s", other.network)
        target = lecture_folder(name, place) / str(number)
        bundle = make(other, Place(place.data, place.work / name / f"lecture_{number}", target))
    if network == "lecture" and bundle is not None:
        return bundle
    log.info("our network: %s", own.network)
    own_place = Place(place.data, own_work(name, place), place.bundle)
    return make(own, own_place, lecture_baselines(name, lecture, place))


def lecture_folder(name: str, place: Place) -> Path:
    """Return the folder of the bundles of a recipe's lecture networks."""
    return place.work / "lecture" / name


def lecture_baselines(name: str, lecture: Sequence[Recipe], place: Place) -> tuple[Baseline, ...]:
    """Return the numbers of a recipe's lecture networks that were trained in this work folder."""
    paths = [lecture_folder(name, place) / str(number + 1) for number in range(len(lecture))]
    manifests = [read_bundle(path).manifest for path in paths if path.exists()]
    return tuple(
        evaluate.baseline(manifest.provenance.network, manifest.evaluation)
        for manifest in manifests
        if manifest.evaluation
    )


def own_work(name: str, place: Place) -> Path:
    """Return the folder of our network's steps, below the work folder of all recipes."""
    return place.work / name / "dunno"


def make(recipe: Recipe, place: Place, baselines: Sequence[Baseline] = ()) -> Bundle:
    """Make one recipe's bundle and return it.

    Raises:
        DataMissing: if a data file cannot be had.
        DataCorrupt: if a data file is another one.
        ExportDiffers: if the runtimes disagree; nothing is written.
    """
    data = recipe.load(place.data)
    fit, exported, scored = _steps(recipe, data, place.work)
    seconds = fit.ensure(partial(_fit, recipe, data))
    kept = read_fitted(fit.folder)
    version = place.bundle.name
    seconds += exported.ensure(partial(_export, recipe, data, kept, version))
    draft = read_bundle(exported.folder / "draft")
    seconds += scored.ensure(partial(measuring.score, draft, _named_splits(data)))
    scores = read_scores(scored.folder)
    measured = _measure(recipe, data, kept, scores)
    deciding = {
        **_deciding_parts(measured.parts),
        "version": version,
        "provenance": provenance_of(recipe, data, seconds),
    }
    manifest = draft.manifest.model_copy(update=deciding)
    evaluation = measuring.measure(manifest, measured.reported, scores, data)
    told = {"baselines": tuple(baselines), "facts": dict(kept.facts)}
    return write_described(
        place.bundle,
        {name: draft.read(name) for name in draft.manifest.files} | {GOLDEN: _golden(draft, data)},
        manifest.model_copy(update={"evaluation": evaluation.model_copy(update=told)}),
        Subject(
            recipe=recipe,
            data=data,
            reported=measured.reported,
            curves=plots.learning_curves(kept.curves) if kept.curves else None,
        ),
    )


def fitted(recipe: Recipe, data: Data, work: Path) -> Kept:
    """Return what fitting gave, as it was kept in the folder `work` or made now."""
    step, _, _ = _steps(recipe, data, work)
    step.ensure(partial(_fit, recipe, data))
    return read_fitted(step.folder)


def _steps(recipe: Recipe, data: Data, work: Path) -> tuple[Step, Step, Step]:
    splits = data.splits
    fitting = [split for split in (splits.train, splits.validation) if split]
    scoring = [*fitting, *_named_splits(data).values()]
    libraries = [version_of(name) for name in LIBRARIES]
    fit = fingerprint(
        code_fingerprint(recipe.fit),
        *(recipe.network, recipe.seed, recipe.labels, libraries),
        *(array_fingerprint(part) for split in fitting for part in (split.rows, split.targets)),
    )
    exported = fingerprint(
        fit,
        [code_fingerprint(function) for function in (export.to_onnx, export.verify)],
        data.input.model_dump_json(),
        {name: hashlib.sha256(content).hexdigest() for name, content in data.files.items()},
    )
    scored = fingerprint(exported, *(array_fingerprint(split.rows) for split in scoring))
    return Step(work / "fit", fit), Step(work / "export", exported), Step(work / "scores", scored)


def _fit(recipe: Recipe, data: Data, folder: Path) -> None:
    workbench = Workbench(folder / "checkpoints")
    workbench.folder.mkdir(parents=True, exist_ok=True)
    keep_fitted(folder, recipe.fit(data, workbench))


def _export(recipe: Recipe, data: Data, kept: Kept, version: str, folder: Path) -> None:
    log.info("exporting and comparing SavedModel and ONNX")
    graph = export.to_onnx(kept.saved_model)
    contents = {
        "model.onnx": graph,
        **export.folder_contents(kept.saved_model, "saved_model"),
        **data.files,
    }
    described = export.describe_graph(graph)
    draft = write_bundle(
        folder / "draft",
        contents,
        lambda files: _draft(recipe, data, described, version, files),
    )
    rows = _real_rows(data)
    order = np.random.default_rng(recipe.seed).permutation(len(rows))[: export.COMPARED_ROWS]
    difference = export.verify(draft, rows[np.sort(order)])
    log.info("largest difference on %d rows: %.2g", len(order), difference)


def _named_splits(data: Data) -> dict[str, Split]:
    """Return all splits that are scored, by name: those that decide, then those measured."""
    deciding = {"validation": data.splits.validation, "calibration": data.splits.calibration}
    named = {name: split for name, split in deciding.items() if split is not None}
    return {**named, **measuring.measured_splits(data)}


def _real_rows(data: Data) -> np.ndarray:
    return (data.splits.test or data.splits.train).rows


def _golden(draft: Bundle, data: Data) -> bytes:
    rows = _real_rows(data)
    return golden_file(draft, rows[spread(len(rows))])


@dataclass(frozen=True, slots=True)
class _Measured:
    parts: Calibrated
    reported: measuring.Reported


def _measure(recipe: Recipe, data: Data, kept: Kept, scores: dict[str, Scores]) -> _Measured:
    log.info("calibrating and evaluating")
    if kept.out_of_fold:
        crossed = cross_calibrate(recipe, kept.out_of_fold, data.mixture)
        parts = crossed.parts
        if "test" not in scores:
            return _Measured(parts, measuring.on_folds(data, crossed, parts.policy))
    else:
        parts = calibrate(recipe, scores["validation"], scores["calibration"], data.mixture)
    judged = parts.judge(scores["test"])
    return _Measured(parts, measuring.on_test_split(data, judged, parts.policy))


def _deciding_parts(parts: Calibrated) -> dict[str, object]:
    return {
        "calibration": parts.calibration,
        "novelty": parts.novelty,
        "conformal": parts.conformal,
        "policy": parts.policy,
        "reference": parts.reference,
    }


def _draft(
    recipe: Recipe, data: Data, graph: Graph, version: str, files: dict[str, File]
) -> Manifest:
    """Return a manifest that is enough to run the graph; what decides is not known yet."""
    rows = _named_splits(data).get("validation", data.splits.train)
    nothing = np.zeros((len(rows.targets), len(recipe.labels)), np.float32)
    scores = Scores(
        nothing, np.zeros((len(nothing), len(recipe.novelty_names)), np.float32), rows.targets
    )
    parts = calibrate(recipe, scores, scores, data.mixture)
    return Manifest(
        name=recipe.name,
        version=version,
        description=recipe.description,
        labels=recipe.labels,
        input=data.input,
        files=files,
        graph=graph,
        provenance=provenance_of(recipe, data, seconds=1),
        **_deciding_parts(parts),
    )

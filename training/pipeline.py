"""Recipe name -> bundle: load, fit, export, verify, calibrate, evaluate, write.

Everything up to the scores of each split is kept in the work folder and not redone unless the code
or the data it came from have changed; what follows takes seconds and is always redone.
"""

import hashlib
import importlib
import io
import logging
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np

from service.bundle import Bundle, read_bundle, write_bundle
from service.bundle.manifest import Baseline, Evaluation, File, Graph, Manifest, OutlierFamily
from service.runtimes import RuntimeOptions, load_runtime
from training import evaluate, export, plots, recipes
from training.calibrate import Calibrated, Judged, calibrate, cross_calibrate
from training.errors import RecipeMissing
from training.fingerprints import array_fingerprint, code_fingerprint, fingerprint
from training.provenance import LIBRARIES, provenance_of
from training.recipe import Data, Picture, Recipe, Scores, Split, Workbench
from training.report import CARD, model_card
from training.steps import Step
from training.store import Kept, keep_fitted, keep_scores, read_fitted, read_scores

GOLDEN = "golden.npz"
GOLDEN_ROWS = 8
_BATCH_ROWS = 64
_CONDITION = "condition "
_OUTLIERS = "outliers "

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
    baselines: list[Baseline] = []
    bundle = None
    for number, other in enumerate(lecture, start=1):
        log.info("lecture network: %s", other.network)
        target = place.work / "lecture" / name / str(number)
        bundle = make(other, Place(place.data, place.work / name / f"lecture_{number}", target))
        if bundle.manifest.evaluation:
            baselines.append(evaluate.baseline(other.network, bundle.manifest.evaluation))
    if network == "lecture" and bundle is not None:
        return bundle
    log.info("our network: %s", own.network)
    return make(own, Place(place.data, place.work / name / "dunno", place.bundle), baselines)


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
    seconds += scored.ensure(partial(_score, draft, data))
    measured = _measure(recipe, data, kept, read_scores(scored.folder))
    evaluation = measured.evaluation.model_copy(update={"baselines": tuple(baselines)})
    manifest = draft.manifest.model_copy(
        update={
            **_deciding_parts(measured.parts),
            "version": version,
            "evaluation": evaluation,
            "provenance": provenance_of(recipe, data, seconds),
        }
    )
    pictures = _pictures(recipe, data, kept, measured)
    contents = {name: draft.read(name) for name in draft.manifest.files}
    contents |= {name: picture.png for name, picture in pictures.items()}
    contents[GOLDEN] = _golden(draft, data)
    contents[CARD] = model_card(recipe, data, kept.facts, manifest, pictures).encode()
    return write_bundle(
        place.bundle,
        contents,
        lambda files: Manifest.model_validate({**manifest.model_dump(), "files": files}),
    )


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


def _score(draft: Bundle, data: Data, folder: Path) -> None:
    runtime = load_runtime("onnx", draft, RuntimeOptions(threads=2, device="cpu"))
    scores = {}
    for name, split in _named_splits(data).items():
        outputs = export.run_rows(runtime, split.rows, _BATCH_ROWS)
        scores[name] = Scores(outputs["logits"], outputs["novelty_scores"], split.targets)
    keep_scores(folder, scores)


def _named_splits(data: Data) -> dict[str, Split]:
    splits = data.splits
    named = {
        "validation": splits.validation,
        "calibration": splits.calibration,
        "test": splits.test,
        **{_CONDITION + name: split for name, split in splits.conditions.items()},
        **{
            # They have no target; none is looked at.
            _OUTLIERS + name: Split(rows, np.zeros(len(rows), np.int64))
            for name, rows in data.outliers.items()
        },
    }
    return {name: split for name, split in named.items() if split is not None}


def _real_rows(data: Data) -> np.ndarray:
    return (data.splits.test or data.splits.train).rows


def _golden(draft: Bundle, data: Data) -> bytes:
    """Return rows and what the graph makes of them, run as one batch."""
    rows = _real_rows(data)
    chosen = rows[np.linspace(0, len(rows) - 1, GOLDEN_ROWS).astype(int)]
    outputs = export.run_rows(
        load_runtime("onnx", draft, RuntimeOptions(threads=1, device="cpu")), chosen, GOLDEN_ROWS
    )
    stream = io.BytesIO()
    np.savez_compressed(stream, rows=chosen, **outputs)
    return stream.getvalue()


@dataclass(frozen=True, slots=True)
class _Measured:
    parts: Calibrated
    judged: Judged
    evaluation: Evaluation


def _measure(recipe: Recipe, data: Data, kept: Kept, scores: dict[str, Scores]) -> _Measured:
    log.info("calibrating and evaluating")
    if kept.out_of_fold:
        crossed = cross_calibrate(recipe, kept.out_of_fold, data.mixture)
        evaluation = evaluate.evaluate(
            crossed.judged,
            crossed.answered,
            crossed.parts.policy,
            split="folds left out",
            seed=recipe.seed,
        )
        outliers = _outliers(scores, crossed.parts)
        evaluation = evaluation.model_copy(update={"outliers": outliers})
        return _Measured(crossed.parts, crossed.judged, evaluation)
    parts = calibrate(recipe, scores["validation"], scores["calibration"], data.mixture)
    judged = parts.judge(scores["test"])
    answered = evaluate.answers(judged, parts.policy)
    evaluation = evaluate.evaluate(
        judged, answered, parts.policy, split="official test split", seed=recipe.seed
    )
    conditions = tuple(
        evaluate.condition(name.removeprefix(_CONDITION), parts.judge(part), parts.policy)
        for name, part in scores.items()
        if name.startswith(_CONDITION)
    )
    more: dict[str, object] = {"conditions": conditions, "outliers": _outliers(scores, parts)}
    return _Measured(parts, judged, evaluation.model_copy(update=more))


def _outliers(scores: dict[str, Scores], parts: Calibrated) -> tuple[OutlierFamily, ...]:
    return tuple(
        evaluate.outlier_family(name.removeprefix(_OUTLIERS), parts.judge(part), parts.policy)
        for name, part in scores.items()
        if name.startswith(_OUTLIERS)
    )


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


def _pictures(recipe: Recipe, data: Data, kept: Kept, measured: _Measured) -> dict[str, Picture]:
    judged, evaluation = measured.judged, measured.evaluation
    bins = evaluate.reliability(judged.probabilities.max(axis=1), judged.wrong)
    drawn = {
        "confusion.png": Picture(
            title="Confusion matrix",
            png=plots.confusion_matrix(evaluation.confusion, recipe.labels),
        ),
        "reliability.png": Picture(
            title="Reliability: does 90 % mean 90 %?",
            png=plots.reliability_diagram(bins, evaluation),
        ),
        "risk_coverage.png": Picture(
            title="Risk and coverage: what abstaining buys",
            png=plots.risk_coverage_curve(evaluation),
        ),
    }
    if kept.curves:
        png = plots.learning_curves(kept.curves)
        drawn = {"curves.png": Picture(title="How fitting went", png=png)} | drawn
    return {**(recipe.explore(data) if recipe.explore else {}), **drawn}

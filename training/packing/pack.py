"""A user's model and labelled rows -> bundle: look, wrap, calibrate, evaluate, write."""

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pydantic

from service.bundle import Bundle, Manifest
from service.bundle.store import file_of
from service.decision import DECIMALS
from service.runtimes import RuntimeOptions, load_runtime
from training import evaluate, export, plots
from training.calibrate import RISKS
from training.describing import Subject, undescribed, write_described
from training.errors import PackRefused
from training.measuring import Reported, measure
from training.packing.deciding import (
    Decided,
    Parting,
    decide,
    left_out_novelty,
    novelty_head,
    part_rows,
)
from training.packing.declared import told
from training.packing.heads import Exit, NoveltyHead, least_probability
from training.packing.labelled import Labelled
from training.packing.request import Notes, Request, bundle_folder
from training.packing.wrapping import Seen, look_at, wrap
from training.provenance import provenance_of
from training.recipe import Data, Recipe, Scores, Split, Splits

DEFAULT_MAX_ERROR = 0.05
DEFAULT_NOVELTY_ALPHA = 0.01
"""With a feature output, and more where so few rows fit that only the furthest could be told;
scores on logits alone are too weak to close a gate by."""

_SEED = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose model and rows have been looked at: all but the graph that is served."""

    request: Request
    seen: Seen
    parting: Parting
    novelty: NoveltyHead
    recipe: Recipe
    data: Data
    notes: Notes

    @property
    def facts(self) -> dict[str, str]:
        """Further lines for the card."""
        named = self.request.choice.features
        measured = f"Mahalanobis distance over `{named}`" if named else "from the logits"
        kind, reason = self.seen.classifier.kind, self.seen.reading.reason
        is_published = self.request.publish_examples
        examples = "calibration rows" if is_published else "made up, none is a calibration row"
        return {"packed from": f"{kind}, {reason}", "novelty": measured, "examples": examples}


def pack(request: Request, notes: Notes | None = None) -> Bundle:
    """Write the bundle of a user's model and return it.

    Raises:
        PackRefused: if something does not fit together; nothing is written.
        ExportDiffers: if the packed graph says something else than the model.
    """
    try:
        return _pack(request, notes or Notes())
    except pydantic.ValidationError as error:
        raise PackRefused(f"a manifest cannot hold this: {told(error)}") from None


def _pack(request: Request, notes: Notes) -> Bundle:
    started = time.monotonic()
    path = bundle_folder(request)
    prepared = prepare(request, notes)
    seen, recipe, data = prepared.seen, prepared.recipe, prepared.data
    least = least_probability(seen.look.scores)
    last = Exit(seen.reading.returns, seen.look.scores.shape[1], prepared.novelty, least)
    wrapped = wrap(request, seen, last)
    decided = _decided(prepared, wrapped.scores)
    _report(decided)
    seconds = prepared.notes.seconds + time.monotonic() - started
    manifest = Manifest(
        name=recipe.name,
        version=request.version,
        description=recipe.description,
        labels=recipe.labels,
        input=data.input,
        files={name: file_of(content) for name, content in wrapped.contents.items()},
        graph=wrapped.graph,
        calibration=decided.parts.calibration,
        novelty=decided.parts.novelty,
        conformal=decided.parts.conformal,
        policy=decided.parts.policy,
        reference=decided.parts.reference,
        provenance=provenance_of(recipe, data, seconds, seen.classifier.producer),
    )
    return _write(path, wrapped.contents, manifest, prepared, decided)


def remeasure(request: Request, notes: Notes, bundle: Bundle) -> Bundle:
    """Write a bundle that is there with new numbers, card and pictures, and return it.

    Its graph and all that decides stay. Rows that are judged by folds are calibrated by the other
    folds, as they were when it was packed.

    Args:
        request: what was packed.
        notes: what people may know of it.
        bundle: what came of it.
    """
    prepared = prepare(request, notes)
    labelled = prepared.seen.labelled
    runtime = load_runtime("onnx", bundle, RuntimeOptions(threads=1, device="cpu"))
    outputs = export.run_rows(runtime, labelled.rows, export.BATCH_ROWS[0])
    scores = Scores(outputs["logits"], outputs["novelty_scores"], labelled.targets)
    decided = _decided(prepared, scores)
    return _write(bundle.path, undescribed(bundle), bundle.manifest, prepared, decided)


def prepare(request: Request, notes: Notes) -> Prepared:
    """Return what is known of a model before its graph is wrapped.

    Raises:
        PackRefused: if model, labels and rows do not go together.
    """
    seen = look_at(request)
    targets, returns = seen.labelled.targets, seen.reading.returns
    parting = part_rows(seen.labelled.rows, targets, _SEED)
    log.info(parting.reason)
    novelty = novelty_head(seen.look, targets, parting.fits, returns)
    fitting = int(parting.fits.sum())
    recipe = _recipe(request, notes, seen.classifier.kind, novelty.name, fitting)
    data = _data(request, seen.labelled, notes)
    return Prepared(request, seen, parting, novelty, recipe, data, notes)


def _decided(prepared: Prepared, scores: Scores) -> Decided:
    seen, parting = prepared.seen, prepared.parting
    honest = left_out_novelty(seen.look, seen.labelled.targets, parting, scores)
    risks = prepared.request.max_errors or RISKS
    return decide(prepared.recipe, risks, honest, parting, prepared.data.mixture)


def _write(
    path: Path,
    contents: dict[str, bytes],
    manifest: Manifest,
    prepared: Prepared,
    decided: Decided,
) -> Bundle:
    """Measure, and write the bundle with its card."""
    policy, data, curves = manifest.policy, prepared.data, prepared.notes.curves
    reported = Reported(
        rows=data.splits.train.rows[prepared.parting.judged],
        judged=decided.judged,
        answered={**evaluate.answers(decided.judged, policy), **decided.answered},
        split=decided.split,
    )
    evaluation = measure(manifest, reported, {}, data)
    told = evaluation.model_copy(update={"facts": prepared.facts})
    return write_described(
        path,
        contents,
        manifest.model_copy(update={"evaluation": told}),
        Subject(
            recipe=prepared.recipe,
            data=data,
            reported=reported,
            curves=plots.learning_curves(curves) if curves else None,
            command=prepared.notes.command,
            shows_rows=prepared.request.publish_examples,
        ),
    )


def _recipe(request: Request, notes: Notes, kind: str, novelty_name: str, n: int) -> Recipe:
    """Return the request as a recipe: calibration and card know nothing else.

    Args:
        request: what is packed.
        notes: what people may know of it.
        kind: what the model was saved as.
        novelty_name: what its novelty score measures.
        n: rows that fit the novelty score.
    """
    alpha = request.novelty_alpha
    if alpha is None:
        # No row can have a smaller p-value than 1 / (n + 1).
        least = 1.5 / (n + 1)
        has_features = request.choice.features is not None
        alpha = round(max(DEFAULT_NOVELTY_ALPHA, least), DECIMALS) if has_features else 0.0
    described = f"Tells {', '.join(request.labels[:-1])} and {request.labels[-1]} apart."
    limits = notes.limits or ("Nobody has written down what this model cannot do.",)
    if not alpha:
        limits = (*limits, "The novelty gate is off: what is far from its rows may be answered.")
    return Recipe(
        name=request.name,
        network=notes.network or f"{kind} {request.model.name}",
        description=notes.description or described,
        labels=request.labels,
        seed=notes.seed,
        load=_not_trained_here,
        fit=_not_trained_here,
        max_error=request.max_errors[0] if request.max_errors else DEFAULT_MAX_ERROR,
        calibration="power" if len(request.labels) == 2 else "temperature",
        novelty_names=(novelty_name,),
        novelty_alpha=alpha,
        limits=limits,
    )


def _not_trained_here(*_: object) -> NoReturn:
    raise PackRefused("a packed model was trained elsewhere")


def _data(request: Request, labelled: Labelled, notes: Notes) -> Data:
    given = f"the {len(labelled.targets):,} rows of {request.calibration.name}"
    hashed = {request.calibration.name: labelled.sha256, **_model_sha256(request.model)}
    note = f"Calibrated on {given}, which the model must not have been fitted on."
    return Data(
        splits=Splits(train=Split(labelled.rows, labelled.targets)),
        input=labelled.input,
        sha256=notes.sha256 or hashed,
        mixture=notes.mixture or given,
        files=labelled.files,
        note=notes.note or note,
    )


def _model_sha256(path: Path) -> dict[str, str]:
    file = path / "saved_model.pb" if path.is_dir() else path
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}


def _report(decided: Decided) -> None:
    """Tell how good the model is on rows it has not seen, and what could be certified."""
    judged, policy = decided.judged, decided.parts.policy
    n, right = len(judged.targets), int((~judged.wrong).sum())
    most = int(np.bincount(judged.targets).max())
    log.info("right on %s of %s calibration rows", f"{right:,}", f"{n:,}")
    if right < most:
        log.warning(
            "always saying the most frequent label would be right on %s: are --labels in the "
            "order of the model's numbers?",
            f"{most:,}",
        )
    for row in policy.table:
        log.info(
            "at most %.1f %% wrong: certified, answers %.1f %% of the rows, from confidence %.4f",
            *(100 * row.max_error, 100 * row.coverage, row.threshold),
        )
    if policy.max_error is None:
        log.warning(
            "no risk could be certified: by default nothing is answered, until a request says "
            "min_confidence where the catalogue has allow_looser = true; give more calibration "
            "rows or a larger --max-error"
        )

"""A user's model and labelled rows -> bundle: look, wrap, calibrate, evaluate, write."""

import hashlib
import logging
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from service.bundle import Bundle, Manifest, write_bundle
from service.bundle.manifest import Evaluation
from service.bundle.store import file_of
from service.decision import DECIMALS
from training import evaluate, plots
from training.calibrate import RISKS
from training.packing.deciding import Decided, decide, left_out_novelty, novelty_head, part_rows
from training.packing.errors import PackRefused
from training.packing.heads import Exit
from training.packing.labelled import Labelled
from training.packing.request import Notes, Request, bundle_folder
from training.packing.wrapping import Seen, look_at, wrap
from training.provenance import provenance_of
from training.recipe import Curves, Data, Picture, Recipe, Split, Splits
from training.report import CARD, model_card

DEFAULT_MAX_ERROR = 0.05
DEFAULT_NOVELTY_ALPHA = 0.01
"""With a feature output, and more where so few rows fit that only the furthest could be told;
scores on logits alone are too weak to close a gate by."""

_SEED = 1
_TITLES = {
    "curves.png": "How fitting went",
    "confusion.png": "Confusion matrix",
    "reliability.png": "Reliability: does 90 % mean 90 %?",
    "risk_coverage.png": "Risk and coverage: what abstaining buys",
}

log = logging.getLogger(__name__)


def pack(request: Request, notes: Notes | None = None) -> Bundle:
    """Write the bundle of a user's model and return it.

    Raises:
        PackRefused: if something does not fit together; nothing is written.
        ExportDiffers: if the packed graph says something else than the model.
    """
    started = time.monotonic()
    notes = notes or Notes()
    path = bundle_folder(request)
    seen = look_at(request)
    parting = part_rows(seen.labelled.rows, seen.labelled.targets, _SEED)
    log.info(parting.reason)
    targets, returns = seen.labelled.targets, seen.reading.returns
    novelty = novelty_head(seen.look, targets, parting.fits, returns)
    wrapped = wrap(request, seen, Exit(returns, seen.look.scores.shape[1], novelty))
    fitting = int(parting.fits.sum())
    recipe = _recipe(request, notes, seen.classifier.kind, novelty.name, fitting)
    data = _data(request, seen.labelled, notes)
    scores = left_out_novelty(seen.look, targets, parting, wrapped.scores)
    decided = decide(recipe, request.max_errors or RISKS, scores, parting, data.mixture)
    _report(decided)
    seconds = notes.seconds + time.monotonic() - started
    facts = _facts(recipe, data, decided) | {
        "version": request.version,
        "graph": wrapped.graph,
        "provenance": provenance_of(recipe, data, seconds),
    }
    pictures = pictures_of(decided, facts["evaluation"], request.labels, notes.curves)
    contents = {**wrapped.contents, **{name: each.png for name, each in pictures.items()}}
    files = {name: file_of(content) for name, content in contents.items()}
    manifest = Manifest.model_validate({**facts, "files": files})
    card = model_card(recipe, data, _card_facts(request, seen), manifest, pictures)
    contents[CARD] = _with_command(card, request.name, notes.command).encode()
    return write_bundle(
        path, contents, lambda files: Manifest.model_validate({**facts, "files": files})
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


def _facts(recipe: Recipe, data: Data, decided: Decided) -> dict[str, Any]:
    """Return what the manifest says beside graph, files and origin."""
    parts = decided.parts
    return {
        "name": recipe.name,
        "description": recipe.description,
        "labels": recipe.labels,
        "input": data.input,
        "calibration": parts.calibration,
        "novelty": parts.novelty,
        "conformal": parts.conformal,
        "policy": parts.policy,
        "reference": parts.reference,
        "evaluation": evaluate.evaluate(
            decided.judged, decided.answered, parts.policy, split=decided.split, seed=_SEED
        ),
    }


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


def pictures_of(
    decided: Decided, evaluation: Evaluation, labels: tuple[str, ...], curves: Curves | None
) -> dict[str, Picture]:
    """Return the pictures of the card, by file name."""
    judged = decided.judged
    bins = evaluate.reliability(judged.probabilities.max(axis=1), judged.wrong)
    drawn = {} if curves is None else {"curves.png": plots.learning_curves(curves)}
    drawn["confusion.png"] = plots.confusion_matrix(evaluation.confusion, labels)
    drawn["reliability.png"] = plots.reliability_diagram(bins, evaluation)
    drawn["risk_coverage.png"] = plots.risk_coverage_curve(evaluation)
    return {name: Picture(title=_TITLES[name], png=png) for name, png in drawn.items()}


def _card_facts(request: Request, seen: Seen) -> dict[str, str]:
    named = request.choice.features
    measured = f"Mahalanobis distance over `{named}`" if named else "from the logits"
    return {
        "packed from": f"{seen.classifier.kind}, {seen.reading.reason}",
        "novelty": measured,
    }


def _with_command(card: str, name: str, command: str) -> str:
    """Return the card with the command that makes the bundle in place of `dunno train`."""
    if not command:
        return card
    return card.replace(f"dunno train {name}", command).replace("**trained in**", "**packed in**")

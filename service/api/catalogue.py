"""GET /models and /models/{model}: what is served, and what it promises."""

from typing import Any

from fastapi import APIRouter, Request

from service.api.keys import seen_by
from service.errors import code_of
from service.inputs import instances_of
from service.prediction import Predictor

router = APIRouter(prefix="/models")


@router.get("")
def list_models(request: Request) -> dict[str, Any]:
    """Return every model that is served, in short."""
    catalogue = seen_by(request.scope, request.app.state.catalogue)
    failures = [
        {"model": name, "code": code_of(failure)}
        for name, failure in dict(catalogue.failures).items()
    ]
    models = [_short(served.default) for served in catalogue.served.values()]
    return {"models": models, "failures": failures}


@router.get("/{model}")
def describe_model(
    request: Request,
    model: str,
    version: str | None = None,
    alias: str | None = None,
    *,
    examples: bool = False,
) -> dict[str, Any]:
    """Return a model's versions, runtime, input, policy with its certified table, evaluation.

    With `examples` also the bundle's golden rows, as `instances` of a request, and their verdicts.
    """
    catalogue = seen_by(request.scope, request.app.state.catalogue)
    predictor = catalogue.look(model, version, alias)
    served = catalogue.served[model]
    manifest = predictor.manifest
    novelty = manifest.novelty
    return {
        **_short(predictor),
        "versions": list(served.predictors),
        "aliases": served.aliases,
        "weights": {} if served.turns is None else served.turns.weights,
        "shadow": None if served.shadow is None else served.shadow.candidate.manifest.version,
        "media_types": predictor.decoder.media_types,
        "input": manifest.input.model_dump(mode="json"),
        "calibration": manifest.calibration.model_dump(mode="json"),
        "novelty_scores": [] if novelty is None else novelty.names,
        "policy": {
            **manifest.policy.model_dump(mode="json"),
            "id": predictor.judge.policy_id,
            "in_force": _terms(predictor),
            "allow_looser": predictor.floor.allow_looser,
        },
        "variants": {name: one.model_dump(mode="json") for name, one in manifest.variants.items()},
        "evaluation": manifest.evaluation and manifest.evaluation.model_dump(mode="json"),
        "provenance": manifest.provenance.model_dump(mode="json"),
        **({"examples": _examples(predictor)} if examples else {}),
    }


def _examples(predictor: Predictor) -> list[dict[str, Any]]:
    rows = instances_of(predictor.golden_rows, predictor.decoder)
    return [
        {
            "instance": instance,
            "verdict": "answer" if verdict.reason is None else "dont_know",
            "label": verdict.label,
            "reason": verdict.reason,
        }
        for instance, verdict in zip(rows, predictor.golden_verdicts, strict=False)
        if instance is not None
    ]


def _short(predictor: Predictor) -> dict[str, Any]:
    manifest = predictor.manifest
    return {
        "name": predictor.name,
        "version": manifest.version,
        "state": "available" if predictor.is_ready else "unavailable",
        "description": manifest.description,
        "kind": manifest.input.kind,
        "labels": manifest.labels,
        "runtime": predictor.runtime_name,
        "variant": predictor.variant,
        "device": predictor.runtime.device,
    }


def _terms(predictor: Predictor) -> dict[str, Any]:
    terms = predictor.judge.default_terms
    return {
        "max_error": terms.max_error,
        "min_confidence": terms.min_confidence,
        "novelty_alpha": terms.novelty_alpha,
        "guarantee": terms.guarantee,
    }

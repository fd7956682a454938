"""The shapes of answers: built here for the hot path, declared here for OpenAPI."""

from functools import lru_cache
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from service.api.options import Options
from service.decision import Reason, Row, Terms
from service.errors import DunnoError, code_of
from service.prediction import Answer, Prediction, Predictor


class RowError(BaseModel):
    """Why a row has no verdict."""

    code: str
    detail: str


class RowPrediction(BaseModel):
    """The answer to one row, or the error in its place."""

    verdict: Literal["answer", "dont_know"] | None = None
    label: str | None = None
    reason: Reason | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    novelty_p: float | None = Field(default=None, ge=0, le=1)
    candidates: list[str] = []
    probabilities: dict[str, float] | list[float] = {}
    best_guess: str | None = None
    error: RowError | None = None


class PolicyInForce(BaseModel):
    """The terms under which these rows were answered."""

    id: str
    max_error: float | None
    min_confidence: float
    novelty_alpha: float
    guarantee: Literal["certified", "cross_fitted", "uncertified"]


class PredictResponse(BaseModel):
    """The answer to a predict request; predictions are in the order of its rows."""

    model: str
    version: str
    request_id: str
    predictions: list[RowPrediction]
    policy: PolicyInForce
    ignored_columns: list[str] = []


class Problem(BaseModel):
    """RFC 9457; `type` is stable, `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


def documented_problems(texts: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of these statuses: problems, whose schema the native route adds."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content} for status, text in texts.items()}


def encode(
    predictor: Predictor, prediction: Prediction, options: Options, request_id: str
) -> bytes:
    """Return the body of the answer to a predict request."""
    content: dict[str, object] = {
        "model": predictor.name,
        "version": predictor.manifest.version,
        "request_id": request_id,
        "predictions": [encode_row(row, predictor, options) for row in prediction.rows],
        "policy": _policy(predictor.judge.policy_id, prediction.terms),
    }
    if prediction.ignored_columns:
        content["ignored_columns"] = prediction.ignored_columns
    return orjson.dumps(content)


@lru_cache(maxsize=256)
def _policy(policy_id: str, terms: Terms) -> orjson.Fragment:
    """Return the terms in force, encoded once for all requests that have them."""
    content = {
        "id": policy_id,
        "max_error": terms.max_error,
        "min_confidence": terms.min_confidence,
        "novelty_alpha": terms.novelty_alpha,
        "guarantee": terms.guarantee,
    }
    return orjson.Fragment(orjson.dumps(content))


def encode_row(
    answer: Answer | DunnoError, predictor: Predictor, options: Options
) -> dict[str, object]:
    """Return one element of `predictions`."""
    if isinstance(answer, DunnoError):
        return {"error": {"code": code_of(answer), "detail": str(answer)}}
    labels = predictor.manifest.labels
    verdict, row = answer
    content: dict[str, object] = {
        "verdict": "answer" if verdict.reason is None else "dont_know",
        "label": verdict.label,
        "reason": verdict.reason,
        "confidence": row.confidence,
        "novelty_p": row.novelty_p,
        "candidates": row.candidates,
        "probabilities": _probabilities(row, labels, options),
    }
    if options.has_best_guess:
        content["best_guess"] = labels[row.best]
    return content


def _probabilities(
    row: Row, labels: tuple[str, ...], options: Options
) -> dict[str, float] | list[float]:
    values = row.probabilities
    if options.is_list:
        return values
    if options.top_k is None:
        return dict(zip(labels, values, strict=True))
    order = sorted(range(len(labels)), key=values.__getitem__, reverse=True)[: options.top_k]
    return {labels[label]: values[label] for label in order}

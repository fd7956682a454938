"""The shapes of answers: built here for the hot path, declared here for OpenAPI."""

from typing import Literal

import numpy as np
import orjson
from pydantic import BaseModel, Field

from service.api.options import Options
from service.decision import DECIMALS, Answered, Reason
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
    probabilities: dict[str, float] = {}
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


def encode(
    predictor: Predictor, prediction: Prediction, options: Options, request_id: str
) -> bytes:
    """Return the body of the answer to a predict request."""
    terms = prediction.terms
    content: dict[str, object] = {
        "model": predictor.name,
        "version": predictor.manifest.version,
        "request_id": request_id,
        "predictions": [encode_row(row, predictor, options) for row in prediction.rows],
        "policy": {
            "id": predictor.judge.policy_id,
            "max_error": terms.max_error,
            "min_confidence": terms.min_confidence,
            "novelty_alpha": terms.novelty_alpha,
            "guarantee": terms.guarantee,
        },
    }
    if prediction.ignored_columns:
        content["ignored_columns"] = prediction.ignored_columns
    return orjson.dumps(content)


def encode_row(
    row: Answer | DunnoError, predictor: Predictor, options: Options
) -> dict[str, object]:
    """Return one element of `predictions`."""
    if isinstance(row, DunnoError):
        return {"error": {"code": code_of(row), "detail": str(row)}}
    labels = predictor.manifest.labels
    is_answer = isinstance(row.verdict, Answered)
    content: dict[str, object] = {
        "verdict": "answer" if is_answer else "dont_know",
        "label": row.verdict.label if isinstance(row.verdict, Answered) else None,
        "reason": None if isinstance(row.verdict, Answered) else row.verdict.reason,
        "confidence": row.confidence,
        "novelty_p": row.novelty_p,
        "candidates": row.candidates,
        "probabilities": _probabilities(row, labels, options.top_k),
    }
    if options.has_best_guess:
        content["best_guess"] = labels[row.best]
    return content


def _probabilities(row: Answer, labels: tuple[str, ...], top_k: int | None) -> dict[str, float]:
    values = np.round(row.probabilities, DECIMALS).tolist()
    if top_k is None:
        return dict(zip(labels, values, strict=True))
    order = np.argsort(-row.probabilities, kind="stable")[:top_k].tolist()
    return {labels[label]: values[label] for label in order}

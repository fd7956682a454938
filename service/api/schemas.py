"""The shapes of answers: built here for the hot path, declared here for OpenAPI."""

from functools import lru_cache
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field, RootModel

from service.api.options import Options
from service.decision import Reason, Row, Terms
from service.errors import DunnoError, code_of
from service.inputs.payload import UNTOLD
from service.prediction import Answer, Prediction, Predictor

Share = Annotated[float, Field(ge=0, le=1)]
Labels = Annotated[list[str], Field(description="Most probable first; never empty.")]
Probabilities = Annotated[
    dict[str, Share] | list[Share],
    Field(description="By label; with `probabilities=list` in the order of the model's labels."),
]
NoveltyP = Annotated[
    Share | None,
    Field(description="Near 0 where the row is unlike the training data; null without a gate."),
]


class _RowJudged(BaseModel):
    verdict: str
    label: str | None
    reason: Reason | None
    confidence: Share = Field(description="Calibrated probability of the best label.")
    novelty_p: NoveltyP
    candidates: Labels
    probabilities: Probabilities
    best_guess: str = Field(default_factory=str, description="Only with `include=best_guess`.")


class RowAnswer(_RowJudged):
    """The model is sure enough to answer a row."""

    verdict: Literal["answer"]
    label: str
    reason: None


class RowDontKnow(_RowJudged):
    """The model says "don't know" of a row, and why."""

    verdict: Literal["dont_know"]
    label: None
    reason: Reason


class RowPrediction(RootModel[Annotated[RowAnswer | RowDontKnow, Field(discriminator="verdict")]]):
    """The verdict on a row."""


class RowError(BaseModel):
    """What is wrong with a row, by the code of its failure."""

    code: str
    detail: str


class RowFailure(BaseModel):
    """Stands in the place of a row that has no verdict."""

    error: RowError


class PolicyInForce(BaseModel):
    """The terms under which these rows were answered."""

    id: str
    max_error: Share | None
    min_confidence: Share
    novelty_alpha: Share
    guarantee: Literal["certified", "cross_fitted", "uncertified"]


class PredictResponse(BaseModel):
    """The answer to a predict request; predictions are in the order of its rows."""

    model: str
    version: str
    request_id: str
    predictions: list[RowPrediction | RowFailure]
    policy: PolicyInForce
    wrong_rows: int = Field(
        default=0,
        description="How many rows have an error, if not all errors are told in full.",
    )
    ignored_columns: list[str] = Field(
        default_factory=list,
        description="Columns of a table that the model does not use, if there are any.",
    )


class Problem(BaseModel):
    """RFC 9457; `type` is stable, `detail` is for people."""

    type: str = Field(pattern="^urn:dunno:[a-z_]+$")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    request_id: str
    place: str = Field(default_factory=str, description="Of the payload, if it is what is wrong.")
    expected: str = Field(default_factory=str, description="What should have been there.")
    got: str = Field(default_factory=str, description="What came instead.")
    models: list[str] = Field(
        default_factory=list, description="Names that are served, where another was asked for."
    )


class ModelSummary(BaseModel):
    """A model that is served, in short."""

    name: str
    version: str = Field(description="Who answers unless another version is asked for.")
    state: Literal["available", "unavailable"]
    description: str
    kind: Literal["features", "image", "text"]
    labels: list[str]
    runtime: str
    variant: str | None
    device: str


class ModelFailure(BaseModel):
    """Why a model is not served as the catalogue says."""

    model: str
    code: str


class ModelList(BaseModel):
    """Every model that is served, and what could not be."""

    models: list[ModelSummary]
    failures: list[ModelFailure]


class TermsInForce(BaseModel):
    """When a model answers, if a request says nothing else."""

    max_error: Share | None
    min_confidence: Share
    novelty_alpha: Share
    guarantee: Literal["certified", "cross_fitted", "uncertified"]


class GoldenExample(BaseModel):
    """A golden row as an element of `instances`, and the verdict on it."""

    instance: Any
    verdict: Literal["answer", "dont_know"]
    label: str | None
    reason: Reason | None


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
    wrong = [row for row in prediction.rows if isinstance(row, DunnoError)]
    if any(str(error) == UNTOLD for error in wrong):
        content["wrong_rows"] = len(wrong)
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

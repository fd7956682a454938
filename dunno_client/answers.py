"""What the server answers, as frozen dataclasses; fields that are new to them are left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Prediction:
    """The verdict on one row; probabilities, `confidence` and `novelty_p` lie within 0 and 1."""

    verdict: Literal["answer", "dont_know"]
    label: str | None
    """None if the verdict is "don't know"."""

    reason: str | None
    """Why not: `out_of_distribution`, `ambiguous` or `low_confidence`; None for an answer."""

    confidence: float
    novelty_p: float | None
    """Share of ordinary rows at least as odd as this one; None if the model has no novelty."""

    candidates: tuple[str, ...]
    probabilities: Mapping[str, float]

    @property
    def is_answered(self) -> bool:
        """Whether there is a label."""
        return self.verdict == "answer"


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row could not be read; the other rows of its request have their verdicts."""

    code: str
    detail: str

    @property
    def is_answered(self) -> Literal[False]:
        """Never."""
        return False

    @property
    def label(self) -> None:
        """None, as of every row without an answer."""

    @property
    def reason(self) -> str:
        """Why there is no label: the code."""
        return self.code


@dataclass(frozen=True, slots=True)
class Policy:
    """The terms under which the rows were answered."""

    id: str
    max_error: float | None
    min_confidence: float
    novelty_alpha: float
    guarantee: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request; `predictions` are in the order of its rows."""

    model: str
    version: str
    request_id: str
    predictions: tuple[Prediction | RowError, ...]
    policy: Policy
    ignored_columns: tuple[str, ...] = ()
    """Columns of a frame or table that the model does not use."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is served."""

    name: str
    version: str
    state: str
    description: str
    kind: str
    labels: tuple[str, ...]
    details: Mapping[str, Any]
    """All that the server says of it; of one that was asked for by name, input and policy too."""


def answer_of(content: Mapping[str, Any]) -> Answer:
    """Return the answer that a response holds.

    Raises:
        KeyError, TypeError: if it holds none.
    """
    policy = content["policy"]
    return Answer(
        model=content["model"],
        version=content["version"],
        request_id=content["request_id"],
        predictions=tuple(_prediction_of(row) for row in content["predictions"]),
        policy=Policy(**{name: policy[name] for name in Policy.__slots__}),
        ignored_columns=tuple(content.get("ignored_columns", ())),
    )


def model_of(content: Mapping[str, Any]) -> Model:
    """Return the model that an object of the catalogue describes; raises as `answer_of` does."""
    names = ("name", "version", "state", "description", "kind")
    facts = {name: content[name] for name in names}
    return Model(**facts, labels=tuple(content["labels"]), details=content)


def _prediction_of(row: Mapping[str, Any]) -> Prediction | RowError:
    error = row.get("error")
    if error is not None:
        return RowError(error["code"], error["detail"])
    facts = {name: row[name] for name in Prediction.__slots__}
    return Prediction(**{**facts, "candidates": tuple(row["candidates"])})

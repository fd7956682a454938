"""What is told of a model: the manifest's own sections, and what the operator chose."""

from typing import Any

from pydantic import BaseModel, Field, create_model

from service.api.schemas import GoldenExample, ModelSummary, TermsInForce
from service.prediction import Manifest

_OF_MANIFEST = ("input", "calibration", "variants", "evaluation", "provenance")
"""Sections that are told as they are."""


class _Chosen(ModelSummary):
    """All that is told of a model."""

    versions: list[str]
    aliases: dict[str, str]
    weights: dict[str, float]
    shadow: str | None
    media_types: list[str]
    novelty_scores: list[str]
    examples: list[GoldenExample] = Field(
        default_factory=list, description="Only with `examples=true`."
    )


def describe_models() -> type[BaseModel]:
    """Return the model of the answer of `GET /models/{model}`."""
    sections: dict[str, Any] = {
        name: (Manifest.model_fields[name].annotation, Manifest.model_fields[name])
        for name in _OF_MANIFEST
    }
    of_bundle: Any = Manifest.model_fields["policy"].annotation
    policy: Any = create_model(
        "PolicyDetails",
        __base__=of_bundle,
        __doc__="The policy of the bundle, and what is in force of it.",
        id=(str, ...),
        in_force=(TermsInForce, ...),
        allow_looser=(bool, ...),
    )
    return create_model(
        "ModelDetails", __base__=_Chosen, __doc__=_Chosen.__doc__, policy=(policy, ...), **sections
    )

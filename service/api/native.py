"""POST /predict/{model} as OpenAPI describes it; `fastlane.py` is what answers."""

from typing import Any

from pydantic.json_schema import models_json_schema

from service.api.options import OPTIONS
from service.api.schemas import PredictResponse, Problem
from service.inputs.images import FORMATS

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURES = {
    "schema": {
        "type": "object",
        "properties": {"image": {"type": "array", "items": _BINARY["schema"]}},
    }
}
_BODIES: dict[str, Any] = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["instances"],
            "additionalProperties": False,
            "properties": {
                "instances": {
                    "type": "array",
                    "minItems": 1,
                    "items": {},
                    "description": "features: object by name, or list in order; image: pixel "
                    'lists 0-255, or {"b64": "..."}; text: string',
                }
            },
        }
    },
    **dict.fromkeys(FORMATS, _BINARY),
    "multipart/form-data": _PICTURES,
    "text/plain": {"schema": {"type": "string"}},
    "text/csv": {"schema": {"type": "string"}},
    "application/x-npy": _BINARY,
}
_PARAMETERS = [
    {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}},
    *(
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in OPTIONS.items()
    ),
]
_PROBLEMS = {
    400: "The payload is not what the model expects; `detail` names the place.",
    401: "No key was shown, or none of ours; only where the operator asks for keys.",
    404: "No such model, version or alias.",
    408: "The body did not arrive in time.",
    413: "A cap on bytes, pixels or rows was passed.",
    415: "A body kind that the model does not take.",
    422: "A query parameter is out of bounds.",
    429: "The model's queue is full; see Retry-After.",
    500: "A fault of ours.",
    503: "The server is stopping; see Retry-After.",
    504: "The answer would have come after the deadline.",
}
_DESCRIPTION = """Return calibrated probabilities and a verdict for each row of the body.

A "don't know" is status 200: it is an answer. In a request of several rows a bad row has its error
in its place; if every row is bad the status is 4xx."""


def add_predict(document: dict[str, Any]) -> dict[str, Any]:
    """Add the hot route and its schemas to an OpenAPI document."""
    _, schemas = models_json_schema(
        [(PredictResponse, "serialization"), (Problem, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
    document["paths"]["/predict/{model}"] = {
        "post": {
            "tags": ["predict"],
            "summary": "Predict",
            "description": _DESCRIPTION,
            "operationId": "predict",
            "parameters": _PARAMETERS,
            "requestBody": {"required": True, "content": _BODIES},
            "responses": {
                "200": _response("A verdict or an error for each row.", "application/json"),
                **{
                    str(status): _response(text, "application/problem+json", "Problem")
                    for status, text in _PROBLEMS.items()
                },
            },
        }
    }
    return document


def _response(text: str, media_type: str, schema: str = "PredictResponse") -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": text, "content": {media_type: {"schema": reference}}}

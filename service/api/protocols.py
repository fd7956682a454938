"""The protocols that are not ours, put together: which path goes where, and what OpenAPI says."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from service.api.calls import Resources
from service.api.clouds import cloud_routes
from service.api.open_inference import OpenInference
from service.api.tensorflow_serving import TensorFlowServing


class _Rest(PathConvertor):
    """The rest of a path, be there line breaks in it: its protocol says what is wrong with it."""

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


def protocol_routes(
    resources: Resources, native: ASGIApp, environment: Mapping[str, str]
) -> list[BaseRoute]:
    """Return the routes of all protocols but the native one.

    Those that an environment variable sets come first: Vertex AI's lie below /v1/ as well.

    Args:
        resources: what they are served from.
        native: where the native route is answered.
        environment: of this process.
    """
    version_1, version_2 = TensorFlowServing(resources), OpenInference(resources)
    return [
        *cloud_routes(resources, native, environment),
        Route("/v1/{rest:rest}", version_1),
        Route("/V1/{rest:rest}", version_1),
        Route("/v2", version_2),
        Route("/v2/{rest:rest}", version_2),
    ]


class _Path(NamedTuple):
    method: str
    path: str
    summary: str
    fields: dict[str, str] | None = None
    """Of the body: name -> JSON type, nothing if it may be of any."""

    answer: str = "object"
    """JSON type of the answer."""


_INSTANCES = {"signature_name": "string", "instances": "array", "inputs": ""}
_EXAMPLES = {"signature_name": "string", "context": "object", "examples": "array"}
_INFERENCE = {"id": "string", "parameters": "object", "inputs": "array", "outputs": "array"}
_VERSION_1, _VERSION_2 = "TensorFlow Serving and KServe v1", "Open Inference Protocol v2"
_PATHS = {
    _VERSION_1: (
        _Path("get", "/", "Whether the event loop turns; browsers get the playground."),
        _Path("get", "/v1/models", "Names of the models."),
        _Path("get", "/v1/models/{model}", "Status of a model's versions."),
        _Path("get", "/v1/models/{model}/versions/{version}", "Status of one version."),
        _Path("get", "/v1/models/{model}/labels/{label}", "Status by an alias of the catalogue."),
        _Path("get", "/v1/models/{model}/metadata", "The signature of a model."),
        _Path("post", "/v1/models/{model}:predict", "Calibrated probabilities.", _INSTANCES),
        _Path("post", "/v1/models/{model}:classify", "Labels and probabilities.", _EXAMPLES),
    ),
    _VERSION_2: (
        _Path("get", "/v2", "What the server is."),
        _Path("get", "/v2/health/live", "Whether the event loop turns."),
        _Path("get", "/v2/health/ready", "Whether all models take rows."),
        _Path("get", "/v2/models/{model}", "What a model takes and gives."),
        _Path("get", "/v2/models/{model}/ready", "Whether a model takes rows."),
        _Path("get", "/v2/models/{model}/stats", "What has been counted of a model."),
        _Path("post", "/v2/models/{model}/infer", "Outputs by name, in JSON or bytes.", _INFERENCE),
        _Path(
            *("post", "/v2/repository/index", "Versions and their state."),
            *({"ready": "boolean"}, "array"),
        ),
    ),
}


_PARTS = {"version": {"type": "string", "pattern": "^[0-9]+$"}}
"""Part of a path -> its schema, if it is not any text."""


def add_protocols(document: dict[str, Any]) -> dict[str, Any]:
    """Add the routes of the protocols to an OpenAPI document; their own documents say it all."""
    for tag, paths in _PATHS.items():
        for path in paths:
            document["paths"].setdefault(path.path, {})[path.method] = _operation(path, tag)
    return document


def _operation(path: _Path, tag: str) -> dict[str, Any]:
    names = [part.partition("}")[0] for part in path.path.split("{")[1:]]
    text = {"type": "string"}
    answer = {"application/json": {"schema": {"type": path.answer}}}
    error = {"schema": {"type": "object", "required": ["error"], "properties": {"error": text}}}
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": path.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _PARTS.get(name, text)}
            for name in names
        ],
        "responses": {
            "200": {"description": path.summary, "content": answer},
            "default": {
                "description": "What is wrong, in words.",
                "content": {"application/json": error},
            },
        },
    }
    if path.fields is not None:
        properties = {name: {"type": kind} if kind else {} for name, kind in path.fields.items()}
        schema = {"type": "object", "properties": properties}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation

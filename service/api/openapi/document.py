"""The whole document, made anew when other models are served, and who reads it."""

import threading
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from service import __version__, errors
from service.api.gate import METRICS, PAGES, PROBES
from service.api.keys import seen_by
from service.api.openapi import native, protocols, samples
from service.api.openapi.failures import (
    ERROR_TEXT,
    OF_GATE,
    REQUEST_ID,
    examples,
    other_problem,
    refusals,
    wrong_methods,
)
from service.api.openapi.models import describe_models
from service.api.openapi.parts import COUNT, STRING, Json, Operation, header_of, in_path
from service.api.schemas import ModelList, PredictResponse, Problem
from service.prediction import Catalogue

LICENCE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
MOST_DOCUMENTS = 64
"""So many are kept, one for each set of models that a caller may know of."""

_ABOUT = """A model server that knows when it does not know.

Every response has an `X-Request-ID`: the caller's, if it is harmless, else a new one. With tracing
on, predictions also have a `traceparent`. Failures of native routes are problems of RFC 9457 with a
stable `type`; those of other protocols are `{"error": "..."}`. What cannot be read as HTTP at all,
or comes on a connection too many, is refused with 400, 408, 429, 431 or 503 before any route is
looked for."""


class Surroundings(NamedTuple):
    """What the settings and the environment say of the routes that there are."""

    has_keys: bool = False
    has_metrics: bool = True
    has_playground: bool = True
    has_reference: bool = True
    default_model: str = ""
    vertex_health: str = ""
    vertex_predict: str = ""


class Documents:
    """The document of what is served now, for each caller of the models that he may know of."""

    def __init__(self, catalogue: Catalogue, surroundings: Surroundings) -> None:
        self._catalogue = catalogue
        self._surroundings = surroundings
        self._kept: dict[tuple[str, ...], bytes] = {}
        self._generation = 0
        self._lock = threading.Lock()
        catalogue.on_switch(self._forget)

    @property
    def route(self) -> BaseRoute:
        """GET /openapi.json, which is answered beside the event loop: examples take a while."""
        return Route("/openapi.json", self._answer, methods=["GET"])

    def of(self, seen: Catalogue) -> bytes:
        """Return the document for who may know of these models.

        Args:
            seen: the catalogue, or a part of it.
        """
        generation, names = self._generation, seen.names
        found = self._kept.get(names)
        if found is None:
            found = orjson.dumps(document_of(seen, self._surroundings))
            with self._lock:  # other models may be served since
                if generation == self._generation and len(self._kept) < MOST_DOCUMENTS:
                    self._kept[names] = found
        return found

    def _forget(self) -> None:
        with self._lock:
            self._generation += 1
            self._kept.clear()

    def _answer(self, request: Request) -> Response:
        content = self.of(seen_by(request.scope, self._catalogue))
        return Response(content, media_type="application/json")


def document_of(catalogue: Catalogue, surroundings: Surroundings) -> Json:
    """Return the OpenAPI document of a server of these models."""
    found = [samples.sample_of(served.default) for served in catalogue.served.values()]
    answers = samples.answers(found)
    paths: dict[str, Json] = {}
    for operation in operations_of(found, answers, surroundings):
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, surroundings)
    shared = _shared(paths)
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Dunno",
            "version": __version__,
            "summary": "A model server that knows when it does not know.",
            "description": _ABOUT,
            "license": LICENCE,
        },
        "servers": [{"url": "/", "description": "This server."}],
        "tags": [
            {"name": name, "description": text}
            for name, text in (native.TAGS | protocols.TAGS).items()
        ],
        "paths": paths,
        "components": _components(answers, shared, surroundings),
    }
    if surroundings.has_keys:
        document["security"] = [{name: []} for name in _SCHEMES]
    return document


def operations_of(
    found: list[samples.Sample], answers: Iterable[str], surroundings: Surroundings
) -> list[Operation]:
    """Return every operation, with the examples of these models and the names of answers."""
    default = _default_of(found, surroundings.default_model)
    version_1 = samples.version_1(found)
    rows_of_default = {
        name: each
        for name, each in samples.version_1(default).items()
        if "instances" in each["value"]
    }
    operations = [
        *native.predict_operations(samples.native(found), samples.native(default), answers),
        *native.model_operations(),
        *native.operation_operations(has_metrics=surroundings.has_metrics),
        *native.page_operations(
            has_playground=surroundings.has_playground, has_reference=surroundings.has_reference
        ),
        *protocols.operations_1(version_1, samples.classify(found)),
        *protocols.operations_2(samples.version_2(found)),
        *protocols.cloud_operations(
            rows_of_default, surroundings.vertex_health, surroundings.vertex_predict
        ),
    ]
    return [_with_names(operation, found) for operation in operations]


def _default_of(found: list[samples.Sample], chosen: str) -> list[samples.Sample]:
    """Return the model that is meant where a path names none, if that is clear."""
    named = [sample for sample in found if sample.name == chosen]
    return named or (found if len(found) == 1 else [])


def _with_names(operation: Operation, found: list[samples.Sample]) -> Operation:
    """Return an operation with the parameters of its path, and the models' names as examples."""
    inside = in_path(operation.path)
    for parameter in inside:
        if parameter["name"] == "model" and found:
            parameter["examples"] = {
                sample.name: {
                    "summary": sample.predictor.manifest.description,
                    "value": sample.name,
                }
                for sample in found
            }
    return operation._replace(parameters=[*inside, *operation.parameters])


def _described(operation: Operation, surroundings: Surroundings) -> Json:
    is_open = _is_open(operation.path, surroundings)
    found: Json = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": operation.id,
        "responses": _responses(operation, is_guarded=surroundings.has_keys and not is_open),
    }
    if operation.description:
        found["description"] = operation.description
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.body is not None:
        found["requestBody"] = operation.body
    if surroundings.has_keys and is_open:
        found["security"] = []
    return found


def _is_open(path: str, surroundings: Surroundings) -> bool:
    return path in PROBES or path in (PAGES[0], surroundings.vertex_health)


def _responses(operation: Operation, *, is_guarded: bool) -> Json:
    failures = list(operation.failures)
    if is_guarded:
        failures += [*OF_GATE, *([errors.Forbidden] if operation.path == METRICS else [])]
    found = {"200": operation.answer, **operation.more, **refusals(failures, operation.protocol)}
    if operation.protocol == "native" and operation.method == "get":
        found["500"] = other_problem("internal")
    request_id = {"X-Request-ID": header_of("RequestId")}
    found = {
        status: {**each, "headers": {**each.get("headers", {}), **request_id}}
        for status, each in found.items()
    }
    end = "" if operation.protocol == "native" else "Text"
    found["405"] = {"$ref": f"#/components/responses/MethodNotAllowed{end}"}
    return {status: found[status] for status in sorted(found)}


def _shared(paths: dict[str, Json]) -> Json:
    """Name the responses to failures, which many operations have, and return them by name."""
    names: dict[bytes, str] = {}
    found: Json = {}
    operations = [operation for methods in paths.values() for operation in methods.values()]
    for responses in (operation["responses"] for operation in operations):
        for status, each in list(responses.items()):
            if int(status) < HTTPStatus.BAD_REQUEST or "$ref" in each:
                continue
            content = orjson.dumps(each)
            if content not in names:
                name = _name_of(HTTPStatus(int(status)), found)
                names[content], found[name] = name, each
            responses[status] = {"$ref": f"#/components/responses/{names[content]}"}
    return found


def _name_of(status: HTTPStatus, taken: Json) -> str:
    """Return what a response is called: by its status, with a number from the second one on."""
    name = status.name.title().replace("_", "")
    number = sum(each.rstrip("0123456789") == name for each in taken)
    return f"{name}{number + 1}" if number else name


def _components(answers: Json, shared: Json, surroundings: Surroundings) -> Json:
    shown = {**examples(has_keys=surroundings.has_keys), **answers}
    components: Json = {
        "schemas": _schemas(),
        "parameters": {
            **native.option_parameters(),
            **protocols.parameters(),
            "RequestId": {"name": "X-Request-ID", "in": "header", **_REQUEST_ID},
        },
        "headers": HEADERS,
        "responses": {**shared, **wrong_methods()},
        "examples": shown,
    }
    if surroundings.has_keys:
        components["securitySchemes"] = _SCHEMES
    return components


class _Untitled(GenerateJsonSchema):
    """Fields have no title: it would be their name once more."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002  a method of theirs
        """Return that it should not."""
        return False


def _schemas() -> dict[str, Any]:
    models = (PredictResponse, Problem, ModelList, describe_models())
    _, made = models_json_schema(
        [(model, "serialization") for model in models],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    made["$defs"]["ModelFailure"]["properties"]["code"]["enum"] = native.failure_codes()
    return {
        **made["$defs"],
        **native.body_schemas(),
        **protocols.SCHEMAS,
        "VertexRequest": protocols.VERTEX_REQUEST,
        "ErrorText": ERROR_TEXT,
    }


_REQUEST_ID: Json = {
    "description": "What the request is found by in the log; up to 128 of `A-Z a-z 0-9 . _ : / + = "
    "-`, or else another is chosen.",
    "schema": STRING,
}
HEADERS: dict[str, Json] = {
    "RequestId": {**_REQUEST_ID, "example": REQUEST_ID},
    "ServerTiming": {
        "description": "Milliseconds that the stages of the request took.",
        "schema": STRING,
        "example": "decode;dur=0.041, queue;dur=0.210, run;dur=0.385, decide;dur=0.020",
    },
    "RetryAfter": {
        "description": "Whole seconds after which it is worth asking again.",
        "schema": {"type": "integer", "minimum": 1},
        "example": 1,
    },
    "Allow": {"description": "The methods that the path takes.", "schema": STRING},
    "Authenticate": {
        "description": "How a key is shown.",
        "schema": {"type": "string", "const": "Bearer"},
    },
    "HeadLength": {
        "description": "So many bytes of the body are JSON; only where tensors lie behind them.",
        "schema": COUNT,
    },
}
_SCHEMES: dict[str, Json] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of this server, as `Authorization: Bearer <key>`.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in a header of its own, as `X-API-Key: <key>`.",
    },
}

"""The pieces that a description is put together from."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from service.errors import DunnoError

Json = dict[str, Any]
Protocol = Literal["native", "v1", "v2"]
JSON, PROBLEM, TEXT = "application/json", "application/problem+json", "text/plain"
FORM = "multipart/form-data"
STRING: Json = {"type": "string"}
BYTES: Json = {"type": "string", "format": "binary"}
SHARE: Json = {"type": "number", "minimum": 0, "maximum": 1}
COUNT: Json = {"type": "integer", "minimum": 0}
FLAG: Json = {"type": "boolean"}

PATH_PARTS: dict[str, Json] = {
    "model": {"description": "Name of a model that is served.", "schema": STRING},
    "version": {
        "description": "A version that is served.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "label": {"description": "An alias of the catalogue.", "schema": STRING},
}
"""Part of a path -> what it is."""


class Operation(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    tag: str
    id: str
    """What generated clients call it."""

    summary: str
    answer: Json
    """The response of status 200."""

    description: str = ""
    parameters: Sequence[Json] = ()
    """Those of the path are known by its own words."""

    body: Json | None = None
    failures: Sequence[type[DunnoError]] = ()
    more: dict[str, Json] = {}  # noqa: RUF012  read only
    """Further responses by status."""

    protocol: Protocol = "native"
    """Whose errors it has."""


def schema_of(name: str) -> Json:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def header_of(name: str) -> Json:
    """Return a reference to a header of the document."""
    return {"$ref": f"#/components/headers/{name}"}


def parameter_of(name: str) -> Json:
    """Return a reference to a parameter of the document."""
    return {"$ref": f"#/components/parameters/{name}"}


def listed(items: Json) -> Json:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def fields(**properties: Json) -> Json:
    """Return the schema of an object with all of these fields."""
    return {"type": "object", "required": list(properties), "properties": properties}


def response(text: str, schema: Json, media_type: str = JSON, **more: Any) -> Json:
    """Return a response with a body; `more` stands beside the schema."""
    return {"description": text, "content": {media_type: {"schema": schema, **more}}}


def in_path(path: str) -> list[Json]:
    """Return the parameters that a path names."""
    names = [part.partition("}")[0] for part in path.split("{")[1:]]
    return [{"name": name, "in": "path", "required": True, **PATH_PARTS[name]} for name in names]

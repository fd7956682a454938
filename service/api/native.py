"""POST /predict/{model} for OpenAPI and for whoever comes past the fast lane."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from service.api.fastlane import Fastlane
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
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, text in {
        400: "The payload is not what the model expects; `detail` names the place.",
        404: "No such model, version or alias.",
        408: "The body did not arrive in time.",
        413: "A cap on bytes, pixels or rows was passed.",
        415: "A body kind that the model does not take.",
        422: "A query parameter is out of bounds.",
        429: "The model's queue is full; see Retry-After.",
        500: "A fault of ours.",
        503: "The server is stopping; see Retry-After.",
        504: "The answer would have come after the deadline.",
    }.items()
}


class _FromFastlane(Response):
    """A response that the fast lane writes itself."""

    def __init__(self, fastlane: Fastlane) -> None:
        super().__init__()
        self._fastlane = fastlane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._fastlane.answer(scope, receive, send)


router = APIRouter(tags=["predict"])


@router.post(
    "/predict/{model}",  # noqa: FAST003  the fast lane reads the name
    response_model=PredictResponse,
    responses=_PROBLEMS,
    openapi_extra={
        "parameters": _PARAMETERS,
        "requestBody": {"required": True, "content": _BODIES},
    },
)
def predict(request: Request) -> Response:
    """Return calibrated probabilities and a verdict for each row of the body.

    A "don't know" is status 200: it is an answer. In a request of several rows a bad row has its
    error in its place; if every row is bad the status is 4xx.
    """
    return _FromFastlane(request.app.state.fastlane)

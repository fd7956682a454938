"""What container platforms ask of a model server: thin aliases of the other protocols.

Vertex AI tells the container its routes by environment variables and speaks TensorFlow Serving's
row form; SageMaker has two fixed paths and takes any body, so it gets the native route.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.calls import (
    Call,
    Reception,
    Resources,
    json_response,
    plain_errors,
    refusal,
    wrong_method,
)
from service.api.doorway import HEALTH_VARIABLE
from service.api.fastlane import PREFIX
from service.api.keys import key_of, seen_by
from service.api.middleware import SAFE_HEADERS
from service.api.tensorflow_serving import STATUSES, ask, probabilities, verdicts
from service.errors import InputInvalid, OptionInvalid
from service.inputs.instances import InstancesReader
from service.inputs.numbers import shown
from service.prediction import Catalogue, offload

PREDICT_VARIABLE = "AIP_PREDICT_ROUTE"
_OURS = frozenset({b"x-request-id", *(name for name, _ in SAFE_HEADERS)})
_SHARES = {
    "max_error": "max_error",
    "min_confidence": "min_confidence",
    "confidenceThreshold": "min_confidence",
}
"""Parameter of Vertex AI's callers -> ours."""


def cloud_routes(
    resources: Resources, native: ASGIApp, environment: Mapping[str, str]
) -> list[BaseRoute]:
    """Return the routes of the platforms; Vertex AI's only where its variables are set."""
    health = Health(resources.catalogue)
    routes: list[BaseRoute] = [
        Route("/ping", health),
        Route("/invocations", Invocations(resources, native)),
    ]
    paths: dict[str, ASGIApp] = {HEALTH_VARIABLE: health, PREDICT_VARIABLE: Vertex(resources)}
    for variable, endpoint in paths.items():
        path = environment.get(variable, "")
        if path.startswith("/"):
            routes.append(Route(path, endpoint))
    return routes


def default_model(resources: Resources, scope: Scope) -> str | None:
    """Return the model that is meant where a path names none; None if that is not clear.

    For a caller who may know of some models only, the others are not there.
    """
    key = key_of(scope)
    names = seen_by(scope, resources.catalogue).names
    chosen = resources.settings.default_model
    if chosen and (key is None or key.sees(chosen)):
        return chosen
    return names[0] if len(names) == 1 else None


_NO_DEFAULT = "several models are served: set DUNNO_DEFAULT_MODEL to one of them"


class Health:
    """Answers 200 as soon as every model takes rows, else 503."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the ASGI specification."""
        if scope["method"] not in ("GET", "HEAD"):
            response = wrong_method(scope, "GET")
        else:
            is_ready = self._catalogue.is_ready
            response = json_response({"ready": is_ready}, 200 if is_ready else 503)
        await response(scope, receive, send)


class Vertex:
    """Answers predict requests of Vertex AI."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._reception = Reception("v1", resources, plain_errors(STATUSES))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the ASGI specification."""
        model = default_model(self._resources, scope)
        if scope["method"] != "POST":
            await wrong_method(scope, "POST")(scope, receive, send)
        elif model is None:
            await refusal(404, _NO_DEFAULT)(scope, receive, send)
        else:
            await self._reception.answer(scope, receive, send, lambda call: predict(call, model))


async def predict(call: Call, model: str) -> Response:
    """Return the answer to a request of Vertex AI.

    Raises:
        DunnoError: if there is none.
    """
    predictor = call.use(call.catalogue.choose(model))
    options, has_verdicts, asked, deadline_s = await ask(call, predictor, InstancesReader)
    if asked.is_column:
        raise InputInvalid("body", 'the key "instances"', "inputs")
    overrides = {"max_error": options.max_error, "min_confidence": options.min_confidence}
    terms = predictor.judge.terms(**{**overrides, **_overrides(asked.parameters)})
    judged = await call.predict(predictor, asked.decoded, terms, deadline_s)

    def answered() -> Response:
        content: dict[str, object] = {"predictions": probabilities(judged.rows)}
        if has_verdicts or asked.parameters.get("verdict") is True:
            content["verdicts"] = verdicts(judged, predictor, options)
        return json_response(content, judged=judged)

    return await offload(len(judged.answers), answered, deadline_s)


def _overrides(parameters: dict[str, object]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for name, value in parameters.items():
        if name == "verdict" and isinstance(value, bool):
            continue
        if name not in _SHARES:
            expected = f"only {', '.join((*_SHARES, 'verdict'))}"
            raise OptionInvalid(name[:40], expected, shown(value))
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise OptionInvalid(name, "a number above 0, at most 1", shown(value))
        overrides[_SHARES[name]] = float(value)
    return overrides


class Invocations:
    """Hands SageMaker's requests to the native route of the default model."""

    def __init__(self, resources: Resources, native: ASGIApp) -> None:
        self._resources = resources
        self._native = native

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the ASGI specification."""
        model = default_model(self._resources, scope)
        if model is None:
            await refusal(404, _NO_DEFAULT)(scope, receive, send)
            return

        async def send_once(message: Message) -> None:
            # The native route writes the headers that every response has by itself.
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0] not in _OURS]
                message = {**message, "headers": headers}
            await send(message)

        request_id = scope["state"]["request_id"].encode()
        headers = [pair for pair in scope["headers"] if pair[0] != b"x-request-id"]
        native = {**scope, "path": PREFIX + model}
        native["headers"] = [*headers, (b"x-request-id", request_id)]
        await self._native(native, receive, send_once)

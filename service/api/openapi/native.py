"""What is described of our own routes: predictions, models, operations and pages."""

from collections.abc import Iterable
from typing import Any

from service import errors
from service.api.openapi.failures import OF_BUNDLES, OF_PREDICTIONS, other_problem
from service.api.openapi.parts import (
    BYTES,
    FLAG,
    FORM,
    JSON,
    STRING,
    TEXT,
    Json,
    Operation,
    fields,
    header_of,
    listed,
    parameter_of,
    response,
    schema_of,
)
from service.api.options import OPTIONS
from service.errors import code_of_kind
from service.inputs.images import PICTURE_FIELD
from service.inputs.pictures import FORMATS

PREDICT, MODELS, OPERATIONS, PAGES = "predict", "models", "operations", "pages"
TAGS = {
    PREDICT: "Predictions: calibrated probabilities and, for each row, an answer or a reasoned "
    '"don\'t know".',
    MODELS: "What is served, what it promises, and examples of what it takes.",
    OPERATIONS: "What platforms and Prometheus ask.",
    PAGES: "What people look at, and this document.",
}
_RISK: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
OPTIONS_TOLD: dict[str, tuple[Json, str]] = {
    "version": (STRING, "Which of the model's versions answers; the default one unless given."),
    "alias": (STRING, "Alias of the catalogue that names the version, such as `stable`."),
    "max_error": (
        _RISK,
        "Largest share of answers that may be wrong; the next certified risk below it is taken.",
    ),
    "min_confidence": (_RISK, "Least calibrated probability of the best label to answer a row."),
    "top_k": (
        {"type": "integer", "minimum": 1},
        "So many of the best labels stand in `probabilities`; all unless given.",
    ),
    "include": (
        {"type": "string", "enum": ["best_guess"]},
        "Adds the best label to each row, also where the model does not answer.",
    ),
    "probabilities": (
        {"type": "string", "enum": ["object", "list"], "default": "object"},
        "Whether they are told by label, or as a list of all in the order of the labels.",
    ),
    "deadline_ms": (
        {"type": "number", "exclusiveMinimum": 0},
        "Milliseconds after which the answer is worthless; never more than the server's own.",
    ),
}
"""Query parameter -> schema and meaning, for all of `OPTIONS`."""

_PREDICT = """Return calibrated probabilities and a verdict for each row of the body.

A "don't know" is status 200: it is an answer. In a request of several rows a bad row has its error
in its place and the others have their verdicts; if every row is bad the status is 4xx, by the first
one. What a model takes is told by `GET /models/{model}`."""
_INVOCATIONS = """The same as `POST /predict/{model}` of the only model, or of the default one."""
_DESCRIBE = """Return a model's versions, runtime, input, policy with its certified table, and \
evaluation.

With `examples` also the bundle's golden rows, as `instances` of a request, and their verdicts."""
_METRICS = """Return every metric of every worker; in OpenMetrics, with exemplars, for those whose \
`Accept` asks for it."""


def options(*names: str) -> list[Json]:
    """Return the query parameters of these names."""
    return [parameter_of(name) for name in names or OPTIONS]


def option_parameters() -> dict[str, Json]:
    """Return all query parameters of predictions, by name."""
    return {
        name: {"name": name, "in": "query", "description": text, "schema": schema}
        for name, (schema, text) in OPTIONS_TOLD.items()
    }


def predict_body(examples: dict[str, Json]) -> Json:
    """Return the body of a request for predictions.

    Args:
        examples: media type -> name -> example.
    """
    content = {
        media_type: {**each, "examples": examples[media_type]} if media_type in examples else each
        for media_type, each in _bodies().items()
    }
    text = "Rows, in one of the kinds that the model takes: `media_types` of its description."
    return {"required": True, "description": text, "content": content}


def predict_operations(
    examples: dict[str, Json], of_default: dict[str, Json], answers: Iterable[str]
) -> list[Operation]:
    """Return the operations that predict.

    Args:
        examples: of the bodies of all models; media type -> name -> example.
        of_default: the same of the model that is meant where none is named.
        answers: names of the document's examples of answers.
    """
    answer = _answer(answers)
    predict = Operation(
        *("post", "/predict/{model}", PREDICT, "predict", "Predict rows of a model"),
        answer,
        _PREDICT,
        [*options(), parameter_of("RequestId")],
        predict_body(examples),
        OF_PREDICTIONS,
    )
    invocations = predict._replace(
        path="/invocations",
        id="invoke_default_model",
        summary="Predict rows of the default model (SageMaker)",
        description=_INVOCATIONS,
        body=predict_body(of_default),
    )
    return [predict, invocations]


def model_operations() -> list[Operation]:
    """Return the operations that tell of models."""
    which = [parameter_of("version"), parameter_of("alias")]
    wish = {
        "name": "examples",
        "in": "query",
        "description": "Whether golden rows and their verdicts are told as well.",
        "schema": {**FLAG, "default": False},
    }
    missing = (errors.ModelNotFound, errors.VersionNotFound)
    return [
        Operation(
            *("get", "/models", MODELS, "list_models", "List the models"),
            response("Every model that is served, in short.", schema_of("ModelList")),
        ),
        Operation(
            *("get", "/models/{model}", MODELS, "describe_model", "Describe a model"),
            response("All that is told of the model.", schema_of("ModelDetails")),
            _DESCRIBE,
            [*which, wish],
            failures=(*missing, errors.OptionInvalid),
        ),
    ]


def operation_operations(*, has_metrics: bool) -> list[Operation]:
    """Return what platforms ask; metrics unless they have an address of their own."""
    alive, ready = fields(status={"const": "alive"}), fields(status={"const": "ready"})
    text = "The series, in the text format of Prometheus or in OpenMetrics."
    series = response(text, STRING, TEXT)
    series["content"]["application/openmetrics-text"] = {"schema": STRING}
    found = [
        Operation(
            *("get", "/livez", OPERATIONS, "is_alive", "Tell whether the event loop turns"),
            response("It does.", alive),
        ),
        Operation(
            *("get", "/readyz", OPERATIONS, "is_ready", "Tell whether all models take rows"),
            response("There are models, and each takes rows.", ready),
            more={"503": other_problem("not_ready")},
        ),
        Operation(
            *("get", "/metrics", OPERATIONS, "read_metrics", "Read the metrics"), series, _METRICS
        ),
    ]
    return found if has_metrics else found[:2]


def page_operations(*, has_playground: bool, has_reference: bool) -> list[Operation]:
    """Return what people look at."""
    root = response("The server is alive.", fields(status={"const": "alive"}))
    if has_playground:
        root["content"]["text/html"] = {"schema": STRING}
    found = [
        Operation(
            *("get", "/", PAGES, "get_root", "Tell that the server is alive"),
            root,
            "Browsers get the playground, where there is one.",
        ),
        Operation(
            *("get", "/openapi.json", PAGES, "get_openapi", "Read this document"),
            response("The routes of this server, with examples of its models.", {"type": "object"}),
            "Examples are made of the models that are served at the moment.",
        ),
    ]
    if has_reference:
        page = response("A page that shows this document.", STRING, "text/html")
        found.append(Operation("get", "/docs", PAGES, "get_docs", "Look at the reference", page))
    return found


def failure_codes() -> list[str]:
    """Return why a model may be missing from those that are served."""
    return [code_of_kind(failure) for failure in OF_BUNDLES]


def body_schemas() -> dict[str, Any]:
    """Return the schemas of bodies, by name."""
    rows: Json = {
        "type": "array",
        "minItems": 1,
        "description": "One element a row: features as an object by name or a list in order, a "
        'picture as lists of pixels 0-255 or as {"b64": "..."}, a text as a string.',
        "items": {
            "anyOf": [
                schema_of("EncodedPicture"),
                schema_of("FeaturesByName"),
                schema_of("NumbersInOrder"),
                {"type": "string", "minLength": 1, "description": "A text."},
            ]
        },
    }
    encoded: Json = {**fields(b64=STRING), "additionalProperties": False}
    by_name: Json = {"type": "object", "additionalProperties": {"type": ["number", "null"]}}
    return {
        "PredictRequest": {**fields(instances=rows), "additionalProperties": False},
        "EncodedPicture": {**encoded, "description": "A PNG, JPEG, WebP or BMP in base64."},
        "FeaturesByName": {
            **by_name,
            "description": "Each feature by its name; null where the model takes a missing value.",
        },
        "NumbersInOrder": {
            **listed({}),
            "description": "Features in the order of the manifest, or lists of lists of pixels.",
        },
    }


def _answer(names: Iterable[str]) -> Json:
    shown = {name: {"$ref": f"#/components/examples/{name}"} for name in names}
    more: dict[str, Any] = {"examples": shown} if shown else {}
    text = "A verdict or an error for each row."
    answer = response(text, schema_of("PredictResponse"), **more)
    answer["headers"] = {"Server-Timing": header_of("ServerTiming")}
    return answer


def _bodies() -> dict[str, Json]:
    pictures = {
        "type": "object",
        "required": [PICTURE_FIELD],
        "properties": {PICTURE_FIELD: listed(BYTES)},
    }
    kinds = ", ".join(FORMATS)
    return {
        JSON: {"schema": schema_of("PredictRequest")},
        **{media_type: {"schema": BYTES} for media_type in FORMATS},
        FORM: {
            "schema": pictures,
            "encoding": {PICTURE_FIELD: {"contentType": kinds}},
        },
        TEXT: {"schema": STRING},
        "text/csv": {"schema": STRING},
        "application/x-npy": {"schema": BYTES},
    }

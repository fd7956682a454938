"""What is described of the protocols that are not ours; their own documents say it all."""

from service import errors
from service.api.open_inference import PROBABILITIES
from service.api.openapi.failures import OF_BODIES, OF_PREDICTIONS
from service.api.openapi.native import options
from service.api.openapi.parts import (
    BYTES,
    COUNT,
    FLAG,
    JSON,
    SHARE,
    STRING,
    Json,
    Operation,
    fields,
    header_of,
    listed,
    parameter_of,
    response,
    schema_of,
)
from service.inputs.framing import BYTES as TEXTS
from service.inputs.framing import DATATYPES

VERSION_1, VERSION_2, CLOUDS = "tensorflow-serving", "open-inference", "clouds"
TAGS = {
    VERSION_1: "TensorFlow Serving's REST interface and version 1 of KServe's; errors are "
    '`{"error": "..."}`.',
    VERSION_2: "The Open Inference Protocol (KServe version 2, Triton), in JSON and in bytes; "
    'errors are `{"error": "..."}`.',
    CLOUDS: "What platforms ask for by paths of their own.",
}
_OPTIONS = ("max_error", "min_confidence", "top_k", "include", "probabilities", "deadline_ms")
_MISSING = (errors.ModelNotFound, errors.VersionNotFound)
_ONE = {"": "", "/versions/{version}": "_version", "/labels/{label}": "_label"}
"""How a path says which version is meant -> what that adds to the name of an operation."""

_WHICH = {"": "", "/versions/{version}": " in one version", "/labels/{label}": " by an alias"}
_OBJECT: Json = {"type": "object"}
_RISK: Json = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_READY = fields(ready=FLAG)
_MODEL_READY = fields(name=STRING, ready=FLAG)
_INDEX = fields(name=STRING, version=STRING, state=STRING, reason=STRING)
_TENSOR_FACTS = fields(name=STRING, datatype=STRING, shape=listed({"type": "integer"}))

SCHEMAS: dict[str, Json] = {
    "InstancesRequest": {
        "type": "object",
        "description": "Rows in row form (`instances`) or in column form (`inputs`).",
        "properties": {
            "signature_name": {"type": "string", "enum": ["", "serving_default"]},
            "instances": listed({}),
            "inputs": {"anyOf": [listed({}), _OBJECT]},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "ExamplesRequest": {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string", "enum": ["", "serving_default"]},
            "context": {"type": "object", "description": "Features that all examples have."},
            "examples": {**listed(_OBJECT), "minItems": 1},
        },
    },
    "PredictionsAnswer": {
        "type": "object",
        "description": "Probabilities of each row, in the order of the model's labels.",
        "properties": {
            "predictions": listed(listed(SHARE)),
            "outputs": {**listed(listed(SHARE)), "description": "The same, for column form."},
            "verdicts": {
                **listed(schema_of("RowPrediction")),
                "description": "Of each row, if the request asks for them.",
            },
        },
        "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
    },
    "ClassesAnswer": {
        "type": "object",
        "required": ["results"],
        "properties": {
            "results": {
                **listed(listed({"type": "array", "prefixItems": [STRING, SHARE]})),
                "description": "Label and probability, for each label of each row.",
            },
            "verdicts": listed(schema_of("RowPrediction")),
        },
    },
    "VersionStatuses": fields(
        name=STRING,
        ready=FLAG,
        model_version_status=listed(
            fields(
                version=STRING,
                state={"type": "string", "enum": ["AVAILABLE", "UNLOADING"]},
                status=fields(error_code=STRING, error_message=STRING),
            )
        ),
    ),
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": STRING,
            "parameters": {
                "type": "object",
                "description": "Known are `max_error`, `min_confidence`, `timeout` (microseconds) "
                "and `binary_data_output`.",
            },
            "inputs": {**listed(schema_of("InferTensor")), "minItems": 1, "maxItems": 1},
            "outputs": {
                **listed(schema_of("AskedOutput")),
                "description": f"Which outputs are told, in this order; `{PROBABILITIES}` alone "
                "unless given. Verdicts are outputs that are told if they are asked for.",
            },
        },
    },
    "InferTensor": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": STRING,
            "shape": {**listed({"type": "integer", "minimum": 1}), "minItems": 1, "maxItems": 8},
            "datatype": {"type": "string", "enum": [*DATATYPES, TEXTS]},
            "data": {"description": "Flat or nested; absent where bytes stand behind the head."},
            "parameters": {"type": "object", "description": "Such as `binary_data_size`."},
        },
    },
    "AskedOutput": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": STRING,
            "parameters": {
                "type": "object",
                "description": "Such as `binary_data`, and `classification` for the best labels.",
            },
        },
    },
    "InferAnswer": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": STRING,
            "model_version": STRING,
            "id": {"type": "string", "description": "That of the request, if it had one."},
            "outputs": listed(
                {
                    "type": "object",
                    "required": ["name", "datatype", "shape"],
                    "properties": {
                        "name": STRING,
                        "datatype": STRING,
                        "shape": listed(COUNT),
                        "data": listed({"type": ["number", "string"]}),
                        "parameters": fields(binary_data_size=COUNT),
                    },
                }
            ),
        },
    },
    "ModelMetadata": fields(
        name=STRING,
        versions=listed(STRING),
        platform=STRING,
        inputs=listed(_TENSOR_FACTS),
        outputs=listed(_TENSOR_FACTS),
    ),
    "ServerMetadata": fields(name=STRING, version=STRING, extensions=listed(STRING)),
    "Statistics": fields(
        model_stats=listed(
            fields(
                name=STRING,
                version=STRING,
                last_inference={**COUNT, "description": "Milliseconds since 1970."},
                inference_count=COUNT,
                execution_count=COUNT,
                inference_stats={
                    "type": "object",
                    "additionalProperties": fields(count=COUNT, ns=COUNT),
                },
                batch_stats=listed(_OBJECT),
            )
        )
    ),
}


def parameters() -> dict[str, Json]:
    """Return parameters that only these protocols have, by the name of their description."""
    return {
        "Verdict": {
            "name": "verdict",
            "in": "query",
            "description": "Whether verdicts stand beside the predictions.",
            "schema": {"type": "string", "enum": ["0", "1", "false", "true"]},
        },
        "VerdictHeader": {
            "name": "X-Dunno-Verdict",
            "in": "header",
            "description": "The same as the query parameter `verdict`: 1 or 0.",
            "schema": STRING,
        },
        "ContentEncoding": {
            "name": "Content-Encoding",
            "in": "header",
            "description": "How the body is compressed, if it is.",
            "schema": {"type": "string", "enum": ["identity", "gzip", "deflate"]},
        },
        "HeadLength": {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "So many bytes of the body are JSON, and tensors lie behind them; 0: "
            "the body is the only row of the only input.",
            "schema": COUNT,
        },
    }


def operations_1(examples: Json, of_classify: Json) -> list[Operation]:
    """Return the operations of TensorFlow Serving."""
    names = response("Names of the models.", fields(models=listed(STRING)))
    found = [Operation("get", "/v1/models", VERSION_1, "v1_list_models", "List the models", names)]
    for which, suffix in _ONE.items():
        path, text = f"/v1/models/{{model}}{which}", _WHICH[which]
        statuses = schema_of("VersionStatuses")
        found += [
            Operation(
                *("get", path, VERSION_1, f"v1_get_status{suffix}"),
                f"Tell the status of a model{text}",
                response("It takes rows.", statuses),
                failures=_MISSING,
                more={
                    "400": _MALFORMED,
                    "503": response("It takes no rows at the moment.", statuses),
                },
            ),
            Operation(
                *("get", f"{path}/metadata", VERSION_1, f"v1_get_metadata{suffix}"),
                f"Tell the signature of a model{text}",
                response("One signature.", fields(model_spec=_OBJECT, metadata=_OBJECT)),
                failures=_MISSING,
                more={"400": _MALFORMED},
            ),
            _predict_1(
                *(f"{path}:predict", f"v1_predict{suffix}", f"Predict rows of a model{text}"),
                _body("InstancesRequest", {} if which else examples),
                "PredictionsAnswer",
            ),
            _predict_1(
                *(f"{path}:classify", f"v1_classify{suffix}", f"Label rows of a model{text}"),
                _body("ExamplesRequest", {} if which else of_classify),
                "ClassesAnswer",
            ),
        ]
    return [operation._replace(protocol="v1") for operation in found]


def operations_2(examples: Json) -> list[Operation]:
    """Return the operations of the Open Inference Protocol."""
    server = response("Name, version and extensions.", schema_of("ServerMetadata"))
    counted = schema_of("Statistics")
    index = response("Name, version and state of each.", listed(_INDEX))
    wish: Json = {"type": "object", "properties": {"ready": FLAG}}
    found = [
        Operation("get", "/v2", VERSION_2, "v2_get_server", "Tell what the server is", server),
        Operation(
            *("get", "/v2/health/live", VERSION_2, "v2_is_alive", "Tell that the server is alive"),
            response("The event loop turns.", fields(live=FLAG)),
        ),
        Operation(
            *("get", "/v2/health/ready", VERSION_2, "v2_is_ready"),
            "Tell whether all models take rows",
            response("They do.", _READY),
            more={"503": response("One of them does not, or the server stops.", _READY)},
        ),
        Operation(
            *("get", "/v2/models/stats", VERSION_2, "v2_list_statistics"),
            "Tell what has been counted of all models",
            response("Counts and durations.", counted),
        ),
        Operation(
            *("post", "/v2/repository/index", VERSION_2, "v2_list_models", "List the models"),
            index,
            body={"content": {JSON: {"schema": wish, "example": {"ready": True}}}},
            failures=OF_BODIES,
        ),
    ]
    for which in ("", "/versions/{version}"):
        found += _of_model_2(which, examples)
    return [operation._replace(protocol="v2") for operation in found]


def cloud_operations(examples: Json, health: str, predict: str) -> list[Operation]:
    """Return the operations of platforms.

    Args:
        examples: of the bodies for the default model.
        health: path that Vertex AI asks for health, if it does.
        predict: the same for predictions.
    """
    paths = {"/ping": "get_ping", health: "get_vertex_health"}
    found = [
        Operation(
            *("get", path, CLOUDS, name, "Tell whether all models take rows"),
            response("They do.", _READY),
            more={"503": response("One of them does not, or the server stops.", _READY)},
            protocol="v1",
        )
        for path, name in paths.items()
        if path.startswith("/")
    ]
    if predict.startswith("/"):
        body = _body("VertexRequest", examples)
        text = "Predict rows of the default model (Vertex AI)"
        operation = _predict_1(predict, "vertex_predict", text, body, "PredictionsAnswer")
        found.append(operation._replace(tag=CLOUDS, protocol="v1"))
    return found


VERTEX_REQUEST: Json = {
    "type": "object",
    "required": ["instances"],
    "properties": {
        "instances": {**listed({}), "minItems": 1},
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "max_error": _RISK,
                "min_confidence": _RISK,
                "confidenceThreshold": {**_RISK, "description": "The same as `min_confidence`."},
                "verdict": FLAG,
            },
        },
    },
}
_MALFORMED = response("The path names no model.", schema_of("ErrorText"))


def _of_model_2(which: str, examples: Json) -> list[Operation]:
    path, suffix, text = f"/v2/models/{{model}}{which}", _ONE[which], _WHICH[which]
    facts = response("Inputs and outputs.", schema_of("ModelMetadata"))
    counted = response("Counts and durations.", schema_of("Statistics"))
    return [
        Operation(
            *("get", path, VERSION_2, f"v2_get_model{suffix}"),
            f"Tell what a model takes and gives{text}",
            facts,
            failures=_MISSING,
        ),
        Operation(
            *("get", f"{path}/ready", VERSION_2, f"v2_is_model_ready{suffix}"),
            f"Tell whether a model takes rows{text}",
            response("It does.", _MODEL_READY),
            failures=_MISSING,
            more={"503": response("It does not at the moment.", _MODEL_READY)},
        ),
        Operation(
            *("get", f"{path}/stats", VERSION_2, f"v2_get_statistics{suffix}"),
            f"Tell what has been counted of a model{text}",
            counted,
            failures=_MISSING,
        ),
        Operation(
            *("post", f"{path}/infer", VERSION_2, f"v2_infer{suffix}"),
            f"Predict rows of a model{text}",
            _inferred(),
            _INFER,
            [
                *(parameter_of("ContentEncoding"), parameter_of("HeadLength")),
                parameter_of("RequestId"),
            ],
            _infer_body({} if which else examples),
            OF_PREDICTIONS,
        ),
    ]


_INFER = """Return outputs by name, in JSON or, where that is asked for, as bytes behind the head.

A body may hold its tensors as bytes behind the JSON: then the header
`Inference-Header-Content-Length` says where they begin, whatever the Content-Type. Pictures and
texts are elements of BYTES, in JSON pictures in base64. A long answer is compressed for those whose
`Accept-Encoding` takes that."""


def _infer_body(examples: Json) -> Json:
    body = _body("InferRequest", examples)
    text = "The head of JSON and, behind it, the bytes of the tensors in its order."
    body["content"]["application/octet-stream"] = {"schema": {**BYTES, "description": text}}
    return body


def _inferred() -> Json:
    answer = response("The outputs.", schema_of("InferAnswer"))
    answer["content"]["application/octet-stream"] = {"schema": BYTES}
    answer["headers"] = {
        "Server-Timing": header_of("ServerTiming"),
        "Inference-Header-Content-Length": header_of("HeadLength"),
    }
    return answer


def _predict_1(path: str, name: str, summary: str, body: Json, answer: str) -> Operation:
    told = response("What the model says of each row.", schema_of(answer))
    told["headers"] = {"Server-Timing": header_of("ServerTiming")}
    own = ("Verdict", "VerdictHeader", "ContentEncoding", "RequestId")
    return Operation(
        *("post", path, VERSION_1, name, summary, told),
        parameters=[*options(*_OPTIONS), *map(parameter_of, own)],
        body=body,
        failures=OF_PREDICTIONS,
    )


def _body(schema: str, examples: Json) -> Json:
    content: Json = {"schema": schema_of(schema)}
    if examples:
        content["examples"] = examples
    return {"required": True, "content": {JSON: content}}

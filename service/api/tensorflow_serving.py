"""TensorFlow Serving's REST interface, /v1/models/…; its listing and status are KServe's as well.

What is served looks like a SavedModel with one signature: the graph's input, whose name the
manifest knows, and one output, the calibrated probabilities in the order of the labels. A verdict
stands beside them for those who ask, never in their place.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.calls import (
    Call,
    Judged,
    Reception,
    Resources,
    json_response,
    plain_errors,
    refusal,
    wrong_method,
)
from service.api.keys import seen_by
from service.api.options import Options, read_options, refuse_too_many
from service.api.schemas import encode_row
from service.decision import Row
from service.errors import InputInvalid, ModelNotFound, OptionInvalid, VersionNotFound
from service.inputs.inference import input_spec
from service.inputs.instances import SIGNATURE, ExamplesReader, Instances, InstancesReader
from service.prediction import Catalogue, Predictor, offload

OUTPUT = "probabilities"
VERDICT_HEADER = b"x-dunno-verdict"
STATUSES = {415: 400, 422: 400}
"""Ours -> TensorFlow Serving's; all others are the same."""

TYPES = {
    "UINT8": "DT_UINT8",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}
_YES, _NO = ("1", "true"), ("0", "false")
_target = re.compile(
    r"/v1/models(?:/(?P<model>[^/:]+)"
    r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
    r"(?:/(?P<what>metadata)|:(?P<verb>predict|classify|regress))?)?",
    re.IGNORECASE,
).fullmatch


class Target(NamedTuple):
    """What the path of a request names."""

    model: str
    version: str | None
    label: str | None

    @property
    def text(self) -> str:
        """What it is called where there is no such thing."""
        if self.label is not None:
            return f"Unrecognized servable version label for {self.model}: {self.label}"
        which = f"Latest({self.model})" if self.version is None else f"Specific{self[:2]}"
        return f"Servable not found for request: {which}".replace("'", "")


class TensorFlowServing:
    """Everything below /v1/, as plain ASGI."""

    def __init__(self, resources: Resources) -> None:
        self._catalogue = resources.catalogue
        self._reception = Reception("v1", resources, plain_errors(STATUSES))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the ASGI specification."""
        found = _target(scope["path"])
        if found is None:
            text = f"Malformed request: {scope['method']} {scope['path'][:256]}"
            await refusal(400, text)(scope, receive, send)
            return
        verb = (found["verb"] or "").lower()
        allowed = "POST" if verb else "GET"
        if scope["method"] != allowed:
            await wrong_method(scope, allowed)(scope, receive, send)
        elif verb:
            target = _target_of(found)
            await self._reception.answer(
                scope, receive, send, lambda call: predict(call, target, verb)
            )
        else:
            described = _describe(seen_by(scope, self._catalogue), found)
            await described(scope, receive, send)


def _describe(catalogue: Catalogue, found: re.Match[str]) -> Response:
    if found["model"] is None:
        return json_response({"models": list(catalogue.names)})
    target = _target_of(found)
    try:
        predictor = catalogue.look(*target)
    except (ModelNotFound, VersionNotFound):
        which = f" and {target.text}" if target.version or target.label else ""
        return refusal(404, f"Could not find any versions of model {target.model}{which}")
    if found["what"]:
        return json_response(metadata(predictor))
    return _status(catalogue, target, predictor)


def _target_of(found: re.Match[str]) -> Target:
    return Target(found["model"], found["version"], found["label"])


def _status(catalogue: Catalogue, target: Target, predictor: Predictor) -> Response:
    """Return the status of a model in an object that readers of both protocols understand."""
    is_one = target.version is not None or target.label is not None
    there = [predictor] if is_one else list(catalogue.served[target.model].predictors.values())
    content = {
        "name": target.model,
        "ready": predictor.is_ready,
        "model_version_status": [_version_status(each) for each in there],
    }
    return json_response(content, 200 if predictor.is_ready else 503)


def _version_status(predictor: Predictor) -> dict[str, object]:
    is_ready = predictor.is_ready
    return {
        "version": predictor.manifest.version,
        "state": "AVAILABLE" if is_ready else "UNLOADING",
        "status": {"error_code": "OK" if is_ready else "UNAVAILABLE", "error_message": ""},
    }


def metadata(predictor: Predictor) -> dict[str, object]:
    """Return the signature that a model seems to have."""
    manifest = predictor.manifest
    spec = input_spec(manifest)
    labels = (-1, len(manifest.labels))
    signature = {
        "inputs": {
            spec.name: _tensor(TYPES[spec.datatype], spec.shape, f"{SIGNATURE}_{spec.name}")
        },
        "outputs": {OUTPUT: _tensor("DT_FLOAT", labels, OUTPUT)},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {
            "name": predictor.name,
            "signature_name": "",
            "version": manifest.version,
        },
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tensor(dtype: str, shape: Sequence[int], name: str) -> dict[str, object]:
    axes = [{"size": str(length), "name": ""} for length in shape]
    shape_content = {"dim": axes, "unknown_rank": False}
    return {"dtype": dtype, "tensor_shape": shape_content, "name": f"{name}:0"}


async def predict(call: Call, target: Target, verb: str) -> Response:
    """Return the answer to `:predict` or `:classify`.

    Raises:
        DunnoError: if there is none.
    """
    call.not_found_text = target.text
    predictor = call.use(call.catalogue.choose(*target))
    if verb == "regress":
        expected = "predict or classify: the model tells labels apart"
        raise InputInvalid("method", expected, "regress")
    question = await ask(call, predictor, ExamplesReader if verb == "classify" else InstancesReader)
    options, asked = question.options, question.asked
    terms = predictor.judge.terms(options.max_error, options.min_confidence)
    judged = await call.predict(predictor, asked.decoded, terms, question.deadline_s)

    def answered() -> Response:
        if verb == "classify":
            content: dict[str, object] = {"results": classes(judged.rows, predictor.judge.labels)}
        else:
            content = {"outputs" if asked.is_column else "predictions": probabilities(judged.rows)}
        if question.has_verdicts:
            content["verdicts"] = verdicts(judged, predictor, options)
        return json_response(content, judged=judged)

    return await offload(len(judged.answers), answered, question.deadline_s)


class Question(NamedTuple):
    """What a request asks, in its query, headers and body."""

    options: Options
    has_verdicts: bool
    asked: Instances
    deadline_s: float


async def ask(call: Call, predictor: Predictor, kind: type[InstancesReader]) -> Question:
    """Return what a request asks of a model.

    Raises:
        DunnoError: if it cannot be read.
    """
    options, has_verdicts = read_query(call)
    reader = kind(
        predictor.manifest,
        predictor.decoder,
        coding=call.coding,
        max_bytes=call.max_body_bytes,
        max_ratio=call.max_inflation_ratio,
    )
    payload = await call.read_body()
    deadline_s = call.deadline_s(options.deadline_s)
    asked = await call.read(reader, payload, deadline_s)
    return Question(options, has_verdicts, asked, deadline_s)


def read_query(call: Call) -> tuple[Options, bool]:
    """Return the options of a request and whether it asks for verdicts.

    Raises:
        OptionInvalid: naming the first parameter that is not as it must be.
    """
    refuse_too_many(call.scope["query_string"])
    parts = call.scope["query_string"].split(b"&")
    own = [part for part in parts if part.partition(b"=")[0] == b"verdict"]
    options = read_options(b"&".join(part for part in parts if part not in own))
    if options.version is not None or options.alias is not None:
        raise OptionInvalid("version", "the version or label in the path", "one in the query")
    asked = [part.partition(b"=")[2].decode("latin-1") for part in own]
    asked += [text for text in [call.header(VERDICT_HEADER)] if text]
    for text in asked:
        if text.lower() not in (*_YES, *_NO):
            raise OptionInvalid("verdict", "1 or 0", text[:40])
    return options, any(text.lower() in _YES for text in asked)


def probabilities(rows: Sequence[Row]) -> NDArray[np.float32]:
    """Return the probabilities of rows, shape (rows, labels)."""
    return np.array([row.probabilities for row in rows], np.float32)


def classes(rows: Sequence[Row], labels: Sequence[str]) -> list[list[tuple[str, Any]]]:
    """Return label and probability, for each label of each row."""
    return [list(zip(labels, row, strict=True)) for row in probabilities(rows)]


def verdicts(judged: Judged, predictor: Predictor, options: Options) -> list[dict[str, object]]:
    """Return what the native route says of each row."""
    return [encode_row(answer, predictor, options) for answer in judged.answers]

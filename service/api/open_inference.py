"""The Open Inference Protocol, /v2/…, with the extensions that Triton's clients use."""

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service import __version__
from service.api.calls import (
    Call,
    Judged,
    Reception,
    Resources,
    json_response,
    plain_errors,
    refusal,
    timing_headers,
    wrong_method,
)
from service.api.keys import seen_by
from service.api.packing import WORTH_PACKING_BYTES, accepted_coding, packed
from service.errors import InputInvalid, ModelNotFound, VersionNotFound
from service.inputs.framing import BYTES, Reply, write_tensors
from service.inputs.inference import AskedOutput, Inference, InferenceReader, input_spec
from service.prediction import Answer, Catalogue, Predictor, offload

EXTENSIONS = ("binary_tensor_data", "classification", "model_repository", "statistics")
STATUSES = {422: 400}
"""Ours -> the protocol's; all others are the same."""

PLATFORMS = {"onnx": "onnxruntime_onnx", "tensorflow": "tensorflow_savedmodel"}
PROBABILITIES = "probabilities"
_HEAD_LENGTH = "inference-header-content-length"
_NANOSECONDS = 1e9
_on_admin_address = re.compile(r"/v2/repository/models/[^/]+/(?:load|unload)").fullmatch
_target = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"
    r"(?:/(?P<what>ready|infer|stats))?"
).fullmatch

Respond = Callable[[Call], Awaitable[Response]]


class OpenInference:
    """Everything below /v2, as plain ASGI."""

    def __init__(self, resources: Resources) -> None:
        self._catalogue = resources.catalogue
        self._reception = Reception("v2", resources, plain_errors(STATUSES))
        self._pages: dict[str, Callable[[Catalogue], Response]] = {
            "/v2": server_metadata,
            "/v2/": server_metadata,
            "/v2/health/live": lambda _: json_response({"live": True}),
            "/v2/health/ready": _health,
            "/v2/models/stats": _all_statistics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see the ASGI specification."""
        path = scope["path"]
        found = _target(path)
        if path == "/v2/repository/index":
            await self._answer(scope, receive, send, "POST", self._index)
        elif path in self._pages:
            page = self._pages[path]
            await self._reply(scope, receive, send, page)
        elif found is None:
            await refusal(404, _no_path(scope))(scope, receive, send)
        elif found["what"] == "infer":
            await self._answer(
                *(scope, receive, send, "POST"), lambda call: infer(call, *found.group(1, 2))
            )
        else:
            await self._reply(scope, receive, send, lambda catalogue: _describe(catalogue, found))

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, allowed: str, respond: Respond
    ) -> None:
        if scope["method"] == allowed:
            await self._reception.answer(scope, receive, send, respond)
        else:
            await wrong_method(scope, allowed)(scope, receive, send)

    async def _reply(
        self, scope: Scope, receive: Receive, send: Send, page: Callable[[Catalogue], Response]
    ) -> None:
        if scope["method"] == "GET":
            response = page(seen_by(scope, self._catalogue))
        else:
            response = wrong_method(scope, "GET")
        await response(scope, receive, send)

    async def _index(self, call: Call) -> Response:
        content = (await call.read_body()).body
        try:
            asked = orjson.loads(content) if content.strip() else {}
        except orjson.JSONDecodeError:
            raise InputInvalid("body", "JSON, or nothing", "something else") from None
        only_ready = asked.get("ready", False) if isinstance(asked, dict) else None
        if not isinstance(only_ready, bool):
            raise InputInvalid("body", 'an object such as {"ready": true}', "another")
        return json_response(
            [_indexed(each) for each in call.catalogue if each.is_ready or not only_ready]
        )


def _health(catalogue: Catalogue) -> Response:
    return json_response({"ready": catalogue.is_ready}, 200 if catalogue.is_ready else 503)


def _all_statistics(catalogue: Catalogue) -> Response:
    return json_response({"model_stats": [statistics(each) for each in catalogue]})


def _describe(catalogue: Catalogue, found: re.Match[str]) -> Response:
    try:
        predictor = catalogue.look(*found.group("model", "version"))
    except (ModelNotFound, VersionNotFound) as error:
        return refusal(404, str(error))
    if found["what"] == "ready":
        content = {"name": predictor.name, "ready": predictor.is_ready}
        return json_response(content, 200 if predictor.is_ready else 503)
    if found["what"] == "stats":
        return json_response({"model_stats": [statistics(predictor)]})
    return json_response(metadata(catalogue, predictor))


def _no_path(scope: Scope) -> str:
    if _on_admin_address(scope["path"]):
        return "models are loaded and unloaded on the admin address, not on this one"
    return f"{scope['method']} {scope['path'][:256]}: no such path"


def server_metadata(_: Catalogue) -> Response:
    """Return what the server is."""
    content = {"name": "dunno", "version": __version__, "extensions": EXTENSIONS}
    return json_response(content)


def _indexed(predictor: Predictor) -> dict[str, str]:
    return {
        "name": predictor.name,
        "version": predictor.manifest.version,
        "state": "READY" if predictor.is_ready else "UNAVAILABLE",
        "reason": "" if predictor.is_ready else "stopping",
    }


def metadata(catalogue: Catalogue, predictor: Predictor) -> dict[str, object]:
    """Return what a model takes and gives, the outputs that have to be asked for as well."""
    spec = input_spec(predictor.manifest)
    outputs = {
        PROBABILITIES: ("FP32", [-1, len(predictor.manifest.labels)]),
        **{name: (datatype, [-1]) for name, datatype in _verdict_outputs(predictor).items()},
    }
    return {
        "name": predictor.name,
        "versions": list(catalogue.served[predictor.name].predictors),
        "platform": PLATFORMS.get(predictor.runtime_name, predictor.runtime_name),
        "inputs": [{"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, (datatype, shape) in outputs.items()
        ],
    }


def _verdict_outputs(predictor: Predictor) -> dict[str, str]:
    """Return the outputs that are not returned unless asked for, and their datatypes."""
    names = {"verdict": BYTES, "label": BYTES, "reason": BYTES, "confidence": "FP32"}
    return names if predictor.manifest.novelty is None else {**names, "novelty_p": "FP32"}


def statistics(predictor: Predictor) -> dict[str, object]:
    """Return what has been counted of a model, in the shape that Triton has it."""
    counted = predictor.metrics.statistics()
    stages = counted.stages
    decide = stages["decide"][1] + stages["encode"][1]
    return {
        "name": predictor.name,
        "version": predictor.manifest.version,
        "last_inference": int(counted.last_success_s * 1000),
        "inference_count": counted.rows,
        "execution_count": counted.batches,
        "inference_stats": {
            "success": _duration(counted.requests, counted.requests_s),
            "fail": _duration(counted.failures, counted.failures_s),
            "queue": _duration(*stages["queue"]),
            "compute_input": _duration(*stages["decode"]),
            "compute_infer": _duration(*stages["run"]),
            "compute_output": _duration(stages["decide"][0], decide),
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        "batch_stats": [],  # runs are counted by ranges of sizes, not by each size
    }


def _duration(number: int, seconds: float) -> dict[str, int]:
    return {"count": number, "ns": int(seconds * _NANOSECONDS)}


async def infer(call: Call, model: str, version: str | None) -> Response:
    """Return the answer to an inference request.

    Raises:
        DunnoError: if there is none.
    """
    predictor = call.use(call.catalogue.choose(model, version))
    payload = await call.read_body()
    length = call.header(_HEAD_LENGTH.encode())
    reader = InferenceReader(
        predictor.manifest,
        predictor.decoder,
        head_length=length if has_header(call.scope, _HEAD_LENGTH) else None,
        coding=call.coding,
        max_bytes=call.max_body_bytes,
        max_ratio=call.max_inflation_ratio,
    )
    arrived_s, deadline_s = time.monotonic(), call.deadline_s()
    asked = await call.read(reader, payload, deadline_s)
    outputs = asked.outputs or (AskedOutput(PROBABILITIES, asked.is_binary, None),)
    check_outputs(outputs, predictor)
    terms = predictor.judge.terms(asked.max_error, asked.min_confidence)
    if asked.timeout_s is not None:
        deadline_s = call.deadline_s(asked.timeout_s, arrived_s)
    judged = await call.predict(predictor, asked.decoded, terms, deadline_s)
    head, behind = await offload(
        len(judged.answers), lambda: written(predictor, asked, outputs, judged), deadline_s
    )
    return await respond(call, head, behind, judged)


def has_header(scope: Scope, name: str) -> bool:
    """Tell whether a request has a header, be it empty."""
    return any(key == name.encode() for key, _ in scope["headers"])


def check_outputs(outputs: Sequence[AskedOutput], predictor: Predictor) -> None:
    """Refuse outputs that there are not, before a row is run.

    Raises:
        InputInvalid: naming the first.
    """
    there = (PROBABILITIES, *_verdict_outputs(predictor))
    for position, output in enumerate(outputs):
        if output.name not in there:
            expected = f"one of {', '.join(there)}"
            raise InputInvalid(f"outputs[{position}].name", expected, repr(output.name[:40]))
        if output.classes is not None and output.name != PROBABILITIES:
            place = f"outputs[{position}].parameters.classification"
            raise InputInvalid(place, f"the output {PROBABILITIES}", output.name)


def reply(output: AskedOutput, judged: Judged, predictor: Predictor) -> Reply:
    """Return one output of all rows."""
    answers = judged.answers
    if output.classes is not None:
        labels = predictor.judge.labels
        number = min(output.classes, len(labels))
        texts = [text for answer in answers for text in ranked(answer, labels, number)]
        return Reply(output.name, texts, (len(answers), number), output.is_binary)
    values = _VALUES[output.name](answers)
    shape = (len(values),) if isinstance(values, list) else values.shape
    return Reply(output.name, values, shape, output.is_binary)


def ranked(answer: Answer, labels: Sequence[str], number: int) -> list[str]:
    """Return the best labels as Triton writes them: probability, position, label."""
    shares = answer.row.probabilities
    order = sorted(range(len(labels)), key=shares.__getitem__, reverse=True)[:number]
    return [f"{shares[at]:f}:{at}:{labels[at]}" for at in order]


_VALUES: dict[str, Callable[[Sequence[Answer]], NDArray[Any] | list[str]]] = {
    PROBABILITIES: lambda answers: np.array(
        [answer.row.probabilities for answer in answers], np.float32
    ),
    "verdict": lambda answers: [
        "answer" if answer.verdict.reason is None else "dont_know" for answer in answers
    ],
    "label": lambda answers: [answer.verdict.label or "" for answer in answers],
    "reason": lambda answers: [answer.verdict.reason or "" for answer in answers],
    "confidence": lambda answers: np.array(
        [answer.row.confidence for answer in answers], np.float32
    ),
    "novelty_p": lambda answers: np.array([answer.row.novelty_p for answer in answers], np.float32),
}
"""Output -> its values, one row for each answer."""


def written(
    predictor: Predictor, asked: Inference, outputs: Sequence[AskedOutput], judged: Judged
) -> tuple[bytes, bytes]:
    """Return the head of an answer with these outputs, and what comes behind it, if anything."""
    declared, behind = write_tensors([reply(output, judged, predictor) for output in outputs])
    content: dict[str, object] = {
        "model_name": predictor.name,
        "model_version": predictor.manifest.version,
        "outputs": declared,
    }
    if asked.id is not None:
        content["id"] = asked.id
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), behind


async def respond(call: Call, head: bytes, behind: bytes, judged: Judged) -> Response:
    """Return a response, compressed if the caller takes that."""
    headers = timing_headers(judged)
    media_type = "application/json"
    if behind:
        headers[_HEAD_LENGTH] = str(len(head))
        media_type = "application/octet-stream"
    body = head + behind
    coding = accepted_coding(call.header(b"accept-encoding"))
    if coding and len(body) > WORTH_PACKING_BYTES:
        headers |= {"content-encoding": coding, "vary": "accept-encoding"}
        body = await packed(body, coding)
    return Response(body, 200, headers, media_type)

"""What can go wrong, as responses: each failure under its status, as `problems.py` has it."""

import inspect
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import groupby

import orjson

from service import errors
from service.api.open_inference import STATUSES as VERSION_2
from service.api.openapi.parts import (
    JSON,
    PROBLEM,
    STRING,
    Json,
    Protocol,
    fields,
    header_of,
    response,
    schema_of,
)
from service.api.problems import STATUS, headers_of, problem, problem_of
from service.api.tensorflow_serving import STATUSES as VERSION_1
from service.api.tensorflow_serving import Target
from service.errors import BundleError, DunnoError, code_of, code_of_kind

Failure = type[DunnoError]
REQUEST_ID = "5f0c2a91-1b"
OF_PROTOCOL: dict[Protocol, Mapping[int, int]] = {"native": {}, "v1": VERSION_1, "v2": VERSION_2}
"""Protocol -> where its statuses differ from ours."""

BASES = {DunnoError, *DunnoError.__subclasses__()}
"""Failures that only divide the others by who must act."""

FAILURES = tuple(failure for failure in STATUS if failure not in BASES)
OF_BUNDLES = tuple(each for each in FAILURES if issubclass(each, BundleError))
"""What keeps a model from being served; no request for a prediction meets them."""

OF_GATE = (errors.Unauthorised, errors.RateExceeded, errors.ConcurrencyExceeded)
"""What only callers meet who need keys."""

OF_PREDICTIONS = tuple(
    each for each in FAILURES if each not in (*OF_BUNDLES, *OF_GATE, errors.Forbidden)
)
OF_BODIES = (
    *(errors.BodyTimedOut, errors.BodyTooLarge, errors.BodiesFull),
    *(errors.InputInvalid, errors.Draining),
)
"""What can be wrong with a body that asks no model."""

_ARGUMENTS: dict[Failure, tuple[object, ...]] = {
    errors.InputInvalid: ("instances[0]", "3 numbers (a, b, c)", "a list of 2"),
    errors.PictureUnreadable: ("body", "a picture", "61 bytes that do not decode"),
    errors.Unauthorised: (),
    errors.PayloadTooLarge: ("the request (5,000 rows)", 4096, "rows"),
    errors.BodyTooLarge: ("the body", 8_388_608, "bytes"),
    errors.ModelNotFound: ("rose", ("tulip",)),
    errors.OptionInvalid: ("max_error", "a risk between 0 and 1", "2"),
    errors.RiskNotCertifiable: (
        *("max_error", "at least one of the certified risks (0.01, 0.05)", "0.001"),
    ),
    errors.RateExceeded: (10.0, 0.3),
    errors.ConcurrencyExceeded: (8, 0.3),
}
"""Failure -> what one is made of; all others of a sentence."""

_OTHERS = {
    "internal": (500, "A fault of ours; it is in the log, by the request's id."),
    "method_not_allowed": (405, "The path does not take this method."),
    "not_ready": (503, "The server is stopping, or a model takes no rows."),
}
"""Code of what is told by no failure of the tree -> status and what it means."""


def meaning_of(failure: Failure) -> str:
    """Return the first sentence of what a failure says of itself."""
    paragraph = (inspect.getdoc(failure) or code_of_kind(failure)).partition("\n\n")[0]
    return paragraph.replace("\n", " ")


def example_of(failure: Failure) -> DunnoError:
    """Return a failure as a caller could meet it."""
    made_of = next((_ARGUMENTS[kind] for kind in failure.__mro__ if kind in _ARGUMENTS), None)
    return failure(*((meaning_of(failure),) if made_of is None else made_of))


def examples(*, has_keys: bool) -> Json:
    """Return an example of each problem, by its code."""
    found: Json = {}
    for failure in (*OF_PREDICTIONS, *((*OF_GATE, errors.Forbidden) if has_keys else ())):
        error, meaning = example_of(failure), meaning_of(failure)
        content = orjson.loads(problem_of(error, REQUEST_ID))
        found[code_of(error)] = {"summary": meaning, "value": content}
    return found


def refusals(failures: Iterable[Failure], protocol: Protocol) -> dict[str, Json]:
    """Return the responses to these failures, by status."""
    other = OF_PROTOCOL[protocol]
    kinds = sorted(failures, key=lambda kind: other.get(STATUS[kind], STATUS[kind]))
    return {
        str(status): _refusal(status, list(group), protocol)
        for status, group in groupby(kinds, lambda kind: other.get(STATUS[kind], STATUS[kind]))
    }


def other_problem(code: str) -> Json:
    """Return the response to what is no failure of the tree."""
    status, meaning = _OTHERS[code]
    shown = {code: _example(code)}
    found = response(meaning, schema_of("Problem"), PROBLEM, examples=shown)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        found["headers"] = {"Retry-After": header_of("RetryAfter")}
    return found


def wrong_methods() -> dict[str, Json]:
    """Return the responses to a method that a path does not take, by their names."""
    allow = {"Allow": header_of("Allow"), "X-Request-ID": header_of("RequestId")}
    shown = {"error": "PUT /v2: only GET is taken here"}
    text = response(_OTHERS["method_not_allowed"][1], schema_of("ErrorText"), JSON, example=shown)
    found = {"MethodNotAllowed": other_problem("method_not_allowed"), "MethodNotAllowedText": text}
    return {name: {**each, "headers": allow} for name, each in found.items()}


ERROR_TEXT: Json = {
    **fields(error=STRING),
    "description": "What is wrong, in words, as clients of other protocols read it.",
}


def _refusal(status: int, failures: list[Failure], protocol: Protocol) -> Json:
    is_native = protocol == "native"
    codes = [code_of_kind(failure) for failure in failures]
    shown = {
        code: {"$ref": f"#/components/examples/{code}"} if is_native else _text(failure, protocol)
        for code, failure in zip(codes, failures, strict=True)
    }
    media_type, schema = (PROBLEM, "Problem") if is_native else (JSON, "ErrorText")
    sentences = [
        f"`{code}`: {meaning_of(failure)}" for code, failure in zip(codes, failures, strict=True)
    ]
    found = response(" ".join(sentences), schema_of(schema), media_type, examples=shown)
    names_of_headers = {name for each in failures for name in _headers_of(each)}
    if names_of_headers:
        found["headers"] = {name: header_of(_HEADERS[name]) for name in sorted(names_of_headers)}
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and is_native:
        found["content"][PROBLEM]["examples"]["internal"] = _example("internal")
        found["description"] += f" `internal`: {_OTHERS['internal'][1]}"
    return found


def _text(failure: Failure, protocol: Protocol) -> Json:
    """Return an example of what another protocol says of a failure."""
    text = str(example_of(failure)).replace("query parameter ", "parameter ")
    if protocol == "v1":
        text = _TEXTS_1.get(failure, text)
    return {"summary": meaning_of(failure), "value": {"error": text}}


_TEXTS_1 = {
    errors.ModelNotFound: Target("rose", None, None).text,
    errors.VersionNotFound: Target("tulip", "9", None).text,
}
"""What TensorFlow Serving says otherwise."""


def _example(code: str) -> Json:
    """Return an example of what is no failure of the tree."""
    status, meaning = _OTHERS[code]
    content = orjson.loads(problem(status, code, meaning, REQUEST_ID))
    return {"summary": meaning, "value": content}


_HEADERS = {"Retry-After": "RetryAfter", "WWW-Authenticate": "Authenticate"}


def _headers_of(failure: Failure) -> list[str]:
    found = [name.decode() for name, _ in headers_of(example_of(failure))]
    return [name for name in _HEADERS if name.lower() in found]

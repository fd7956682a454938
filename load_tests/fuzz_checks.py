"""What every answer has to be, whatever was asked."""

import math
import re
from typing import Any

import orjson
from fuzz_wire import Request, Response
from many_callers import same_answers

_MAY_FAIL = {"501", "503", "504"}  # 501: a Transfer-Encoding that is not known
_is_predict = re.compile(r"/predict/[^/?]+(?:\?.*)?", re.DOTALL).fullmatch
_is_v1 = re.compile(r"(?is)/v1/models/[^?]*:(?:predict|classify)(?:\?.*)?").fullmatch
_is_v2 = re.compile(r"/v2/models/[^?]*/infer(?:\?.*)?", re.DOTALL).fullmatch

_OF_THE_MOMENT = {408, 429, 503, 504}
"""Statuses that another moment would not have had."""

REASONS = {None, "out_of_distribution", "ambiguous", "low_confidence"}


def fault_of(request: Request, response: Response) -> str | None:
    """Return what is wrong with an answer, or None."""
    status, body = response.status, response.body
    if status >= 500 and str(status) not in _MAY_FAIL and not _is_told_reload(request, response):
        return f"{status}: {body[:300]!r}"
    if status == 405 and "allow" not in response.headers:
        return "405 without Allow"
    if request.method == "HEAD":
        return None
    try:
        if status >= 400:
            return _fault_of_refusal(response)
        return _fault_of_answer(request, response)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return f"not well-formed ({error!r}): {status} {body[:300]!r}"


def _is_told_reload(request: Request, response: Response) -> bool:
    return request.lane == "admin" and b"reload_failed" in response.body


def _fault_of_refusal(response: Response) -> str | None:
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/plain") and response.body == b"Invalid HTTP request received.":
        return None
    content = orjson.loads(response.body)
    if kind == "application/problem+json":
        is_whole = content["status"] == response.status and bool(content["detail"])
        return None if is_whole else f"not the problem of its status: {response.body[:300]!r}"
    is_error = content.keys() == {"error"} and bool(content["error"])
    return None if is_error else f"no error: {response.body[:300]!r}"


def _fault_of_answer(request: Request, response: Response) -> str | None:
    if request.lane == "admin" or request.raw is not None:
        return None
    if _is_predict(request.target):
        return _fault_of_native(orjson.loads(response.body))
    if _is_v1(request.target):
        return _fault_of_v1(orjson.loads(response.body))
    if _is_v2(request.target):
        return _fault_of_v2(response)
    return None


def _fault_of_native(content: dict[str, Any]) -> str | None:
    predictions = content["predictions"]
    if not predictions or all("error" in row for row in predictions):
        return "200 without a verdict"
    faults = (_fault_of_row(row) for row in predictions if "error" not in row)
    return next((fault for fault in faults if fault is not None), None)


def _fault_of_row(row: dict[str, Any]) -> str | None:
    verdict, label, reason = row["verdict"], row["label"], row["reason"]
    is_answer = verdict == "answer"
    if reason not in REASONS or is_answer != (reason is None) or is_answer != (label is not None):
        return f"a verdict that contradicts itself: {row}"
    if verdict not in ("answer", "dont_know") or not 0 <= row["confidence"] <= 1:
        return f"no verdict: {row}"
    shares = row["probabilities"]
    values = list(shares.values()) if isinstance(shares, dict) else shares
    if not values or not all(0 <= value <= 1 for value in values) or sum(values) > 1.001:
        return f"no probabilities: {row}"
    return None


def _fault_of_v1(content: dict[str, Any]) -> str | None:
    if "results" in content:
        rows = [[share for _, share in row] for row in content["results"]]
    else:
        rows = content["predictions"] if "predictions" in content else content["outputs"]
    return None if rows and all(map(_are_shares, rows)) else f"no probabilities: {rows}"


def _are_shares(values: list[float]) -> bool:
    return all(0 <= value <= 1 for value in values) and abs(sum(values) - 1) < 1e-3


def _fault_of_v2(response: Response) -> str | None:
    length = response.headers.get("inference-header-content-length")
    if "content-encoding" in response.headers:
        return None
    head = response.body if length is None else response.body[: int(length)]
    content = orjson.loads(head)
    behind = len(response.body) - len(head)
    declared = 0
    for output in content["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        declared += size or 0
        if size is None and len(output["data"]) != math.prod(output["shape"]):
            return f"an output that is not of its shape: {output}"
    return None if declared == behind else f"{behind} bytes behind the head, {declared} declared"


def is_same(request: Request, hot: Response, general: Response) -> bool:
    """Tell whether two lanes said the same, but for request ids and sums in another order."""
    if hot.status != general.status:
        return not _OF_THE_MOMENT.isdisjoint({hot.status, general.status})
    if hot.headers.get("content-type") != general.headers.get("content-type"):
        return False
    if not _is_predict(request.target) or request.method != "POST":
        return True
    if "json" not in hot.headers.get("content-type", ""):
        return hot.body == general.body
    return same_answers(_without_id(hot.body), _without_id(general.body))


def _without_id(body: bytes) -> object:
    if not body:
        return None
    content = orjson.loads(body)
    if isinstance(content, dict):
        content.pop("request_id", None)
        detail = content.get("detail", content.get("error"))
        if isinstance(detail, str) and "quote the request id" in detail:
            content = {}
    return content

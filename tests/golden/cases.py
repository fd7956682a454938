"""Requests of every protocol, one for each kind of body and each failure, as bytes."""

import base64
import gzip
import io
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from keys import NARROW, RARE, WHOLE

from service.inputs.png import write_png

JSON = "application/json"
FRUIT = [9.0, 0.0, 0.0]
ODD = [0.1, 0.1, 0.1]
PNG = write_png(np.zeros((8, 8), np.uint8))


class Case(NamedTuple):
    """A request and the server that it is sent to."""

    name: str
    server: str
    """One of `servers.SERVERS`."""

    sent: bytes


def case(
    name: str,
    path: str,
    body: bytes = b"",
    content_type: str = JSON,
    *,
    server: str = "open",
    method: str = "POST",
    **headers: str,
) -> Case:
    """Return a request whose connection ends with its answer."""
    lines = [f"{method} {path} HTTP/1.1", "Host: golden", "Connection: close"]
    lines += ["X-Request-ID: golden"]
    if body or method == "POST":
        lines += [f"Content-Type: {content_type}"] * bool(content_type)
        lines += [f"Content-Length: {len(body)}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return Case(name, server, "\r\n".join([*lines, "", ""]).encode() + body)


def cases() -> Iterator[Case]:
    """Return all requests."""
    yield from _native()
    yield from _tensorflow_serving()
    yield from _open_inference()
    yield from _clouds()
    yield from _questions()
    yield from _keys()
    yield from _pages_of_others()
    yield from _admin()
    yield from _http()


def rows(*instances: object) -> bytes:
    """Return a body of rows."""
    return _json({"instances": instances})


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _npy(values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _form(*contents: bytes, field: str = "image") -> tuple[bytes, str]:
    head = (
        b'--b\r\nContent-Disposition: form-data; name="%b"; filename="a"\r\n\r\n' % field.encode()
    )
    body = b"".join(head + content + b"\r\n" for content in contents) + b"--b--\r\n"
    return body, "multipart/form-data; boundary=b"


def _native() -> Iterator[Case]:
    path = "/predict/fruit"
    pixels = [[0] * 8] * 8
    encoded = {"b64": base64.b64encode(PNG).decode()}
    named = {"sweet": 9, "sour": 0, "firm": 0}
    yield case("native: a row", path, rows(FRUIT))
    yield case("native: an odd row", path, rows(ODD))
    yield case("native: rows, one of them wrong", path, rows(FRUIT, [1], ODD))
    yield case("native: a row by name", path, rows(named))
    yield case("native: CSV", path, b"sweet,sour,firm,other\n9,0,0,1\n", "text/csv")
    yield case("native: npy", path, _npy(np.array([FRUIT], np.float32)), "application/x-npy")
    yield case("native: pixels", "/predict/picture", rows(pixels))
    yield case("native: pictures in base64", "/predict/picture", rows(encoded, {"b64": "AAAA"}))
    yield case("native: PNG", "/predict/picture", PNG, "image/png")
    yield case("native: form", "/predict/picture", *_form(PNG, b"rubbish"))
    yield case("native: text", "/predict/review", b"good good", "text/plain")
    yield case("native: texts", "/predict/review", rows("good", "bad", ""))
    for query in (
        "include=best_guess", "probabilities=list", "top_k=1", "min_confidence=1", "max_error=0.01",
        "version=2", "deadline_ms=60000",
    ):  # fmt: skip
        yield case(f"native: ?{query}", f"{path}?{query}", rows(FRUIT))
    yield case("native: ?alias", "/predict/fruits?alias=stable", rows(FRUIT))
    yield case("native: 400 no JSON", path, b"{")
    yield case("native: 400 no rows", path, rows())
    yield case("native: 400 no row is right", path, rows([1], [2]))
    yield case("native: 400 of another kind", path, b'{"rows":[]}')
    yield case("native: 400 rubbish for a picture", "/predict/picture", b"rubbish", "image/png")
    yield case("native: 404 model", "/predict/nobody", rows(FRUIT))
    yield case("native: 404 version", f"{path}?version=9", rows(FRUIT))
    yield case("native: 404 alias", f"{path}?alias=nobody", rows(FRUIT))
    yield case("native: 405", path, method="GET")
    yield case("native: 413 body", path, rows(*[FRUIT] * 400), server="small")
    yield case("native: 413 rows", path, rows(*[[1]] * 30), server="small")
    yield case("native: 415", path, b"<fruit/>", "application/xml")
    yield case("native: 415 no type", path, rows(FRUIT), "")
    yield case(
        "native: 415 coding", path, gzip.compress(rows(FRUIT), mtime=0), Content_Encoding="br"
    )
    yield case("native: 422 parameter", f"{path}?colour=red", rows(FRUIT))
    yield case("native: 422 value", f"{path}?top_k=-1", rows(FRUIT))
    yield case("native: 422 risk", f"{path}?max_error=0.5", rows(FRUIT))
    yield case("native: 504", f"{path}?deadline_ms=0.000001", rows(FRUIT))


def _tensorflow_serving() -> Iterator[Case]:
    path = "/v1/models/fruit:predict"
    yield case("v1: rows", path, rows(FRUIT, ODD))
    yield case("v1: columns", path, _json({"inputs": [FRUIT]}))
    yield case("v1: verdicts", f"{path}?verdict=1", rows(FRUIT, ODD))
    yield case("v1: gzip", path, gzip.compress(rows(FRUIT), mtime=0), Content_Encoding="gzip")
    yield case("v1: version", "/v1/models/fruits/versions/1:predict", rows(FRUIT))
    yield case("v1: label", "/v1/models/fruits/labels/stable:predict", rows(FRUIT))
    examples = _json({"examples": [{"sweet": 9, "sour": 0, "firm": 0}]})
    yield case("v1: classify", "/v1/models/fruit:classify", examples)
    yield case("v1: pictures", "/v1/models/picture:predict", rows([[0] * 8] * 8))
    yield case("v1: texts", "/v1/models/review:predict", rows("good"))
    yield case("v1: status", "/v1/models/fruit", method="GET")
    yield case("v1: metadata", "/v1/models/fruit/metadata", method="GET")
    yield case("v1: 400 no JSON", path, b"{")
    yield case("v1: 400 a row is wrong", path, rows(FRUIT, [1]))
    yield case("v1: 400 both forms", path, _json({"inputs": [], "instances": []}))
    yield case("v1: 400 regress", "/v1/models/fruit:regress", rows(FRUIT))
    yield case("v1: 400 parameter", f"{path}?colour=red", rows(FRUIT))
    yield case("v1: 404 model", "/v1/models/nobody:predict", rows(FRUIT))
    yield case("v1: 404 version", "/v1/models/fruit/versions/9:predict", rows(FRUIT))
    yield case("v1: 405", path, method="GET")
    yield case("v1: 413", path, rows(*[FRUIT] * 400), server="small")


def _open_inference() -> Iterator[Case]:
    path = "/v2/models/fruit/infer"
    tensor = {"name": "rows", "shape": [1, 3], "datatype": "FP32", "data": FRUIT}
    yield case("v2: rows", path, _json({"inputs": [tensor], "id": "seven"}))
    outputs = [{"name": name} for name in ("probabilities", "verdict", "label")]
    yield case("v2: outputs", path, _json({"inputs": [tensor], "outputs": outputs}))
    parameters = {"parameters": {"max_error": 0.05, "min_confidence": 0.9}}
    yield case("v2: parameters", path, _json({"inputs": [tensor], **parameters}))
    values = np.array([FRUIT], np.float32).tobytes()
    told = {"name": "rows", "shape": [1, 3], "datatype": "FP32"}
    told_size = {**told, "parameters": {"binary_data_size": len(values)}}
    head = _json({"inputs": [told_size], "parameters": {"binary_data_output": True}})
    yield case(
        "v2: binary",
        path,
        head + values,
        "application/octet-stream",
        Inference_Header_Content_Length=str(len(head)),
    )
    text = {"name": "rows", "shape": [1], "datatype": "BYTES", "data": ["good"]}
    yield case("v2: text", "/v2/models/review/infer", _json({"inputs": [text]}))
    yield case("v2: version", "/v2/models/fruits/versions/1/infer", _json({"inputs": [tensor]}))
    for route in (
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/fruit", "/v2/models/fruit/ready",
        "/v2/models/fruits/versions/1",
    ):  # fmt: skip
        yield case(f"v2: GET {route}", route, method="GET")
    yield case("v2: repository", "/v2/repository/index", b"{}")
    yield case("v2: 400 no JSON", path, b"{")
    yield case("v2: 400 datatype", path, _json({"inputs": [{**tensor, "datatype": "INT7"}]}))
    yield case("v2: 400 shape", path, _json({"inputs": [{**tensor, "shape": [1, 2]}]}))
    yield case("v2: 400 output", path, _json({"inputs": [tensor], "outputs": [{"name": "x"}]}))
    yield case("v2: 404 model", "/v2/models/nobody/infer", _json({"inputs": [tensor]}))
    yield case("v2: 404 version", "/v2/models/fruit/versions/9/infer", _json({"inputs": [tensor]}))
    yield case("v2: 405", path, method="GET")
    yield case("v2: 413", path, b" " * 5000, server="small")


def _clouds() -> Iterator[Case]:
    for name, path in (("Vertex AI", "/vertex/predict"), ("SageMaker", "/invocations")):
        yield case(f"{name}: rows", path, rows(FRUIT), server="cloud")
        content = _json({"instances": [FRUIT], "parameters": {"verdict": True}})
        yield case(f"{name}: verdicts", path, content, server="cloud")
        yield case(f"{name}: 400", path, rows([1]), server="cloud")
        yield case(f"{name}: 405", path, method="GET", server="cloud")
    yield case("Vertex AI: health", "/vertex/health", method="GET", server="cloud")
    yield case("SageMaker: ping", "/ping", method="GET", server="cloud")
    yield case("SageMaker: 404 no default", "/invocations", rows(FRUIT))


def _questions() -> Iterator[Case]:
    for path in (
        "/",
        "/livez",
        "/readyz",
        "/models",
        "/models/fruit",
        "/models/nobody",
        "/nowhere",
    ):
        yield case(f"GET {path}", path, method="GET")
    yield case("HEAD /livez", "/livez", method="HEAD")
    yield case("POST /livez", "/livez", b"{}")
    yield case("GET /metrics", "/metrics", method="GET", server="fresh")
    yield case("too many parameters", "/models?" + "a&" * 40, method="GET")


def _keys() -> Iterator[Case]:
    path = "/predict/fruit"
    for name, route in (("native", path), ("v1", "/v1/models/fruit:predict")):
        yield case(f"{name}: 401 no key", route, rows(FRUIT), server="keyed")
        for told, key in ((f"{name}: 401 wrong key", "nobody"), (f"{name}: with a key", WHOLE)):
            shown = f"Bearer {key}"
            yield case(told, route, rows(FRUIT), server="keyed", Authorization=shown)
    narrow = {"X_API_Key": NARROW}
    yield case(
        "native: 404 not for this key", "/predict/review", rows("a"), server="keyed", **narrow
    )
    yield case("models of a key", "/models", method="GET", server="keyed", X_API_Key=NARROW)
    yield case("403 metrics", "/metrics", method="GET", server="keyed", X_API_Key=NARROW)
    yield case("probe without a key", "/readyz", method="GET", server="keyed")
    for number in (1, 2, 3):
        told, shown = f"native: 429, request {number}", f"Bearer {RARE}"
        yield case(told, path, rows(FRUIT), server="keyed", Authorization=shown)


def _pages_of_others() -> Iterator[Case]:
    path = "/predict/fruit"
    for origin in ("https://shop.example", "https://evil.example"):
        yield case(
            f"asked first by {origin}",
            path,
            method="OPTIONS",
            server="shop",
            Origin=origin,
            Access_Control_Request_Method="POST",
        )
        yield case(f"asked by {origin}", path, rows(FRUIT), server="shop", Origin=origin)
        yield case(f"refused to {origin}", path, b"{", server="shop", Origin=origin)


def _admin() -> Iterator[Case]:
    models = "/v2/repository/models"
    for path in (
        "/reload", "/v2/repository/index", f"{models}/review/unload", f"{models}/review/load",
        f"{models}/nobody/load",
    ):  # fmt: skip
        yield case(f"admin: POST {path}", path, b"{}", server="admin")
    yield case("admin: GET /reload", "/reload", method="GET", server="admin")
    yield case("admin: GET /readyz", "/readyz", method="GET", server="admin")
    yield case("admin: 413", "/reload", b" " * 70_000, server="admin")
    yield case("admin: asked by a page", "/reload", b"{}", server="admin", Origin="https://a.b")


def _http() -> Iterator[Case]:
    post = b"POST /predict/fruit HTTP/1.1\r\nHost: golden\r\n"
    get = b"GET /models HTTP/1.1\r\n"
    yield Case("400 no request", "open", b"hello\r\n\r\n")
    yield Case("400 no host", "open", get + b"\r\n")
    yield Case("400 HTTP/2", "open", b"GET / HTTP/2.0\r\nHost: golden\r\n\r\n")
    yield Case("421", "open", get + b"Host: evil.example\r\n\r\n")
    yield Case("501", "open", post + b"Transfer-Encoding: gzip, chunked\r\n\r\n")
    yield Case(
        "431 a long header", "small", get + b"Host: golden\r\nA: " + b"a" * 3000 + b"\r\n\r\n"
    )
    yield Case("431 many headers", "small", get + b"Host: golden\r\n" + b"A: a\r\n" * 40 + b"\r\n")
    yield Case("408 a head that does not end", "small", b"GET /models HTTP/1.1\r\nHost: golden\r\n")
    body = b"Content-Type: application/json\r\nContent-Length: 9\r\nX-Request-ID: golden\r\n\r\n{"
    yield Case("408 a body that does not end", "small", post + body)
    yield case("503 too many connections", "/models", method="GET", server="full")

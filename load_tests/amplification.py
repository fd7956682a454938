"""How much processor time does a request cost the server, for what it costs to send?

Starts a server with its default limits and sends it the requests that are most expensive for their
size: many rows in few bytes, rows that are all wrong, parameters, headers and parts without end,
pictures and texts that are slow to read, small bodies that grow. For each it reads from the kernel
how much processor time the event loop (the main thread) and the whole process took.

Exits 1 if a request took the event loop longer than 5 ms + 50 us for each KB that was sent, or the
process longer than 1 s, times `--slack` (a busy machine takes longer for the same); with 3 if the
kernel does not tell (Linux does).

    python load_tests/amplification.py
"""

import argparse
import base64
import gzip
import io
import json
import socket
import statistics
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from many_callers import serving
from PIL import Image

LOOP_S = 0.005
LOOP_S_PER_KB = 50e-6
CPU_S = 1.0
MOST_BYTES = 8 * 1024 * 1024
MOST_ROWS = 4096
LIGHT = 65_000
"""Bytes that are read on the event loop."""

JSON = "application/json"
NDIM = 900


class Cost(NamedTuple):
    """Seconds of processor time."""

    loop_s: float
    cpu_s: float


def request(
    path: str,
    body: bytes = b"",
    content_type: str = JSON,
    *,
    method: str = "POST",
    headers: bytes = b"",
) -> bytes:
    """Return the bytes of a request."""
    length = b"Content-Length: %d\r\n" % len(body) if b"chunked" not in headers else b""
    return b"%b %b HTTP/1.1\r\nHost: dunno\r\nContent-Type: %b\r\n%b%b\r\n%b" % (
        method.encode(),
        path.encode(),
        content_type.encode(),
        length,
        headers,
        body,
    )


def rows(element: bytes, n: int = MOST_ROWS, last: bytes = b"") -> bytes:
    """Return a body of `n` rows that are all `element`, except perhaps the last one."""
    elements = [element] * (n - bool(last)) + [last] * bool(last)
    return b'{"instances":[' + b",".join(elements) + b"]}"


def filled(element: bytes, size: int = MOST_BYTES - 100) -> bytes:
    """Return a body of rows that is as large as it may be."""
    return rows(element, size // (len(element) + 1))


def tensor(name: str, shape: list[int], datatype: str, data: object) -> bytes:
    """Return a request of the Open Inference Protocol."""
    given = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [given]}, separators=(",", ":")).encode()


def picture(form: str, size: tuple[int, int] = (4000, 4000), **options: object) -> bytes:
    """Return a picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, form, **options)
    return buffer.getvalue()


def noise(form: str, side: int, **options: object) -> bytes:
    """Return a picture that does not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def multipart(head: bytes, content: bytes = b"x", parts: int = 1) -> tuple[bytes, str]:
    """Return a form of equal parts, and its Content-Type."""
    part = b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n"
    return part * parts + b"--b--\r\n", "multipart/form-data; boundary=b"


def npy(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    """Return an array as a file."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def requests() -> Iterator[tuple[str, bytes]]:
    """Return the requests by what they are."""
    yield from _of_rows()
    yield from _of_csv()
    yield from _of_texts()
    yield from _of_pictures()
    yield from _of_http()
    yield from _of_other_protocols()


def _of_rows() -> Iterator[tuple[str, bytes]]:
    iris, fruit = "/predict/iris", b"[5,3,1,0]"
    yield "one row", request(iris, rows(fruit, 1))
    yield "rows", request(iris, rows(fruit))
    yield "rows, best guesses", request(iris + "?include=best_guess", rows(fruit))
    yield "rows, probabilities as lists", request(iris + "?probabilities=list", rows(fruit))
    yield "rows as objects", request("/predict/titanic", rows(b"{}"))
    for name, element in (("[]", b"[]"), ("0", b"0"), ("null", b"null"), ("{}", b"{}")):
        yield f"rows {name}", request(iris, rows(element))
        yield f"rows {name} and one that is right", request(iris, rows(element, last=fruit))
    yield "rows out of bounds", request(iris, rows(b"[-1,3,1,0]", last=fruit))
    yield "rows with a long text", request(iris, rows(b'["%b",3,1,0]' % (b"x" * 1900), last=fruit))
    yield "rows with unknown keys", request(iris, rows(b'{"a":1,"b":2}', last=fruit))
    yield "too many rows", request(iris, filled(b"0"))
    yield "too many rows, light", request(iris, filled(b"0", LIGHT))
    yield "digits", request(iris, b'{"instances":[[' + b"1" * LIGHT + b",3,1,0]]}")
    yield (
        "digits, many",
        request(iris, b'{"instances":[[' + b"1" * (MOST_BYTES - 99) + b",3,1,0]]}"),
    )
    deep = b"[" * NDIM + b"]" * NDIM
    yield "lists in lists", request(iris, filled(deep))
    yield "lists in lists, light", request(iris, filled(deep, LIGHT))
    keys = b",".join(b'"%d":1' % i for i in range(LIGHT // 9))
    yield "keys", request(iris, b'{"instances":[{%b}]}' % keys)
    yield "keys beside", request(iris, b'{"instances":[[5,3,1,0]],%b}' % keys)
    yield "escapes", request(iris, b'{"instances":["' + b"\\u0041" * (LIGHT // 6) + b'"]}')
    yield "spaces", request(iris, b" " * (MOST_BYTES - 99) + rows(fruit, 1))
    npy_type = "application/x-npy"
    yield "npy", request(iris, npy(np.full((MOST_ROWS, 4), 3, np.float16)), npy_type)
    yield "npy, wrong", request(iris, npy(np.full((MOST_ROWS, 4), 999, np.uint16)), npy_type)
    yield (
        "npy, no numbers",
        request(iris, npy(np.full((MOST_ROWS, 4), np.nan, np.float16)), npy_type),
    )
    yield "npy, pictures", request("/predict/mnist", npy(np.zeros((1300, 28, 28), "u1")), npy_type)
    wrong = np.full((1300, 28, 28), -1, np.int8)
    yield "npy, wrong pictures", request("/predict/mnist", npy(wrong), npy_type)
    half = np.full((600, 28, 28), 0.5, np.float16)
    yield "npy, pictures of fractions", request("/predict/mnist", npy(half), npy_type)
    pixels = b"[" + b",".join([b"[" + b",".join([b"0"] * 28) + b"]"] * 28) + b"]"
    yield "pixels", request("/predict/mnist", rows(pixels, 1))
    yield "pixels, many", request("/predict/mnist", filled(pixels))
    yield "wine", request("/predict/wine", rows(b"[" + b",".join([b"7"] * 11) + b"]"))


def _of_csv() -> Iterator[tuple[str, bytes]]:
    iris, csv = "/predict/iris", "text/csv"
    head = b"sepal_length,sepal_width,petal_length,petal_width\n"
    yield "CSV", request(iris, head + b"5,3,1,0\n" * MOST_ROWS, csv)
    for separator in (b";", b"\t"):
        table = (head + b"5,3,1,0\n" * MOST_ROWS).replace(b",", separator)
        yield f"CSV, separator {separator.decode()!r}", request(iris, table, csv)
    for line_end in (b"\n", b"\r"):
        column = b"sepal_length" + line_end + (b"5" + line_end) * MOST_ROWS
        yield f"CSV, one column, lines end in {line_end!r}", request(iris, column, csv)
        cells = head.rstrip() + line_end + (b"5" + line_end) * MOST_ROWS
        yield f"CSV, one cell a row, lines end in {line_end!r}", request(iris, cells, csv)
    yield "CSV, wrong cells", request(iris, head + b"a,,,\n" * MOST_ROWS, csv)
    yield "CSV, one cell too many", request(iris, head + b",,,,\n" * MOST_ROWS, csv)
    yield "CSV, commas", request(iris, head + b"," * (MOST_BYTES - 99), csv)
    yield "CSV, quotes", request(iris, head + b'"' * (MOST_BYTES - 99), csv)
    yield "CSV, lines", request(iris, head + b"\n" * (MOST_BYTES - 99), csv)
    yield "CSV, columns", request(iris, b"," * 262_000 + b"\n", csv)


def _of_texts() -> Iterator[tuple[str, bytes]]:
    imdb, plain = "/predict/imdb", "text/plain"
    yield "texts of one letter", request(imdb, rows(b'"a"'))
    yield "empty texts", request(imdb, rows(b'""'))
    yield "texts of one word", request(imdb, rows(b'"good"'))
    yield "no texts", request(imdb, rows(b"1"))
    yield "texts of 2,000 bytes", request(imdb, rows(b'"' + b"a b " * 500 + b'"'))
    pieces = {
        "letters": "a",
        "short words": "a ",
        "exclamations": "!",
        "spaces": " ",
        "line ends": "\n",
        "breaks": "<br />",
        "openings": "<",
        "closings": " />",
        "accents": "e\u0301",
        "capitals with dots": "\u0130",
        "wide": "\ufdfa",
        "Hangul": "\u1100\u1161",
    }
    for name, text in pieces.items():
        piece = text.encode()
        yield f"text of {name}, light", request(imdb, piece * (LIGHT // len(piece)), plain)
        yield f"text of {name}", request(imdb, piece * ((MOST_BYTES - 9) // len(piece)), plain)


def _of_pictures() -> Iterator[tuple[str, bytes]]:
    mnist = "/predict/mnist"
    for form in ("PNG", "JPEG", "WEBP", "BMP"):
        side = (1600, 1600) if form == "BMP" else (4000, 4000)
        yield f"large {form}", request(mnist, picture(form, side), f"image/{form.lower()}")
    yield "large lossless WebP", request(mnist, picture("WEBP", lossless=True), "image/webp")
    yield "noisy PNG", request(mnist, noise("PNG", 1600), "image/png")
    yield "noisy JPEG", request(mnist, noise("JPEG", 2400, quality=95), "image/jpeg")
    progressive = noise("JPEG", 1800, quality=95, progressive=True)
    yield "noisy progressive JPEG", request(mnist, progressive, "image/jpeg")
    yield "noisy WebP", request(mnist, noise("WEBP", 2000, quality=95), "image/webp")
    yield "noisy lossless WebP", request(mnist, noise("WEBP", 1600, lossless=True), "image/webp")
    dot = picture("PNG", (1, 1))
    yield "dot", request(mnist, dot, "image/png")
    yield "rubbish", request(mnist, b"\x89PNG\r\n\x1a\n" + b"\0" * LIGHT, "image/png")
    small = b'{"b64":"%b"}' % base64.b64encode(dot)
    yield "dots", request(mnist, rows(small))
    yield "pictures that are none", request(mnist, rows(b'{"b64":"AAAA"}'))
    yield "pictures that are empty", request(mnist, rows(b'{"b64":""}'))
    yield "numbers for pictures", request(mnist, rows(b"0"))
    head = b'Content-Disposition: form-data; name="image"; filename="a"'
    yield "form", request(mnist, *multipart(head, dot, MOST_ROWS))
    yield "form, too many parts", request(mnist, *multipart(head, b"", MOST_BYTES // 80))
    yield "form, other parts", request(mnist, *multipart(b"A: b", b"", MOST_BYTES // 20))
    yield "form, semicolons", request(mnist, *multipart(head + b";" * (MOST_BYTES - 999)))
    semicolons = head + b'; a="' + b"\\;" * (MOST_BYTES // 2 - 999)
    yield "form, quoted semicolons", request(mnist, *multipart(semicolons))
    yield "form, parameters", request(mnist, *multipart(head + b";a=b" * (MOST_BYTES // 4 - 999)))
    yield "form, header lines", request(mnist, *multipart(head + b"\r\na: b" * (MOST_BYTES // 7)))
    yield "form, continued", request(mnist, *multipart(head + b"*0=a; name*1=b" * 99_999))
    yield (
        "form, no end",
        request(mnist, b"--b\r\n" * (MOST_BYTES // 5 - 9), "multipart/form-data; boundary=b"),
    )


def _of_http() -> Iterator[tuple[str, bytes]]:
    body = rows(b"[5,3,1,0]", 1)
    query = "?" + "a&" * 15_000
    posted = {
        "native": "/predict/iris",
        "v1": "/v1/models/iris:predict",
        "v2": "/v2/models/iris/infer",
        "SageMaker": "/invocations",
        "nowhere": "/x",
    }
    for name, path in posted.items():
        yield f"parameters, {name}", request(path + query, body)
    asked = "/models /models/iris /livez /readyz /metrics /v2 /v2/models/iris /v1/models/iris"
    for path in f"{asked} /openapi.json /docs / /ping".split():
        yield f"parameters, GET {path}", request(path + query, method="GET")
        yield f"GET {path}", request(path, method="GET")
    yield "long path", request("/predict/" + "a" * 30_000, body)
    yield "path of slashes", request("/" * 30_000, body)
    yield "path of escapes", request("/predict/" + "%41" * 10_000, body)
    yield "headers", request("/predict/iris", body, headers=b"a: b\r\n" * 95)
    hosts = b"Host: a\r\nHost: b\r\n" * 1600
    yield "Host headers", request("/predict/iris", body, headers=hosts)
    yield "long header", request("/predict/iris", body, headers=b"a: " + b"b" * 30_000 + b"\r\n")
    names = "Accept Accept-Encoding Content-Encoding traceparent Cookie Forwarded Authorization"
    for name in f"{names} X-Request-ID Origin Access-Control-Request-Headers".split():
        line = name.encode() + b": " + b"a," * 15_000 + b"\r\n"
        yield f"{name}", request("/predict/iris", body, headers=line)
        yield f"{name}, GET", request("/models", method="GET", headers=line)
    yield "Content-Type", request("/predict/iris", body, "application/json" + ";a=b" * 7_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body.ljust(9000))
    chunked = b"Transfer-Encoding: chunked\r\n"
    yield "chunks of a byte", request("/predict/iris", chunks + b"0\r\n\r\n", headers=chunked)


def _of_other_protocols() -> Iterator[tuple[str, bytes]]:
    v1, v2 = "/v1/models/iris:predict", "/v2/models/iris/infer"
    fruit = b"[5,3,1,0]"
    yield "v1: rows", request(v1, rows(fruit))
    yield "v1: rows, verdicts", request(v1 + "?verdict=1", rows(fruit))
    yield "v1: rows []", request(v1, rows(b"[]", last=fruit))
    yield (
        "v1: classify",
        request("/v1/models/iris:classify", rows(b"{}").replace(b"instances", b"examples")),
    )
    for size in (LIGHT, MOST_BYTES):
        packed = gzip.compress(rows(fruit, size // 10), 9)
        yield (
            f"v1: gzip of {size:,} bytes",
            request(v1, packed, headers=b"Content-Encoding: gzip\r\n"),
        )
    bomb = gzip.compress(b" " * 60_000_000, 9)
    yield "v1: gzip of spaces", request(v1, bomb, headers=b"Content-Encoding: gzip\r\n")
    deflated = zlib.compress(b" " * 60_000_000, 9)
    yield "v1: deflate of spaces", request(v1, deflated, headers=b"Content-Encoding: deflate\r\n")
    members = gzip.compress(b"") * (LIGHT // 20)
    yield "v1: gzip of many members", request(v1, members, headers=b"Content-Encoding: gzip\r\n")
    yield "v2: rows", request(v2, tensor("rows", [MOST_ROWS, 4], "FP32", [5, 3, 1, 0] * MOST_ROWS))
    yield (
        "v2: wrong rows",
        request(v2, tensor("rows", [MOST_ROWS, 4], "FP32", ["a"] * 4 * MOST_ROWS)),
    )
    yield "v2: shape", request(v2, tensor("rows", [1] * 20_000, "FP32", [5, 3, 1, 0]))
    text = "/v2/models/imdb/infer"
    yield "v2: texts", request(text, tensor("rows", [MOST_ROWS, 1], "BYTES", ["a"] * MOST_ROWS))
    given = {"name": "rows", "shape": [1, 4], "datatype": "FP32", "data": [5, 3, 1, 0]}
    outputs = [{"name": "probabilities"}] * (LIGHT // 26)
    yield "v2: outputs", request(v2, _json({"inputs": [given], "outputs": outputs}))
    yield "v2: inputs", request(v2, _json({"inputs": [{"name": "a"}] * (LIGHT // 14)}))
    parameters = {str(i): 1 for i in range(LIGHT // 9)}
    yield "v2: parameters", request(v2, _json({"inputs": [given], "parameters": parameters}))
    yield "v2: id", request(v2, _json({"inputs": [given], "id": "a" * LIGHT}))
    binary = {**given, "shape": [MOST_ROWS, 4], "parameters": {"binary_data_size": MOST_ROWS * 16}}
    del binary["data"]
    head = _json({"inputs": [binary]})
    values = np.full((MOST_ROWS, 4), 3, np.float32).tobytes()
    line = b"Inference-Header-Content-Length: %d\r\n" % len(head)
    yield "v2: binary", request(v2, head + values, "application/octet-stream", headers=line)
    yield "v2: wrong pictures, binary", _binary_pictures(np.full((1300, 28, 28), -1, np.int8))
    yield "SageMaker: rows", request("/invocations", rows(fruit))


def _binary_pictures(values: np.ndarray[tuple[int, ...], np.dtype[np.int8]]) -> bytes:
    size = {"binary_data_size": values.nbytes}
    told = {"name": "rows", "shape": values.shape, "datatype": "INT8", "parameters": size}
    head = _json({"inputs": [told]})
    line = b"Inference-Header-Content-Length: %d\r\n" % len(head)
    body = head + values.tobytes()
    return request("/v2/models/mnist/infer", body, "application/octet-stream", headers=line)


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


class Caller:
    """A client that sends bytes as they are."""

    def __init__(self, address: str) -> None:
        where = urlsplit(address)
        self._address = (where.hostname or "", where.port or 0)

    def send(self, sent: bytes) -> tuple[int, int]:
        """Return the status of an answer, and how many bytes came."""
        with socket.create_connection(self._address, timeout=60) as connection:
            head, _, body = sent.partition(b"\r\n\r\n")
            connection.sendall(head + b"\r\nConnection: close\r\n\r\n")
            came = b""
            try:
                connection.sendall(body)
                while piece := connection.recv(262_144):
                    came += piece
            except ConnectionError:  # it is refused before it has been read
                pass
        status = came.split(maxsplit=2)[1:2]
        return int(status[0]) if status else 0, len(came)


def spent(process_id: int) -> Cost:
    """Return what a process has taken so far, by the kernel's accounts."""
    seconds = {
        int(task.name): int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{process_id}/task").iterdir()
    }
    return Cost(seconds[process_id], sum(seconds.values()))


def cost(caller: Caller, process_id: int, sent: bytes, times: int) -> tuple[Cost, int, int]:
    """Return the median cost of a request, its status and the bytes of its answer."""
    costs = []
    for _ in range(times):
        before = spent(process_id)
        status, came = caller.send(sent)
        time.sleep(0.005)  # what is counted and let go after the answer
        after = spent(process_id)
        costs.append(Cost(after.loop_s - before.loop_s, after.cpu_s - before.cpu_s))
    loop_s, cpu_s = (statistics.median(each) for each in zip(*costs, strict=True))
    return Cost(loop_s, cpu_s), status, came


def main() -> int:
    """Run and print one line for each request, the most expensive last."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--times", type=int, default=5, help="of which the median counts")
    parser.add_argument("--slack", type=float, default=1, help="times the limits are allowed")
    parser.add_argument("--only", default="", help="requests with this in their name")
    options = parser.parse_args()
    if not Path("/proc/self/schedstat").exists():
        print("this kernel does not tell how long threads ran")
        return 3
    lines = []
    with serving(options.models) as (process, address):
        caller = Caller(address)
        for name, sent in requests():
            if options.only not in name:
                continue
            cost(caller, process.pid, sent, 1)
            (loop_s, cpu_s), status, came = cost(caller, process.pid, sent, options.times)
            share = loop_s / (LOOP_S + LOOP_S_PER_KB * len(sent) / 1000)
            share = max(share, cpu_s / CPU_S)
            sent_bytes, came_bytes = f"{len(sent):9,} bytes", f"{status} {came:9,} bytes"
            times = f"loop {loop_s * 1000:7.1f} ms  all {cpu_s * 1000:7.1f} ms"
            lines.append(
                (
                    share,
                    f"{name:40} {sent_bytes} -> {came_bytes} {times}  {share:6.0%}",
                )
            )
    for _, line in sorted(lines):
        print(line)
    return int(max(share for share, _ in lines) > options.slack)


if __name__ == "__main__":
    sys.exit(main())

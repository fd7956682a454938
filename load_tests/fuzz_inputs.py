"""Seeded requests of every family: mostly almost right, for what is all wrong is refused early."""

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from fuzz_mutations import JSON_TOKENS, ODD_VALUES, as_json, mangled, tweaked
from fuzz_pictures import MEDIA_TYPES, damaged, pictures
from fuzz_wire import Request, Service
from numpy.typing import NDArray

from service.bundle.manifest import TextInput, row_shape
from service.inputs.framing import DATATYPES
from service.inputs.inference import input_spec
from service.inputs.texts import FIRST_ID, read_vocabulary
from service.prediction import Predictor
from service.prediction.catalogue import open_version

JSON = ("Content-Type", "application/json")
_HEAD_LENGTH = "Inference-Header-Content-Length"
_QUERIES = (
    *("?top_k=1", "?max_error=0.01", "?min_confidence=0.5", "?top_k=0", "?include=best_guess"),
    *("?probabilities=list", "?deadline_ms=1000", "?version=1", "?alias=x", "?verdict=1", "?a=b"),
    *("?top_k=" + "9" * 5000, "?max_error=nan", "?min_confidence=1e999", "?deadline_ms=-1"),
    *("?verdict=2", "?top_k=1&top_k=1", "?%ff=%fe", "?=&&=", "?top_k=%C2%B2", "?min_confidence=1"),
)


def query(rng: random.Random) -> str:
    """Return what stands behind a path: mostly nothing."""
    return rng.choice(_QUERIES) if rng.random() < 0.15 else ""


@dataclass(frozen=True)
class Subject:
    """A model as its callers know it, with rows that it takes."""

    name: str
    kind: str
    """features, image or text."""

    input_name: str
    datatype: str
    shape: tuple[int, ...]
    instances: list[Any]
    """Golden rows as JSON."""

    rows: NDArray[Any]
    """The same as the graph's input."""

    fields: tuple[str, ...]

    def question(self, rng: random.Random) -> dict[str, Any]:
        """Return a body that is right."""
        number = rng.choice((1, 1, 1, 2, 5))
        return {"instances": [rng.choice(self.instances) for _ in range(number)]}


def subjects_of(service: Service) -> list[Subject]:
    """Return what is served."""
    return [_subject(predictor) for predictor in service.catalogue]


def _subject(predictor: Predictor) -> Subject:
    declared = predictor.manifest.input
    spec = input_spec(predictor.manifest)
    rows = predictor.golden_rows
    values = rows.astype(object)
    values[rows != rows] = None  # noqa: PLR0124  NaN is NaN; JSON has none: null
    instances = values.tolist()
    fields: tuple[str, ...] = ()
    if isinstance(declared, TextInput):
        bundle = open_version(predictor.path)
        words = read_vocabulary(bundle.read(declared.vocabulary))
        instances = [
            " ".join(words[token - FIRST_ID] for token in row if token >= FIRST_ID) for row in rows
        ]
    elif declared.kind == "features":
        fields = tuple(field.name for field in declared.fields)
        instances += [dict(zip(fields, row, strict=True)) for row in instances]
    return Subject(
        *(predictor.name, declared.kind, spec.name, spec.datatype),
        *(row_shape(declared), instances, rows, fields),
    )


def _pick(rng: random.Random, subjects: Sequence[Subject], *kinds: str) -> Subject:
    return rng.choice([each for each in subjects if not kinds or each.kind in kinds])


def _bad_json(rng: random.Random, content: Any) -> bytes:
    for _ in range(rng.choice((0, 1, 1, 2))):
        content = tweaked(rng, content)
    body = as_json(rng, content)
    return mangled(rng, body, JSON_TOKENS, 2) if rng.random() < 0.4 else body


def native_json(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a native request in JSON."""
    subject = _pick(rng, subjects)
    body = _bad_json(rng, subject.question(rng))
    odd = tuple(rng.sample(_HEADERS, 2)) if rng.random() < 0.05 else ()
    return Request(f"/predict/{subject.name}{query(rng)}", body, (*odd, JSON))


def version_1(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a request of TensorFlow Serving's REST interface."""
    subject = _pick(rng, subjects)
    rows = subject.question(rng)["instances"]
    verb = rng.choice(("predict",) * 6 + ("classify",) * 3 + ("regress", "explain", "PREDICT"))
    wrapped = [{subject.input_name: row} for row in rows]
    content: Any = rng.choice(
        (
            {"instances": rows},
            {"instances": wrapped},
            {"inputs": rows},
            {"inputs": {subject.input_name: rows}},
            {"signature_name": "serving_default", "instances": rows, "parameters": {}},
            {
                "examples": [
                    row if isinstance(row, dict) else {subject.input_name: row} for row in rows
                ]
            },
            {"examples": wrapped, "context": {"x": 1}},
        )
    )
    if verb == "classify" and "examples" not in content:
        content = {"examples": wrapped}
    which = rng.choice(("",) * 6 + ("/versions/1", "/labels/x"))
    target = f"/v1/models/{subject.name}{which}:{verb}{query(rng)}"
    return _perhaps_packed(rng, target, _bad_json(rng, content))


def _perhaps_packed(
    rng: random.Random, target: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()
) -> Request:
    if rng.random() < 0.2:
        return packed(rng, Request(target, body, headers))
    return Request(target, body, headers)


def packed(rng: random.Random, request: Request) -> Request:
    """Return a request whose body is compressed, or claims to be."""
    coding = rng.choice(("gzip", "deflate", "gzip", "deflate", "br", "gzip, gzip", "GZIP", "\xff"))
    window = 31 if "gzip" in coding.lower() else rng.choice((15, 15, -15))
    body = request.body
    for _ in range(rng.choice((1, 1, 1, 1, 2, 30))):
        stream = zlib.compressobj(1, wbits=window)
        body = stream.compress(body) + stream.flush()
    dice = rng.random()
    if dice < 0.3:
        body = mangled(rng, body)
    elif dice < 0.33:
        body = _bomb(window, rng.choice((9_000_000, 30_000_000)))
    elif dice < 0.36:
        body += body
    return Request(request.target, body, (*request.headers, ("Content-Encoding", coding)))


@cache
def _bomb(window: int, size: int) -> bytes:
    stream = zlib.compressobj(9, wbits=window)
    return stream.compress(bytes(size)) + stream.flush()


def compressed(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a compressed request of any protocol."""
    made = rng.choice((version_1, inference, native_json))(rng, subjects)
    return packed(rng, Request(made.target, made.body, made.headers))


_LENGTHS = (
    -1,
    0,
    1,
    2,
    2**31,
    2**32,
    2**62,
    2**63,
    2**64,
    10**30,
    1.0,
    True,
    None,
    "1",
    [1],
    1e400,
)
_PARAMETERS: tuple[tuple[str, Any], ...] = (
    *(("max_error", 0.01), ("max_error", 0), ("max_error", 10**400), ("min_confidence", 0.5)),
    *(("min_confidence", "x"), ("timeout", 1_000_000), ("timeout", -1), ("timeout", 1)),
    *(("timeout", 1 << 63), ("binary_data_output", True), ("binary_data_output", 1)),
    *(("x", []), ("", None), ("reject_threshold", 0.1), ("sequence_id", 2**64)),
)
_OUTPUTS: tuple[Any, ...] = (
    *({"name": name} for name in ("probabilities", "verdict", "label", "reason", "confidence")),
    *({"name": "novelty_p"}, {"name": "nothing"}, {"name": 1}, {}, None, "probabilities", []),
    {"name": "probabilities", "parameters": {"classification": 2}},
    {"name": "probabilities", "parameters": {"classification": 10**30}},
    {"name": "probabilities", "parameters": {"classification": -1}},
    {"name": "label", "parameters": {"classification": 2}},
    {"name": "label", "parameters": {"binary_data": True}},
    {"name": "probabilities", "parameters": {"binary_data": True, "classification": 1}},
    {"name": "confidence", "parameters": {"binary_data": "yes"}},
)


def inference(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a request of the Open Inference Protocol, its tensor in JSON or behind it."""
    subject = _pick(rng, subjects)
    tensor, behind = _tensor(rng, subject)
    content: dict[str, Any] = {"inputs": [tensor]}
    if rng.random() < 0.3:
        content["id"] = rng.choice(("1", "\0", "é", 1, None, "a" * 2000))
    if rng.random() < 0.3:
        content["parameters"] = dict(rng.sample(_PARAMETERS, rng.randint(0, 3)))
    if rng.random() < 0.4:
        content["outputs"] = rng.sample(_OUTPUTS, rng.randint(0, 3))
    if rng.random() < 0.1:
        content["inputs"] = content["inputs"] * rng.choice((0, 2, 50))
    head = as_json(rng, tweaked(rng, content) if rng.random() < 0.2 else content)
    if rng.random() < 0.2:
        head = mangled(rng, head, JSON_TOKENS)
    headers = _head_length(rng, len(head)) if behind or rng.random() < 0.1 else ()
    version = rng.choice(("",) * 15 + ("/versions/1",) * 3 + ("/versions/9", "/versions/x"))
    return _perhaps_packed(rng, f"/v2/models/{subject.name}{version}/infer", head + behind, headers)


def _head_length(rng: random.Random, length: int) -> tuple[tuple[str, str], ...]:
    odd = ("0", "-1", "1e3", "", " ", "9" * 5000, str(length + 1), str(length - 1), "\xb2", "0x10")
    value = rng.choice(odd) if rng.random() < 0.15 else str(length)
    return ((_HEAD_LENGTH, value),)


def _tensor(rng: random.Random, subject: Subject) -> tuple[dict[str, Any], bytes]:
    number = rng.choice((1, 1, 2, 8))
    if subject.kind == "text" or (subject.kind == "image" and rng.random() < 0.3):
        return _texts(rng, subject, number)
    rows = subject.rows[:number]
    datatype = rng.choice((subject.datatype, subject.datatype, *DATATYPES))
    with np.errstate(all="ignore"):
        values = rows.astype(DATATYPES[datatype])
    if rng.random() < 0.1:
        values = np.frombuffer(rng.randbytes(values.nbytes), values.dtype).reshape(values.shape)
    tensor: dict[str, Any] = {
        "name": subject.input_name,
        "datatype": datatype,
        "shape": list(values.shape),
    }
    if rng.random() < 0.5:
        flat = values.ravel() if rng.random() < 0.5 else values
        tensor["data"] = flat.tolist()
        return _odd_tensor(rng, tensor), b""
    content = values.tobytes()
    tensor["parameters"] = {"binary_data_size": len(content)}
    return _odd_tensor(rng, tensor), mangled(rng, content) if rng.random() < 0.2 else content


def _texts(rng: random.Random, subject: Subject, number: int) -> tuple[dict[str, Any], bytes]:
    if subject.kind == "text":
        contents = [rng.choice(subject.instances).encode() for _ in range(number)]
    else:
        contents = [damaged(rng, rng.choice(list(MEDIA_TYPES))) for _ in range(number)]
    tensor: dict[str, Any] = {
        "name": subject.input_name,
        "datatype": "BYTES",
        "shape": rng.choice(([number], [number, 1])),
    }
    if rng.random() < 0.4:
        is_text = subject.kind == "text"
        tensor["data"] = [
            content.decode() if is_text else base64.b64encode(content).decode()
            for content in contents
        ]
        return _odd_tensor(rng, tensor), b""
    packed_texts = b"".join(struct.pack("<I", len(each)) + each for each in contents)
    if rng.random() < 0.2:
        packed_texts = mangled(rng, packed_texts)
    tensor["parameters"] = {"binary_data_size": len(packed_texts)}
    return _odd_tensor(rng, tensor), packed_texts


def _odd_tensor(rng: random.Random, tensor: dict[str, Any]) -> dict[str, Any]:
    dice = rng.random()
    shape = list(tensor["shape"])
    if dice < 0.15:
        shape[rng.randrange(len(shape))] = rng.choice(_LENGTHS)
        return {**tensor, "shape": shape}
    if dice < 0.2:
        odd: list[Any] = [[], [2**62] * 8, [10**4200] * 8, [1] * 9, [1] * 70_000, [0], [[1]], "1"]
        return {**tensor, "shape": rng.choice(odd)}
    if dice < 0.25:
        sizes = (-1, 0, 1, 2**31, 2**63, 10**4200, 1.0, "8", None, True)
        return {**tensor, "parameters": {"binary_data_size": rng.choice(sizes)}}
    return tweaked(rng, tensor) if dice < 0.4 else tensor


_SHAPES = (
    "()",
    "(0,)",
    "(-1,)",
    "(2**31,)",
    "(1.0,)",
    "(True,)",
    "(0, 28, 28)",
    "(9" + "9" * 300 + ",)",
)
_DTYPES = (
    *("|u1", "<f4", "<f8", ">f8", "<f2", "<f16", "<i8", "|b1", "|O", "<c8", "<U9", "|S1", "|V4"),
    *(
        "<M8[s]",
        "('<f4', (2,))",
        "[('a', '<f4')]",
        "<f0",
        "|u0",
        "<i3",
        "f4,f4",
        "\\x00",
        "<f4" * 99,
    ),
)


def npy(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return an .npy file."""
    subject = _pick(rng, subjects, "features", "image")
    values = subject.rows[: rng.choice((0, 1, 1, 2, 8))]
    stream = io.BytesIO()
    with np.errstate(all="ignore"):
        values = values.astype(rng.choice(("u1", "<f4", ">f4", "<f8", "<i4", "<f2", "<i8", "?")))
    if rng.random() < 0.1:
        values = np.asfortranarray(values)
    np.lib.format.write_array(stream, values, version=rng.choice(((1, 0), (1, 0), (2, 0), (3, 0))))
    body = stream.getvalue()
    dice = rng.random()
    if dice < 0.4:
        shape = rng.choice((*_SHAPES, str(values.shape)))
        body = _npy_of(rng, rng.choice(_DTYPES), shape, values.tobytes())
    elif dice < 0.8:
        body = mangled(
            rng, body, (b"'", b"(", b")", b",", b"-", b"9" * 30, b"\x93NUMPY", b"\0" * 8)
        )
    return Request(f"/predict/{subject.name}", body, (("Content-Type", "application/x-npy"),))


def _npy_of(rng: random.Random, dtype: str, shape: str, content: bytes) -> bytes:
    descr = dtype if dtype[0] in "([" else f"'{dtype}'"
    order = rng.choice(("False", "True", "1", "None"))
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if rng.random() < 0.1:
        text = rng.choice(("{" * 900, "(" * 200, "__import__('os')", "'a'*9**9", "{}", "-" * 1000))
    head = text.encode() + b" " * rng.choice((0, 3, 900)) + b"\n"
    length = len(head) if rng.random() < 0.9 else rng.choice((0, 1, 65_535))
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + head + content


_CSV_TOKENS = (
    *(
        b";",
        b",",
        b'"',
        b'""',
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"NaN",
        b"inf",
        b"1_0",
        b"1e999",
        b" ",
    ),
    *(
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xc2\xb2",
        b"a" * 140_000,
        b"," * 5000,
        b"\n" * 5000,
        b"--1",
        b"0x1",
    ),
    *(b'"' + b"a" * 3000, "\u0661".encode(), "\u2028".encode(), b"1e-400", b"\x1a", b"'"),
)


def table(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a table of features."""
    subject = _pick(rng, subjects, "features")
    separator = rng.choice((",", ",", ";"))
    names = list(subject.fields)
    if rng.random() < 0.2:
        rng.shuffle(names)
    if rng.random() < 0.2:
        names = rng.choice((names[1:], [*names, names[0]], [*names, "x"], names * 50, [""]))
    by_name = dict(zip(subject.fields, rng.choice(subject.rows).tolist(), strict=True))
    odd = ("", "NaN", "inf", "-1", "1e300", "1e400", "1_0", "a", " 1 ", '"1"', "0x1", "9" * 400)
    lines = [separator.join(names)]
    for _ in range(rng.choice((0, 1, 1, 2, 20))):
        cells = [str(by_name.get(name, 0)) for name in names]
        if rng.random() < 0.3:
            cells[rng.randrange(len(cells))] = rng.choice(odd)
        lines.append(separator.join(cells))
    body = rng.choice(("\n", "\n", "\r\n")).join(lines).encode()
    if rng.random() < 0.5:
        body = mangled(rng, body, _CSV_TOKENS)
    return Request(f"/predict/{subject.name}", body, (("Content-Type", "text/csv"),))


def text(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a plain text."""
    subject = _pick(rng, subjects, "text")
    body = rng.choice(subject.instances).encode()
    body = mangled(
        rng, body, (b"\0", b"\xff", b" " * 9000, b"a" * 60_000, b"\xed\xa0\x80", b"!" * 900)
    )
    kind = rng.choice(("text/plain", "text/plain; charset=utf-16", "TEXT/PLAIN", "text/plain;a"))
    return Request(f"/predict/{subject.name}", body, (("Content-Type", kind),))


def picture(rng: random.Random, subjects: Sequence[Subject], *, kind: str) -> Request:
    """Return a picture: as it is, in base64 or as bytes of a tensor."""
    subject = _pick(rng, subjects, "image")
    content = damaged(rng, kind)
    dice = rng.random()
    if dice < 0.75:
        media_type = MEDIA_TYPES[kind if rng.random() < 0.95 else rng.choice(list(MEDIA_TYPES))]
        return Request(f"/predict/{subject.name}", content, (("Content-Type", media_type),))
    coded = base64.b64encode(content).decode()
    if dice < 0.85:
        body = json.dumps({"instances": [{"b64": coded}]}).encode()
        return Request(f"/predict/{subject.name}", body, (JSON,))
    if dice < 0.95:
        tensor = {
            "name": subject.input_name,
            "datatype": "BYTES",
            "shape": [1],
            "parameters": {"binary_data_size": len(content) + 4},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        body = head + struct.pack("<I", len(content)) + content
        headers = ((_HEAD_LENGTH, str(len(head))),)
        return Request(f"/v2/models/{subject.name}/infer", body, headers)
    body = json.dumps({"instances": [{"b64": coded}]}).encode()
    return Request(f"/v1/models/{subject.name}:predict", body)


_FORM_TOKENS = (
    *(
        b"--",
        b"\r\n",
        b"\r",
        b"\n",
        b"--B",
        b"--B--",
        b"\r\n--B\r\n",
        b"\r\n\r\n",
        b":",
        b";",
        b'"',
    ),
    *(b"Content-Disposition: form-data; name=image", b"name*=utf-8''image", b"name*0=image", b"\0"),
    *(b"A: " + b"b" * 5000, b"A: b\r\n" * 300, b"-" * 3000, b"\xff", b"filename=" + b"x" * 3000),
)
_BOUNDARIES = (
    "B",
    "B",
    "B",
    "B",
    "b",
    "",
    '"B"',
    "B" * 71,
    "B ",
    "\xff",
    "*=utf-8''B",
    "B;boundary=C",
)


def form(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a form of pictures."""
    subject = _pick(rng, subjects, "image")
    number = rng.choice((0, 1, 1, 2, 2, 5, 5, 40))
    parts = [_part(rng) for _ in range(number)]
    if rng.random() < 0.005:
        parts = [b"Content-Disposition: form-data; name=image\r\n\r\n"] * 6000
    body = b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + b"--B--\r\n"
    if rng.random() < 0.5:
        body = mangled(rng, body, _FORM_TOKENS)
    boundary = rng.choice(_BOUNDARIES)
    name = rng.choice(("boundary", "boundary", "boundary", "BOUNDARY", "boundary*0*", "b"))
    kind = f"multipart/form-data; {name}={boundary}"
    return Request(f"/predict/{subject.name}", body, (("Content-Type", kind),))


def _part(rng: random.Random) -> bytes:
    head = rng.choice(
        (
            *(b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n',) * 6,
            b"content-disposition: form-data; name=image\r\nContent-Type: image/png\r\n",
            b"Content-Disposition: form-data; name=other\r\n",
            b"Content-Disposition: form-data\r\n",
            b"",
        )
    )
    content = (
        pictures("png")[0] if rng.random() < 0.6 else damaged(rng, rng.choice(list(MEDIA_TYPES)))
    )
    return head + b"\r\n" + content


_PATHS = (
    *("/", "/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/models"),
    *("/v1/models", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/ping"),
    *("/invocations", "/v2/repository/index", "/v2/models/{m}", "/v2/models/{m}/ready"),
    *("/v2/models/{m}/stats", "/v2/models/{m}/infer", "/v1/models/{m}", "/v1/models/{m}:predict"),
    *("/v1/models/{m}/metadata", "/v1/models/{m}/versions/1", "/v1/models/{m}/labels/stable"),
    *("/models/{m}", "/predict/{m}", "/predict/", "/predict", "/v2/repository/models/{m}/load"),
)
_ADMIN_PATHS = (
    *(
        "/reload",
        "/v2/repository/index",
        "/v2/repository/models/{m}/load",
        "/docs",
        "/openapi.json",
    ),
    *("/v2/repository/models/nothing/unload", "/v2/repository/models/nothing/load", "/"),
)
_METHODS = (
    "GET",
    "POST",
    "HEAD",
    "OPTIONS",
    "PUT",
    "DELETE",
    "PATCH",
    "TRACE",
    "PROPFIND",
    "QUERY",
)
_PATH_TOKENS = (
    *(
        "%00",
        "%ff",
        "%2e%2e",
        "..",
        "//",
        "/",
        "%2f",
        ":",
        "%C3%A9",
        "a" * 3000,
        "?",
        "#",
        ";",
        "%",
    ),
    *("%zz", "{m}", "*", "\\", "%0d%0aX:1", "%u0041", "+", "'", '"', "\xe9", "%F0%9F%98%80"),
)
_HEADERS = (
    *(("Content-Type", "application/json"), ("Content-Type", "\xff"), ("Accept", "*/*")),
    *(("Content-Type", "a;b*0*=x%00'y'z"), ("Content-Type", "text/csv; a*=b'c"), ("Expect", "x")),
    *(
        ("Content-Type", "a;b*=idna''%ff"),
        ("Content-Type", "a;b*=undefined''x"),
        ("Trailer", "x"),
    ),
    *(("Content-Type", 'a;"' + ";" * 60_000), ("Content-Type", "a; " * 2000), ("Accept", "\xe9")),
    *(("X-Request-ID", "a b"), ("X-Request-ID", "a" * 129), ("X-Request-ID", "ok-1")),
    *(("Accept-Encoding", "gzip"), ("Accept-Encoding", "gzip;q=0"), ("Range", "bytes=0-1")),
    *(("Expect", "100-continue"), ("Upgrade", "websocket"), ("Connection", "close")),
    *(("Connection", "upgrade"), ("Origin", "http://a"), ("Host", "b"), ("Cookie", "a=" * 999)),
    *(("Content-Encoding", "gzip"), ("X-HTTP-Method-Override", "PUT"), ("A" * 900, "b" * 9000)),
    *(("x-dunno-verdict", "1"), ("x-dunno-verdict", "\xff"), ("If-None-Match", "*")),
)


def route(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a request of any method to any path of the data address."""
    subject = _pick(rng, subjects)
    target = rng.choice(_PATHS).replace("{m}", subject.name)
    if rng.random() < 0.3:
        at = rng.randint(1, len(target))
        target = target[:at] + rng.choice(_PATH_TOKENS) + target[at:]
    body = as_json(rng, subject.question(rng)) if rng.random() < 0.5 else b""
    return Request(
        target + query(rng),
        body,
        tuple(rng.sample(_HEADERS, rng.randint(0, 3))),
        rng.choice(_METHODS),
    )


def admin(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return a request to the admin address; what changes the catalogue is rare."""
    target = rng.choice(_ADMIN_PATHS).replace("{m}", _pick(rng, subjects).name)
    content = rng.choice(({}, {"ready": True}, {"parameters": {"unload_dependents": True}}))
    if rng.random() < 0.97:
        content = {"x": content, "parameters": rng.choice(ODD_VALUES)}
    body = as_json(rng, content)
    if rng.random() < 0.3:
        body = mangled(rng, body, JSON_TOKENS)
    headers = tuple(rng.sample(_HEADERS, rng.randint(0, 2)))
    return Request(target, body, headers, rng.choice((*_METHODS, "POST", "POST")), lane="admin")


def framing(rng: random.Random, subjects: Sequence[Subject]) -> Request:
    """Return bytes whose framing may be wrong: lengths, chunks, several requests, rubbish."""
    made = rng.choice((native_json, inference, route, table))(rng, subjects)
    body = made.body[:20_000]
    lines = [("Host", "dunno"), *made.headers]
    dice = rng.random()
    if dice < 0.4:
        sizes = rng.choice(((len(body),), (1, 2, 3), (0,), (7,) * 50))
        body = _chunked(rng, body, sizes)
        lines.append(
            ("Transfer-Encoding", rng.choice(("chunked", "chunked", "gzip, chunked", "x")))
        )
    elif dice < 0.6:
        odd = ("-1", "9" * 30, "0", "", "1e3", "+5", str(len(body) // 2), "0x10", "1,1")
        lines += [("Content-Length", rng.choice(odd))]
    elif dice < 0.65:
        lines += [("Content-Length", str(len(body)))] * 2 + [("Transfer-Encoding", "chunked")]
    else:
        lines += [("Content-Length", str(len(body)))]
    version = rng.choice(("1.1", "1.1", "1.1", "1.0", "0.9", "2.0", "9.9"))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    raw = f"{made.method} {made.target} HTTP/{version}\r\n{head}\r\n".encode("latin-1") + body
    if rng.random() < 0.3:
        raw += raw
    if rng.random() < 0.4:
        raw = mangled(
            rng, raw, (b"\r\n", b"\n", b"\0", b": ", b" ", b"HTTP/1.1", b"a" * 9000, b"\xff")
        )
    return Request(made.target, body, made.headers, made.method, raw)


def _chunked(rng: random.Random, body: bytes, sizes: Sequence[int]) -> bytes:
    parts, at = [], 0
    for size in sizes:
        parts.append(b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]))
        at += size
    parts.append(
        rng.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"", b"ffffffffffffffff1\r\n", b"-1\r\n\r\n"))
    )
    return b"".join(parts)


Make = Callable[[random.Random, Sequence[Subject]], Request]

FAMILIES: dict[str, tuple[int, Make]] = {
    "json": (17, native_json),
    "tensorflow_serving": (10, version_1),
    "open_inference": (16, inference),
    "npy": (8, npy),
    "csv": (6, table),
    "text": (1, text),
    "form": (5, form),
    "compressed": (3, compressed),
    **{
        kind: (share, partial(picture, kind=kind))
        for kind, share in {"png": 12, "jpeg": 8, "webp": 6, "bmp": 4}.items()
    },
    "framing": (1, framing),
    "routes": (2, route),
    "admin": (1, admin),
}
"""Family -> its share of all inputs, and what makes one of them. The shares add up to 100."""

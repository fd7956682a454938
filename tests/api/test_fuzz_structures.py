"""Requests put together part by part, by strategies that shrink what fails."""

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz_checks import fault_of, is_same
from fuzz_wire import Request, Response, Service, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inputs.framing import DATATYPES
from service.settings import Settings

EXAMPLES = 100
PATIENCE_S = 10.0
FIELDS = ("sweet", "sour", "firm")

quick = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)

numbers = st.one_of(
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(),
    st.sampled_from([0, 1, 255, 256, 0.5, 2**63, 2**64]),
)
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from([*FIELDS, "b64", "rows"]), texts), inner),
    ),
    max_leaves=12,
)
rows = st.one_of(
    st.lists(numbers, min_size=3, max_size=3),
    st.fixed_dictionaries(dict.fromkeys(FIELDS, numbers)),
    trees,
)
instances = st.one_of(st.lists(rows, max_size=3), trees)

Ask = Callable[[Request], Response]


@pytest.fixture(scope="module")
def ask(models: Path) -> Iterator[Ask]:
    """Ask both lanes, which have to agree, and return the answer."""

    async def answers(service: Service, request: Request) -> tuple[Response, Response]:
        found = []
        async with asyncio.timeout(PATIENCE_S):
            for lane in ("hot", "general"):
                connection = service.connect(lane)
                found.append(await connection.ask(request))
                connection.hang_up()
        return found[0], found[1]

    with asyncio.Runner() as runner:
        context = serving(Settings(models=models))
        service = runner.run(context.__aenter__())

        def ask(request: Request) -> Response:
            hot, general = runner.run(answers(service, request))
            assert fault_of(request, hot) is None
            assert is_same(request, hot, general), (hot, general)
            return hot

        yield ask
        runner.run(context.__aexit__(None, None, None))


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


@quick
@given(
    model=st.sampled_from(["fruit", "picture", "review"]),
    content=st.one_of(st.fixed_dictionaries({"instances": instances}), trees),
)
def test_json_of_any_shape_is_refused_or_answered(ask: Ask, model: str, content: object) -> None:
    kind = (("Content-Type", "application/json"),)

    assert ask(Request(f"/predict/{model}", as_json(content), kind)).status in (200, 400)


@quick
@given(body=st.binary(max_size=200), kind=st.sampled_from(["application/json", "text/csv", ""]))
def test_bytes_of_any_kind_are_refused_or_answered(ask: Ask, body: bytes, kind: str) -> None:
    request = Request("/predict/fruit", body, (("Content-Type", kind),))

    assert ask(request).status in (200, 400, 415)


@pytest.mark.slow
@quick
@given(
    verb=st.sampled_from(["predict", "classify"]),
    content=st.dictionaries(
        st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"]), instances
    ),
    coding=st.sampled_from([None, "gzip", "deflate"]),
)
def test_bodies_of_version_1_of_any_shape_are_refused_or_answered(
    ask: Ask, verb: str, content: object, coding: str | None
) -> None:
    body, headers = packed(as_json(content), coding)

    status = ask(Request(f"/v1/models/fruit:{verb}", body, headers)).status

    assert status in (200, 400)


def packed(body: bytes, coding: str | None) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    if coding is None:
        return body, ()
    content = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    return content, (("Content-Encoding", coding),)


lengths = st.one_of(st.sampled_from([1, 1, 3, 3, 0, -1, 2**62, 2**63]), scalars)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["rows", "rows", "rows", "other", ""]),
        "shape": st.one_of(st.just([1, 3]), st.lists(lengths, max_size=9)),
        "datatype": st.sampled_from([*DATATYPES, "BYTES", "FP8"]),
    },
    optional={
        "data": st.one_of(st.lists(numbers, min_size=3, max_size=3), trees),
        "parameters": st.dictionaries(
            st.just("binary_data_size"), st.one_of(st.integers(0, 30), lengths)
        ),
    },
)


@quick
@given(
    inputs=st.lists(tensors, max_size=2),
    more=st.dictionaries(st.sampled_from(["id", "parameters", "outputs"]), trees),
    behind=st.binary(max_size=30),
    off_by=st.sampled_from([0, 0, 0, 0, -1, 1, 10**6]),
)
def test_heads_and_tensors_of_any_shape_are_refused_or_answered(
    ask: Ask, inputs: list[object], more: dict[str, object], behind: bytes, off_by: int
) -> None:
    head = as_json({"inputs": inputs, **more})
    headers = (("Inference-Header-Content-Length", str(len(head) + off_by)),)

    assert ask(Request("/v2/models/fruit/infer", head + behind, headers)).status in (200, 400)


@quick
@given(values=st.lists(st.binary(min_size=4, max_size=4), min_size=3, max_size=3))
def test_floats_of_any_bits_are_refused_or_answered(ask: Ask, values: list[bytes]) -> None:
    tensor = {"name": "rows", "shape": [1, 3], "datatype": "FP32"}
    head = as_json({"inputs": [{**tensor, "parameters": {"binary_data_size": 12}}]})
    headers = (("Inference-Header-Content-Length", str(len(head))),)
    are_finite = np.isfinite(np.frombuffer(b"".join(values), "<f4")).all()

    response = ask(Request("/v2/models/fruit/infer", head + b"".join(values), headers))

    assert are_finite or response.status == 400


@quick
@given(
    descr=st.sampled_from(["'<f4'", "'>f8'", "'<f2'", "'|u1'", "'<i8'", "'|O'", "'<U1'", "None"]),
    order=st.sampled_from(["False", "True", "0"]),
    shape=st.one_of(
        st.sampled_from(["(1, 3)", "(3,)", "(2, 3)", "()", "3"]),
        st.lists(st.integers(-(2**70), 2**70), max_size=4).map(lambda axes: str(tuple(axes))),
    ),
    content=st.one_of(st.binary(max_size=30), st.just(bytes(12)), st.just(bytes(24))),
)
def test_npy_of_any_header_is_refused_or_answered(
    ask: Ask, descr: str, order: str, shape: str, content: bytes
) -> None:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content
    request = Request("/predict/fruit", body, (("Content-Type", "application/x-npy"),))

    assert ask(request).status in (200, 400)


cells = st.one_of(numbers.map(str), st.text(max_size=5), st.sampled_from(['"', "", "nan", "1_0"]))


@quick
@given(
    header=st.one_of(st.permutations(FIELDS), st.lists(st.one_of(st.sampled_from(FIELDS), texts))),
    lines=st.lists(st.lists(cells, min_size=2, max_size=4), max_size=3),
    separator=st.sampled_from([",", ";"]),
)
def test_tables_of_any_cells_are_refused_or_answered(
    ask: Ask, header: list[str], lines: list[list[str]], separator: str
) -> None:
    table = "\n".join(separator.join(line) for line in [header, *lines])
    body = table.encode("utf-8", "surrogatepass")

    response = ask(Request("/predict/fruit", body, (("Content-Type", "text/csv"),)))

    assert response.status in (200, 400)


heads = st.one_of(
    st.just(b'Content-Disposition: form-data; name="image"\r\n'),
    st.lists(st.binary(max_size=20), max_size=3).map(b"\r\n".join),
)


@quick
@given(
    parts=st.lists(st.tuples(heads, st.binary(max_size=40)), max_size=4),
    boundary=st.sampled_from(["B", "B", "B", "-", "B B", '"B"', ""]),
    end=st.sampled_from([b"--B--\r\n", b"--B--", b"--B", b""]),
)
def test_forms_of_any_parts_are_refused_or_answered(
    ask: Ask, parts: list[tuple[bytes, bytes]], boundary: str, end: bytes
) -> None:
    body = b"".join(b"--B\r\n" + head + b"\r\n" + content + b"\r\n" for head, content in parts)
    kind = (("Content-Type", f"multipart/form-data; boundary={boundary}"),)

    assert ask(Request("/predict/picture", body + end, kind)).status in (200, 400)

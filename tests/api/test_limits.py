"""Every cap on what a request may hold: met over HTTP, told by name and counted by its reason."""

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import picture_files
import pytest
from conftest import Server
from connections import Connection, request
from PIL import Image

from service.api.hotpath import HotProtocol
from service.settings import Settings

JSON = "application/json"
FORM = "multipart/form-data; boundary=b"
FRUIT = [0.5, 0.2, 0.1]
LIMITS: dict[str, Any] = {
    "max_body_bytes": 300_000,
    "max_inflation_ratio": 20,
    "max_request_rows": 200,
    "max_picture_pixels": 1_000_000,
    "max_request_pixels": 1_500_000,
    "max_picture_side": 2000,
}


@pytest.fixture(scope="module")
def small(models: Path) -> Iterator[httpx.Client]:
    with (
        Server(Settings(models=models, **LIMITS), HotProtocol) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


def picture(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def form(*contents: bytes, more: bytes = b"") -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="image"\r\n%b\r\n' % more
    return b"".join(head + content + b"\r\n" for content in contents) + b"--b--\r\n"


def instances(rows: object) -> bytes:
    return json.dumps({"instances": rows}).encode()


def infer(shape: list[int], data: list[float]) -> bytes:
    tensor = {"name": "rows", "datatype": "FP32", "shape": shape, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


CASES = [
    pytest.param(
        "/predict/fruit", JSON, b"x" * 300_001, "300,000 bytes", "too_many_bytes", id="bytes"
    ),
    pytest.param(
        "/predict/fruit", JSON, instances([FRUIT] * 201), "200 rows", "too_many_rows", id="rows"
    ),
    pytest.param(
        "/predict/fruit", JSON, instances([[]] * 70_000), "200 rows", "too_many_rows", id="elements"
    ),
    pytest.param(
        "/v2/models/fruit/infer",
        JSON,
        infer([201, 3], [0.5] * 603),
        "200 rows",
        "too_many_rows",
        id="elements of a tensor",
    ),
    pytest.param(
        "/v2/models/fruit/infer",
        JSON,
        infer([1] * 9, [0.5]),
        "a list of 1 to 8 lengths",
        "input_invalid",
        id="axes of a tensor",
    ),
    pytest.param(
        "/predict/fruit",
        JSON,
        instances([FRUIT])[:-2] + b"," + b"[" * 2000 + b"]" * 2000 + b"]}",
        "1,024 levels",
        "too_many_levels",
        id="levels",
    ),
    pytest.param(
        "/predict/fruit",
        JSON,
        b'{"instances": [[1, 2, %b]]}' % (b"1" * 5000),
        "4,300 digits",
        "too_many_digits",
        id="digits",
    ),
    pytest.param(
        "/predict/fruit",
        "text/csv",
        b"x," * 5000 + b"\n",
        "4,096 columns",
        "too_many_columns",
        id="columns",
    ),
    pytest.param(
        "/predict/fruit",
        "text/csv",
        b"sweet,sour,firm\n1,2," + b"3" * 140_000,
        "131,072 characters",
        "too_many_characters",
        id="characters of a cell",
    ),
    pytest.param(
        "/predict/picture",
        "image/png",
        picture(1001, 1000),
        "1,000,000 pixels",
        "too_many_pixels",
        id="pixels",
    ),
    pytest.param(
        "/predict/picture",
        "image/png",
        picture(2001, 100),
        "2,000 pixels",
        "too_many_pixels",
        id="a side",
    ),
    pytest.param(
        "/predict/picture",
        "image/jpeg",
        picture_files.jpeg_of_scans(101),
        "100 scans",
        "too_many_scans",
        id="scans of a JPEG",
    ),
    pytest.param(
        "/predict/picture",
        "image/jpeg",
        picture_files.jpeg_of_segments(4097),
        "4,096 segments",
        "too_many_segments",
        id="segments of a JPEG",
    ),
    pytest.param(
        "/predict/picture",
        "image/png",
        picture_files.png_with(
            Image.new("L", (40, 40)), picture_files.png_chunk(b"quIt", b"") * 10_001
        ),
        "10,000 chunks",
        "too_many_chunks",
        id="chunks of a PNG",
    ),
    pytest.param(
        "/predict/picture",
        "image/webp",
        picture_files.webp_of_frames(1025),
        "1,024 frames",
        "too_many_frames",
        id="frames of a WebP",
    ),
    pytest.param(
        "/predict/picture", "image/png", picture(3, 3), "at least 4", "input_invalid", id="a point"
    ),
    pytest.param(
        "/predict/picture", FORM, form(*[b"x"] * 201), "200 parts", "too_many_parts", id="parts"
    ),
    pytest.param(
        "/predict/picture",
        FORM,
        form(b"x", more=b"X: 1\r\n" * 9),
        "8 headers",
        "too_many_headers",
        id="headers of a part",
    ),
    pytest.param(
        "/predict/picture",
        FORM,
        form(b"x", more=b"X: " + b"1" * 5000 + b"\r\n"),
        "4,096 header bytes",
        "too_many_header_bytes",
        id="a header of a part",
    ),
    pytest.param(
        "/predict/picture",
        f"multipart/form-data; boundary={'b' * 71}",
        b"x",
        "a boundary of 1-70 characters",
        "input_invalid",
        id="a boundary",
    ),
]


def counted(client: httpx.Client, model: str, reason: str) -> float:
    start = f'dunno_input_rejections_total{{model="{model}",reason="{reason}"}} '
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(start)]
    return float(line.removeprefix(start))


@pytest.mark.parametrize(("path", "media_type", "body", "expected", "reason"), CASES)
def test_more_than_a_cap_allows_is_refused_by_it_and_counted(
    small: httpx.Client, path: str, media_type: str, body: bytes, expected: str, reason: str
) -> None:
    model = "picture" if "picture" in path else "fruit"
    before = counted(small, model, reason)
    response = small.post(path, content=body, headers={"content-type": media_type})

    said = response.json()
    assert response.status_code == (400 if reason == "input_invalid" else 413)
    assert expected in (said.get("detail") or said["error"])
    assert counted(small, model, reason) == before + 1


def test_pixels_of_all_pictures_of_a_request_have_a_cap_and_are_counted(
    small: httpx.Client,
) -> None:
    before = counted(small, "picture", "too_many_pixels")
    body = form(picture(1000, 1000), picture(1000, 1000))
    response = small.post("/predict/picture", content=body, headers={"content-type": FORM})

    (_, second) = response.json()["predictions"]
    assert "1,500,000 pixels" in second["error"]["detail"]
    assert counted(small, "picture", "too_many_pixels") == before + 1


@pytest.mark.parametrize("path", ["/v1/models/fruit:predict", "/v2/models/fruit/infer"])
@pytest.mark.parametrize(
    ("content", "expected", "reason"),
    [
        pytest.param(b" " * 299_000, "20 times its size", "too_many_times_its_size", id="ratio"),
        pytest.param(
            np.random.default_rng(1).bytes(200_000).hex().encode(),
            "300,000 bytes",
            "too_many_bytes",
            id="size",
        ),
    ],
)
def test_compressed_body_that_becomes_too_large_is_refused_by_its_cap_and_counted(
    small: httpx.Client, path: str, content: bytes, expected: str, reason: str
) -> None:
    before = counted(small, "fruit", reason)
    response = small.post(
        path, content=gzip.compress(content), headers={"content-encoding": "gzip"}
    )

    assert response.status_code == 413
    assert expected in response.json()["error"]
    assert counted(small, "fruit", reason) == before + 1


def test_body_that_comes_too_slowly_is_counted(models: Path) -> None:
    settings = Settings(models=models, body_timeout_ms=100)
    with (
        Server(settings, HotProtocol) as address,
        closing(Connection(address)) as connection,
        httpx.Client(base_url=address) as client,
    ):
        connection.send(request(Content_Length="100"))

        assert connection.response()[0] == 408
        assert counted(client, "fruit", "body_timed_out") == 1


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/predict/fruit", "/v1/models/fruit:predict"])
def test_bodies_on_their_way_share_a_room_and_one_that_finds_none_is_refused(
    models: Path, path: str
) -> None:
    body = instances([FRUIT]) + b" " * 8000
    first, rest = request(body, path=path)[:-6000], request(body, path=path)[-6000:]
    settings = Settings(models=models, max_arriving_bytes=9000)

    with (
        Server(settings, HotProtocol) as address,
        closing(Connection(address)) as waiting,
        closing(Connection(address)) as refused,
    ):
        waiting.send(first)
        while not in_flight(address):
            pass
        refused.send(first + rest[:-1])
        status, headers, told = refused.response()
        waiting.send(rest)

        assert (status, headers["retry-after"]) == (503, "1")
        assert "there is no room for" in str(told.get("detail", told.get("error")))
        assert refused.is_closed()
        assert waiting.response()[0] == 200
        again = httpx.post(f"{address}{path}", content=body, headers={"Content-Type": JSON})
        assert again.status_code == 200
        text = httpx.get(f"{address}/metrics").text
        assert 'dunno_rejections_total{cause="bodies_full",model="_unknown"} 1.0' in text


def in_flight(address: str) -> bool:
    """Whether the server has begun to read a request."""
    text = httpx.get(f"{address}/metrics").text
    return any(
        line.startswith("dunno_inflight_requests") and line.endswith(" 1.0")
        for line in text.splitlines()
    )


@pytest.mark.parametrize("path", ["/predict/fruit", "/v1/models/fruit:predict"])
@pytest.mark.parametrize(
    "query", ["a&" * 15_000, "verdict=1&" * 3_000, "top_k=1&" * 32], ids=["names", "verdicts", "33"]
)
def test_query_of_too_many_parameters_is_refused_before_it_is_parsed(
    client: httpx.Client, path: str, query: str
) -> None:
    response = client.post(f"{path}?{query}", json={"instances": [[9, 0, 0]]})

    assert response.status_code in {400, 422}  # each protocol has its own
    assert "at most 32 parameters" in response.text


@pytest.mark.parametrize(
    "path", ["/models", "/models/fruit", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs"]
)
def test_query_of_a_question_with_too_many_parameters_is_refused_before_it_is_parsed(
    client: httpx.Client, path: str
) -> None:
    response = client.get(f"{path}?{'a&' * 32}a")

    assert response.status_code == 422
    assert response.json()["type"] == "urn:dunno:option_invalid"
    assert "at most 32 parameters, got '33'" in response.json()["detail"]
    assert "at most 32" not in client.get(f"{path}?{'a&' * 31}a").text


@pytest.mark.parametrize("path", ["/predict/fruit", "/v1/models/fruit:predict"])
def test_as_many_parameters_as_allowed_are_parsed(client: httpx.Client, path: str) -> None:
    response = client.post(f"{path}?{'x=1&' * 31}x=1", json={"instances": [[9, 0, 0]]})

    assert "at most 32 parameters" not in response.text
    assert "'x'" in response.text

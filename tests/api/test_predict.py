import base64
import io
import json
import re
import socket
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from bundles import FRUIT
from numpy.typing import NDArray
from PIL import Image

APPLE, PEAR, UNSURE = [9, 0, 0], [0, 9, 0], [1, 1, 1]


def post(client: httpx.Client, path: str, *instances: object) -> httpx.Response:
    return client.post(path, json={"instances": instances})


def picture(value: int, file_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("L", (30, 20), value).save(stream, file_format)
    return stream.getvalue()


def npy(array: NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_answer_holds_all_that_is_promised(client: httpx.Client) -> None:
    response = post(client, "/predict/fruit", APPLE)

    content = response.json()
    assert response.status_code == 200
    assert content["model"] == "fruit"
    assert content["version"] == "2"
    assert content["request_id"] == response.headers["x-request-id"]
    assert content["policy"] == {
        "id": content["policy"]["id"],
        "max_error": 0.01,
        "min_confidence": 0.9,
        "novelty_alpha": 0.0,
        "guarantee": "certified",
    }
    (prediction,) = content["predictions"]
    assert prediction["verdict"] == "answer"
    assert prediction["label"] == "apple"
    assert prediction["reason"] is None
    assert prediction["candidates"] == ["apple"]
    assert prediction["novelty_p"] == 1.0
    assert prediction["confidence"] == prediction["probabilities"]["apple"] > 0.99
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_dont_know_is_an_answer(client: httpx.Client) -> None:
    response = post(client, "/predict/fruit", UNSURE)

    (prediction,) = response.json()["predictions"]
    assert response.status_code == 200
    assert prediction["verdict"] == "dont_know"
    assert prediction["label"] is None
    assert prediction["reason"] == "low_confidence"
    assert len(prediction["candidates"]) == 3


@pytest.mark.parametrize(
    ("content_type", "body", "model", "label"),
    [
        pytest.param(
            "application/json",
            json.dumps({"instances": [{"sweet": 9, "sour": 0, "firm": 0}]}).encode(),
            "fruit",
            "apple",
            id="object by name",
        ),
        pytest.param("text/csv", b"firm;sour;sweet\n0;0;9\n", "fruit", "apple", id="csv"),
        pytest.param(
            "application/x-npy", npy(np.array([[9, 0, 0]])), "fruit", "apple", id="npy features"
        ),
        pytest.param("image/png", picture(250), "picture", "light", id="png"),
        pytest.param("image/jpeg", picture(250, "JPEG"), "picture", "light", id="jpeg"),
        pytest.param("image/jpg", picture(250, "JPEG"), "picture", "light", id="jpg"),
        pytest.param("image/webp", picture(250, "WEBP"), "picture", "light", id="webp"),
        pytest.param("image/bmp", picture(250, "BMP"), "picture", "light", id="bmp"),
        pytest.param(
            "application/json",
            json.dumps({"instances": [[[250] * 8] * 8]}).encode(),
            "picture",
            "light",
            id="pixels",
        ),
        pytest.param(
            "application/json",
            json.dumps({"instances": [{"b64": base64.b64encode(picture(5)).decode()}]}).encode(),
            "picture",
            "dark",
            id="picture inside json",
        ),
        pytest.param(
            "application/x-npy",
            npy(np.full((1, 8, 8), 250, np.uint8)),
            "picture",
            "light",
            id="npy pictures",
        ),
        pytest.param("text/plain", b"good film", "review", "positive", id="text"),
        pytest.param(
            "text/plain; charset=utf-8",
            "good gut čeština".encode(),
            "review",
            "positive",
            id="utf-8",
        ),
        pytest.param(
            "application/x-www-form-urlencoded",
            b'{"instances": ["good good"]}',
            "review",
            "positive",
            id="what curl -d sends",
        ),
    ],
)
def test_every_body_kind_is_understood(
    client: httpx.Client, content_type: str, body: bytes, model: str, label: str
) -> None:
    response = client.post(
        f"/predict/{model}?include=best_guess", content=body, headers={"content-type": content_type}
    )

    assert response.status_code == 200, response.text
    assert response.json()["predictions"][0]["best_guess"] == label


@pytest.mark.parametrize(
    "charset", ["iso-8859-1", "Latin1", '"windows-1252"', "UTF-8", "utf-16", "utf-16le", "utf-16be"]
)
@pytest.mark.parametrize(
    ("media_type", "text", "model"),
    [
        ("text/csv", "année,sweet,sour,firm\n2019,9,0,0\n", "fruit"),
        ("text/plain", "good Gemüse", "review"),
        ("application/json", '{"instances": ["good Gemüse"]}', "review"),
    ],
)
def test_charset_of_the_content_type_is_heard(
    client: httpx.Client, charset: str, media_type: str, text: str, model: str
) -> None:
    body = text.encode(charset.strip('"'))

    found = client.post(
        f"/predict/{model}",
        content=body,
        headers={"content-type": f"{media_type}; charset={charset}"},
    )

    right = client.post(
        f"/predict/{model}", content=text.encode(), headers={"content-type": media_type}
    )
    assert found.status_code == 200, found.text
    assert found.json()["predictions"] == right.json()["predictions"]
    assert found.json().get("warnings") == right.json().get("warnings")


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/csv", b"sweet,sour,firm\n9,0,0\n"),
        ("text/plain", b"good"),
        ("application/json", b'{"instances": [[9, 0, 0]]}'),
    ],
)
@pytest.mark.parametrize("charset", ["shift_jis", "idna", "zlib", "", "x" * 200])
def test_charset_that_is_not_understood_is_refused_with_those_that_are(
    client: httpx.Client, charset: str, media_type: str, body: bytes
) -> None:
    model = "review" if media_type == "text/plain" else "fruit"
    found = client.post(
        f"/predict/{model}",
        content=body,
        headers={"content-type": f'{media_type}; charset="{charset}"'},
    )

    assert found.status_code == 415
    assert "expected one of the charsets utf-8, us-ascii, iso-8859-1" in found.json()["detail"]


@pytest.mark.parametrize(
    ("charset", "body", "message"),
    [
        ("", b"good \xe9", "expected UTF-8, or its charset named in the Content-Type, got another"),
        ("; charset=utf-8", b"good \xe9", "expected UTF-8, got another byte at 5"),
        ("; charset=windows-1252", b"good \x81", "expected WINDOWS-1252, got another byte at 5"),
        ("; charset=utf-16", b"g\0", "expected a byte order mark before UTF-16"),
    ],
)
def test_text_that_is_not_in_its_charset_is_refused(
    client: httpx.Client, charset: str, body: bytes, message: str
) -> None:
    found = client.post(
        "/predict/review", content=body, headers={"content-type": f"text/plain{charset}"}
    )

    assert found.status_code == 400
    assert message in found.json()["detail"]


def test_form_of_several_pictures_gets_a_verdict_each(client: httpx.Client) -> None:
    files = [
        ("image", ("a.png", picture(250), "image/png")),
        ("image", ("b.png", b"rubbish", "image/png")),
        ("image", ("c.png", picture(5), "image/png")),
    ]

    predictions = client.post("/predict/picture", files=files).json()["predictions"]

    assert [each.get("label") for each in predictions] == ["light", None, "dark"]
    assert predictions[1]["error"]["code"] == "picture_unreadable"


def test_columns_that_the_model_does_not_use_are_named(client: httpx.Client) -> None:
    response = client.post(
        "/predict/fruit",
        content=b"colour,sweet,sour,firm\nred,9,0,0\n",
        headers={"content-type": "text/csv"},
    )

    assert response.json()["ignored_columns"] == ["colour"]


def test_bad_row_has_its_error_in_its_place_and_the_rest_are_answered(
    client: httpx.Client,
) -> None:
    response = post(client, "/predict/fruit", APPLE, [1, 2], PEAR)

    predictions = response.json()["predictions"]
    assert response.status_code == 200
    assert [each.get("label") for each in predictions] == ["apple", None, "pear"]
    assert predictions[1] == {
        "error": {
            "code": "input_invalid",
            "detail": "instances[1]: expected 3 numbers (sweet, sour, firm), got a list of 2",
        }
    }


def test_many_rows_and_one_row_get_the_same_verdicts(client: httpx.Client) -> None:
    rows = [[step / 7, (step * 3 % 11) / 3, step % 2] for step in range(150)]

    together = post(client, "/predict/fruit", *rows).json()["predictions"]
    alone = [post(client, "/predict/fruit", row).json()["predictions"][0] for row in rows]

    assert together == alone


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("max_error=0.001", "min_confidence", 0.99),
        ("max_error=0.005", "max_error", 0.001),
        ("min_confidence=0.95", "min_confidence", 0.95),
    ],
)
def test_request_may_be_stricter(
    client: httpx.Client, query: str, field: str, value: float
) -> None:
    policy = post(client, f"/predict/fruit?{query}", APPLE).json()["policy"]

    assert policy[field] == value
    assert policy["guarantee"] == "certified"


def test_request_may_be_looser_only_where_the_operator_allows_it(client: httpx.Client) -> None:
    refused = post(client, "/predict/fruit?min_confidence=0.2", UNSURE)
    allowed = post(client, "/predict/fruits?min_confidence=0.2", UNSURE)

    assert refused.status_code == 422
    assert allowed.json()["predictions"][0]["verdict"] == "answer"
    assert allowed.json()["policy"]["guarantee"] == "uncertified"


def test_version_and_alias_are_chosen_by_query(client: httpx.Client) -> None:
    versions = [
        post(client, f"/predict/fruits{query}", APPLE).json()["version"]
        for query in ("", "?version=1", "?alias=stable")
    ]

    assert versions == ["2", "1", "1"]


def test_probabilities_come_as_a_list_if_asked_for(client: httpx.Client) -> None:
    for path in ("/predict/fruit?probabilities=list", "/predict/fruit"):
        (prediction,) = post(client, path, [1, 3, 2]).json()["predictions"]
        found = prediction["probabilities"]
        values = found if isinstance(found, list) else [found[name] for name in FRUIT]

        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert values.index(max(values)) == 1


def test_top_k_keeps_the_best_labels(client: httpx.Client) -> None:
    (prediction,) = post(client, "/predict/fruit?top_k=2", [1, 3, 2]).json()["predictions"]

    assert list(prediction["probabilities"]) == ["pear", "plum"]


def test_best_guess_is_told_only_on_request(client: httpx.Client) -> None:
    silent = post(client, "/predict/fruit", [1, 2, 1]).json()["predictions"][0]
    asked = post(client, "/predict/fruit?include=best_guess", [1, 2, 1]).json()["predictions"][0]

    assert "best_guess" not in silent
    assert asked["best_guess"] == "pear"
    assert asked["label"] is None


def test_stages_are_timed(client: httpx.Client) -> None:
    timing = post(client, "/predict/fruit", APPLE).headers["server-timing"]

    assert re.fullmatch(
        r"decode;dur=\d+\.\d+, queue;dur=\d+\.\d+, run;dur=\d+\.\d+, decide;dur=\d+\.\d+", timing
    )


def test_request_id_of_the_caller_comes_back(client: httpx.Client) -> None:
    response = client.post(
        "/predict/fruit", json={"instances": [APPLE]}, headers={"x-request-id": "mine-1"}
    )

    assert response.headers["x-request-id"] == response.json()["request_id"] == "mine-1"


@pytest.mark.parametrize("came", ["two words", "x" * 129, "a\tb", ""])
def test_request_id_that_could_harm_a_log_is_replaced(client: httpx.Client, came: str) -> None:
    response = client.post(
        "/predict/fruit", json={"instances": [APPLE]}, headers={"x-request-id": came}
    )

    assert response.headers["x-request-id"] != came


PROBLEMS = [
    pytest.param("/predict/nuts", {}, b"{}", 404, "model_not_found", "fruit, picture", id="model"),
    pytest.param("/predict/", {}, b"{}", 404, "model_not_found", "no model ''", id="no name"),
    pytest.param("/predict/fruit/x", {}, b"{}", 404, "model_not_found", "fruit/x", id="deeper"),
    pytest.param("/predict/fruit?version=9", {}, b"{}", 404, "version_not_found", "9", id="v9"),
    pytest.param("/predict/fruit?x=1", {}, b"{}", 422, "option_invalid", "'x'", id="option"),
    pytest.param(
        "/predict/fruit?max_error=1e-9", {}, b"{}", 422, "risk_not_certifiable", "0.001", id="risk"
    ),
    pytest.param(
        "/predict/fruit?probabilities=pie",
        *({}, b"{}", 422, "option_invalid", "object or list"),
        id="probabilities",
    ),
    pytest.param(
        "/predict/fruit?probabilities=list&top_k=1",
        *({}, b"{}", 422, "option_invalid", "all labels"),
        id="list and top_k",
    ),
    pytest.param("/predict/fruit?top_k=0", {}, b"{}", 422, "option_invalid", "top_k", id="top_k"),
    pytest.param(
        "/predict/fruit?top_k=1&top_k=2", {}, b"{}", 422, "option_invalid", "one value", id="twice"
    ),
    pytest.param(
        "/predict/fruit?deadline_ms=soon", {}, b"{}", 422, "option_invalid", "soon", id="soon"
    ),
    *(
        pytest.param(
            *(f"/predict/fruit?{name}={value}", {}, b"{}", 422, "option_invalid", name),
            id=f"{name}={value}",
        )
        for name in ("deadline_ms", "max_error", "min_confidence")
        for value in ("0.0_1", "%D9%A1", "0x1")
    ),
    pytest.param(
        "/predict/fruit?max_error=nan", {}, b"{}", 422, "option_invalid", "max_error", id="nan"
    ),
    pytest.param(
        "/predict/fruit?include=all", {}, b"{}", 422, "option_invalid", "best_guess", id="incl"
    ),
    pytest.param("/predict/fruit", {}, b"{", 400, "input_invalid", "expected JSON", id="json"),
    pytest.param("/predict/fruit", {}, b"{}", 400, "input_invalid", "instances", id="empty object"),
    pytest.param(
        "/predict/fruit", {}, b'{"instances": []}', 400, "input_invalid", "one row", id="no rows"
    ),
    pytest.param(
        "/predict/fruit",
        {},
        b'{"instances": [[1, NaN, 2]]}',
        400,
        "input_invalid",
        "instances[0].sour: expected a finite number",
        id="NaN",
    ),
    pytest.param(
        "/predict/fruit",
        {},
        b'{"instances": [[1, 2, 3],[1]]}'[:-2] + b",[" + b"1," * 60_000 + b"1]]}",
        413,
        "body_too_large",
        "100,000 bytes",
        id="too many bytes",
    ),
    pytest.param(
        "/predict/fruit",
        {},
        json.dumps({"instances": [APPLE] * 201}).encode(),
        413,
        "payload_too_large",
        "200 rows",
        id="too many rows",
    ),
    pytest.param(
        "/predict/fruit", {"content-type": "text/html"}, b"x", 415, "media_type_unsupported",
        "text/csv", id="media type",
    ),
    pytest.param(
        "/predict/picture", {"content-type": ""}, picture(1), 415, "media_type_unsupported",
        "no Content-Type", id="no media type",
    ),
    pytest.param(
        "/predict/fruit", {"content-encoding": "gzip"}, b"x", 415, "media_type_unsupported",
        "compressed", id="compressed",
    ),
    pytest.param(
        "/predict/picture", {"content-type": "image/png"}, b"x", 400, "picture_unreadable",
        "body: expected a picture", id="no picture",
    ),
    pytest.param(
        "/predict/review", {"content-type": "text/plain"}, b"", 400, "input_invalid",
        "an empty one", id="empty text",
    ),
    pytest.param(
        "/predict/review", {"content-type": "text/plain"}, b"\xff", 400, "input_invalid",
        "UTF-8", id="no UTF-8",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "headers", "body", "status", "code", "expected"), PROBLEMS)
def test_bad_request_is_a_problem_that_names_the_place(
    client: httpx.Client,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    code: str,
    expected: str,
) -> None:
    response = client.post(
        path, content=body, headers={"content-type": "application/json", **headers}
    )

    problem = response.json()
    assert response.status_code == problem["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:dunno:{code}"
    assert expected in problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]


def test_deadline_that_cannot_be_met_is_told(client: httpx.Client) -> None:
    response = post(client, "/predict/fruit?deadline_ms=0.000001", APPLE)

    assert response.status_code == 504
    assert response.headers["retry-after"] == "1"


def test_other_methods_are_refused_with_the_one_there_is(client: httpx.Client) -> None:
    response = client.get("/predict/fruit")

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.headers["content-type"] == "application/problem+json"


def converse(address: str, request: bytes) -> bytes:
    """Send raw bytes and return what comes back until the server closes or falls silent."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=5) as connection:
        connection.sendall(request)
        connection.settimeout(2)
        answer = b""
        try:
            while chunk := connection.recv(65_536):
                answer += chunk
        except TimeoutError:
            pass
    return answer


def test_body_that_does_not_arrive_is_not_waited_for(address: str) -> None:
    head = b"POST /predict/fruit HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"

    answer = converse(address, head + b'{"inst')

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_body_larger_than_it_says_it_is_not_read(address: str) -> None:
    head = b"POST /predict/fruit HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"

    answer = converse(address, head)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


def test_body_without_a_length_is_cut_off_at_the_cap(address: str) -> None:
    head = b"POST /predict/fruit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = converse(address, head + (b"4000\r\n" + b"x" * 0x4000 + b"\r\n") * 8 + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_pipelined_requests_are_answered_in_order(address: str) -> None:
    def request(row: list[int]) -> bytes:
        body = json.dumps({"instances": [row]}).encode()
        return (
            b"POST /predict/fruit HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    answer = converse(address, request(APPLE) + request(PEAR))

    assert re.findall(rb'"label":"(\w+)"', answer) == [b"apple", b"pear"]

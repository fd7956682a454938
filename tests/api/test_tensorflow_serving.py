import base64
import gzip
import io
import json
import re

import httpx
import numpy as np
import pytest
from counting import value
from PIL import Image

APPLE, PEAR, UNSURE = [9, 0, 0], [0, 9, 0], [1, 1, 1]
PREDICT = "/v1/models/fruit:predict"


def post(client: httpx.Client, path: str, content: object, **headers: str) -> httpx.Response:
    return client.post(path, content=json.dumps(content).encode(), headers=headers)


def picture(value: int) -> dict[str, str]:
    stream = io.BytesIO()
    Image.new("L", (30, 20), value).save(stream, "PNG")
    return {"b64": base64.b64encode(stream.getvalue()).decode()}


def native(client: httpx.Client, *rows: object) -> list[dict[str, object]]:
    response = client.post("/predict/fruit", json={"instances": rows})
    predictions: list[dict[str, object]] = response.json()["predictions"]
    return predictions


@pytest.mark.parametrize(
    ("model", "row", "best"),
    [
        pytest.param("fruit", APPLE, 0, id="list"),
        pytest.param("fruit", {"rows": APPLE}, 0, id="object by input name"),
        pytest.param("fruit", {"sour": 9, "sweet": 0, "firm": 0}, 1, id="object by field name"),
        pytest.param("picture", [[250] * 8] * 8, 1, id="pixels"),
        pytest.param("picture", [[[250]] * 8] * 8, 1, id="pixels with an axis of one channel"),
        pytest.param("picture", picture(5), 0, id="picture"),
        pytest.param("picture", {"rows": picture(250)}, 1, id="picture by input name"),
        pytest.param("review", "good good film", 1, id="text"),
        pytest.param("review", {"b64": base64.b64encode(b"good").decode()}, 1, id="text in b64"),
    ],
)
def test_row_form_is_answered_with_predictions(
    client: httpx.Client, model: str, row: object, best: int
) -> None:
    response = post(client, f"/v1/models/{model}:predict", {"instances": [row, row]})

    assert response.status_code == 200, response.text
    assert list(response.json()) == ["predictions"]
    assert np.argmax(response.json()["predictions"], axis=1).tolist() == [best, best]


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([APPLE, PEAR], id="tensor"),
        pytest.param({"rows": [APPLE, PEAR], "unknown": 1}, id="tensor by name"),
    ],
)
def test_column_form_is_answered_with_outputs(client: httpx.Client, inputs: object) -> None:
    response = post(client, PREDICT, {"signature_name": "serving_default", "inputs": inputs})

    assert list(response.json()) == ["outputs"]
    assert np.argmax(response.json()["outputs"], axis=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "rubbish; ="]
)
def test_content_type_is_not_looked_at(client: httpx.Client, content_type: str) -> None:
    response = post(client, PREDICT, {"instances": [APPLE]}, **{"content-type": content_type})

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"


def test_probabilities_are_the_native_ones_in_the_order_of_the_labels(
    client: httpx.Client,
) -> None:
    (expected,) = native(client, [1, 3, 2])

    (row,) = post(client, PREDICT, {"instances": [[1, 3, 2]]}).json()["predictions"]

    assert row == list(expected["probabilities"].values())  # type: ignore[attr-defined]


def test_floats_are_the_shortest_text_of_32_bits(client: httpx.Client) -> None:
    text = post(client, PREDICT, {"instances": [UNSURE]}).text

    assert text == '{"predictions":[[0.333333,0.333333,0.333333]]}'


def test_whole_numbers_are_written_as_floats(client: httpx.Client) -> None:
    response = post(client, "/v1/models/picture:predict", {"instances": [[[255] * 8] * 8]})

    assert response.text == '{"predictions":[[0.0,1.0]]}'


@pytest.mark.parametrize(
    ("query", "header"),
    [("?verdict=1", ""), ("?verdict=true", ""), ("", "1")],
    ids=["query", "query in words", "header"],
)
def test_verdicts_stand_beside_the_predictions_if_asked_for(
    client: httpx.Client, query: str, header: str
) -> None:
    plain = post(client, PREDICT, {"instances": [APPLE, UNSURE]}).json()

    headers = {"x-dunno-verdict": header} if header else {}
    asked = post(client, PREDICT + query, {"instances": [APPLE, UNSURE]}, **headers).json()

    assert plain.keys() == {"predictions"}
    assert asked == {**plain, "verdicts": native(client, APPLE, UNSURE)}


def test_stricter_terms_are_asked_for_as_on_the_native_route(client: httpx.Client) -> None:
    row = [6, 1, 1]  # confidence 0.987, between the thresholds 0.9 and 0.99

    verdicts = [
        post(client, f"{PREDICT}?verdict=1&{query}", {"instances": [row]}).json()["verdicts"][0]
        for query in ("max_error=0.01", "max_error=0.001", "min_confidence=0.99")
    ]

    assert [verdict["label"] for verdict in verdicts] == ["apple", None, None]


def test_classify_names_the_labels(client: httpx.Client) -> None:
    content = {"context": {"firm": 0}, "examples": [{"sweet": 9, "sour": [0.0]}]}

    response = post(client, "/v1/models/fruit:classify", content)

    (row,) = response.json()["results"]
    assert [label for label, _ in row] == ["apple", "pear", "plum"]
    assert row[0][1] > 0.99


@pytest.mark.parametrize(
    ("model", "example", "best"),
    [("picture", {"rows": picture(250)}, 1), ("review", {"rows": ["good good"]}, 1)],
)
def test_classify_takes_the_only_input_by_its_name(
    client: httpx.Client, model: str, example: object, best: int
) -> None:
    response = post(client, f"/v1/models/{model}:classify", {"examples": [example]})

    (row,) = response.json()["results"]
    assert max(range(2), key=lambda label: row[label][1]) == best


BAD = [
    pytest.param({}, "exactly one", "neither", id="neither form"),
    pytest.param({"instances": [APPLE], "inputs": [APPLE]}, "exactly one", "both", id="both"),
    pytest.param({"instances": []}, "instances", "at least one row", id="no rows"),
    pytest.param({"instances": APPLE}, "instances[0]", "got 9", id="scalars"),
    pytest.param({"instances": {"rows": APPLE}}, "instances", "a list of rows", id="object"),
    pytest.param({"instances": [APPLE, [1, 2]]}, "instances[1]", "a list of 2", id="ragged"),
    pytest.param({"instances": [[1, None, 3]]}, "instances[0].sour", "null", id="null"),
    pytest.param({"instances": [[1, "2", 3]]}, "instances[0].sour", "the string '2'", id="text"),
    pytest.param(
        {"instances": [[1, float("nan"), 3]]}, "instances[0].sour", "finite number", id="NaN"
    ),
    pytest.param(
        {"instances": [[1, 2, float("-inf")]]}, "instances[0].firm", "finite number", id="Infinity"
    ),
    pytest.param({"inputs": {"x": [APPLE]}}, "inputs", "the input 'rows'", id="another input"),
    pytest.param({"inputs": {"b64": "AA=="}}, "inputs", "the input 'rows'", id="value as tensor"),
    pytest.param({"inputs": 7}, "inputs", "a list of rows", id="scalar tensor"),
    pytest.param({"inputs": []}, "inputs", "at least one row", id="empty tensor"),
    pytest.param(
        {"instances": [APPLE, {"rows": APPLE}]}, "instances[1]", "rows of one form", id="mixed"
    ),
    pytest.param(
        {"signature_name": "x", "instances": [APPLE]}, "signature_name", "'x'", id="signature"
    ),
    pytest.param(
        {"signature_name": 7, "instances": [APPLE]}, "signature_name", "a text", id="no signature"
    ),
    pytest.param({"instances": [APPLE] * 201, "x": 1}, "200 rows", "201", id="many rows"),
    pytest.param([APPLE], "body", "an object", id="list"),
]


@pytest.mark.parametrize(("content", "expected", "got"), BAD)
def test_bad_body_is_an_error_that_names_the_place(
    client: httpx.Client, content: object, expected: str, got: str
) -> None:
    response = post(client, PREDICT, content)

    assert response.status_code in (400, 413)
    assert response.json().keys() == {"error"}
    assert expected in response.json()["error"]
    assert got in response.json()["error"]


@pytest.mark.parametrize("text", ["good good", {"b64": "Z29vZCBnb29k"}])
@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_texts_of_shape_n_by_1_are_texts(client: httpx.Client, form: str, text: object) -> None:
    path = "/v1/models/review:predict"

    found = post(client, path, {form: [[text], [text]]})

    assert found.status_code == 200, found.text
    assert found.json() == post(client, path, {form: ["good good"] * 2}).json()


def test_pictures_of_shape_n_by_1_are_pictures(client: httpx.Client) -> None:
    path = "/v1/models/picture:predict"

    found = post(client, path, {"instances": [[picture(250)], [picture(5)]]})

    assert found.json() == post(client, path, {"instances": [picture(250), picture(5)]}).json()


def test_two_texts_in_a_row_are_refused(client: httpx.Client) -> None:
    found = post(client, "/v1/models/review:predict", {"instances": [["good", "bad"]]})

    assert found.status_code == 400
    assert "instances[0]: expected a text, got a list of 2" in found.json()["error"]


@pytest.mark.parametrize("form", ["unpadded", "for URLs", "data"])
def test_base64_of_any_form_is_the_same_picture_on_every_route(
    client: httpx.Client, form: str
) -> None:
    usual = picture(250)["b64"]
    other = {
        "unpadded": usual.rstrip("="),
        "for URLs": usual.replace("+", "-").replace("/", "_"),
        "data": f"data:image/png;base64,{usual}",
    }[form]
    tensor = {"name": "rows", "datatype": "BYTES", "shape": [1], "data": [other]}

    native = client.post("/predict/picture", json={"instances": [{"b64": other}]})
    first = post(client, "/v1/models/picture:predict", {"instances": [{"b64": other}]})
    second = post(client, "/v2/models/picture/infer", {"inputs": [tensor]})

    probabilities = [0.0, 1.0]
    assert list(native.json()["predictions"][0]["probabilities"].values()) == probabilities
    assert first.json()["predictions"] == [probabilities]
    assert second.json()["outputs"][0]["data"] == probabilities


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [("/w==", "another byte at 0"), ("?", "expected base64"), (7, 'a text or {"b64"')],
)
def test_text_that_cannot_be_decoded_is_refused(
    client: httpx.Client, encoded: object, expected: str
) -> None:
    response = post(client, "/v1/models/review:predict", {"instances": [{"b64": encoded}]})

    assert response.status_code == 400
    assert expected in response.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"instances": [[9,0,0]]} rubbish', b"\xff", b'{"instances": "\\ud800"}']
)
def test_body_that_is_no_json_is_status_400(client: httpx.Client, body: bytes) -> None:
    response = client.post(PREDICT, content=body)

    assert response.status_code == 400
    assert response.json().keys() == {"error"}


BAD_EXAMPLES = [
    pytest.param({}, "examples", id="none"),
    pytest.param({"examples": []}, "at least one", id="empty"),
    pytest.param({"examples": [7]}, "examples[0]", id="number"),
    pytest.param({"examples": [{"sweet": 1}]}, "the feature 'sour'", id="missing feature"),
    pytest.param({"context": 7, "examples": [{}]}, "context", id="context"),
    pytest.param({"context": {"sweet": 1}, "examples": [{"sweet": 1}]}, "as well", id="twice"),
]


@pytest.mark.parametrize(("content", "expected"), BAD_EXAMPLES)
def test_bad_examples_are_refused(client: httpx.Client, content: object, expected: str) -> None:
    response = post(client, "/v1/models/fruit:classify", content)

    assert response.status_code == 400
    assert expected in response.json()["error"]


def test_regress_is_refused_clearly(client: httpx.Client) -> None:
    response = post(client, "/v1/models/fruit:regress", {"examples": [{"sweet": 1}]})

    assert response.status_code == 400
    assert "tells labels apart" in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v1/models/nuts:predict", 404, "Servable not found for request: Latest(nuts)"),
        ("/v1/models/nuts/versions/7:predict", 404, "Specific(nuts, 7)"),
        ("/v1/models/fruit/versions/7:predict", 404, "Specific(fruit, 7)"),
        ("/v1/models/fruit/labels/x:predict", 404, "label for fruit: x"),
        ("/v1/models/fruit/versions/1/labels/x:predict", 400, "Malformed request: POST"),
        ("/v1/models/fruit/versions/one:predict", 400, "Malformed request: POST"),
        ("/v1/models/fruit:explain", 400, "Malformed request: POST"),
        ("/v1/models/fruit:predict?verdict=maybe", 400, "verdict"),
        ("/v1/models/fruit:predict?version=1", 400, "in the path"),
        ("/v1/models/fruit:predict?x=1", 400, "'x'"),
        ("/v1/models/fruit:predict?min_confidence=0.2", 400, "at least 0.9"),
        ("/v1/models/fruit:predict?max_error=1e-9", 400, "certified"),
    ],
)
def test_bad_target_is_an_error_with_the_status_of_the_original(
    client: httpx.Client, path: str, status: int, error: str
) -> None:
    response = post(client, path, {"instances": [APPLE]})

    assert response.status_code == status
    assert response.json().keys() == {"error"}
    assert error in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/models/fruit:predict", "POST"),
        ("POST", "/v1/models/fruit", "GET"),
        ("DELETE", "/v1/models/fruit/metadata", "GET"),
    ],
)
def test_wrong_method_is_refused_with_the_one_there_is(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)

    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    assert response.json().keys() == {"error"}


@pytest.mark.parametrize("path", ["/V1/MODELS/fruit:PREDICT", "/v1/Models/fruit:Predict"])
def test_case_of_the_path_does_not_matter(client: httpx.Client, path: str) -> None:
    assert post(client, path, {"instances": [APPLE]}).status_code == 200


def test_name_is_percent_decoded(client: httpx.Client) -> None:
    assert post(client, "/v1/models/f%72uit:predict", {"instances": [APPLE]}).status_code == 200
    assert post(client, "/v1/models/fr%2Fuit:predict", {"instances": [APPLE]}).status_code == 400


def test_version_and_label_choose_the_version(client: httpx.Client) -> None:
    versions = [
        client.get(f"/v1/models/fruits{which}/metadata").json()["model_spec"]["version"]
        for which in ("", "/versions/1", "/versions/2", "/labels/stable")
    ]

    assert versions == ["2", "1", "2", "1"]


def test_status_is_read_by_clients_of_both_protocols(client: httpx.Client) -> None:
    status = client.get("/v1/models/fruits").json()

    assert status["name"] == "fruits"
    assert status["ready"] is True
    assert status["model_version_status"] == [
        {
            "version": version,
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        for version in ("2", "1")
    ]


def test_status_of_one_version_is_of_that_alone(client: httpx.Client) -> None:
    by_version = client.get("/v1/models/fruits/versions/1").json()
    by_label = client.get("/v1/models/fruits/labels/stable").json()

    assert [each["version"] for each in by_version["model_version_status"]] == ["1"]
    assert by_label == by_version


@pytest.mark.parametrize("path", ["nuts", "fruit/versions/9", "fruit/labels/x", "nuts/metadata"])
def test_status_of_what_is_not_there_is_404(client: httpx.Client, path: str) -> None:
    response = client.get(f"/v1/models/{path}")

    assert response.status_code == 404
    assert response.json()["error"].startswith("Could not find any versions of model ")


def test_models_are_listed_as_kserve_does(client: httpx.Client) -> None:
    assert client.get("/v1/models").json() == {"models": ["fruit", "picture", "review", "fruits"]}


@pytest.mark.parametrize(
    ("model", "dtype", "sizes"),
    [
        ("fruit", "DT_FLOAT", ["-1", "3"]),
        ("picture", "DT_UINT8", ["-1", "8", "8"]),
        ("review", "DT_STRING", ["-1"]),
    ],
)
def test_metadata_describes_one_signature(
    client: httpx.Client, model: str, dtype: str, sizes: list[str]
) -> None:
    metadata = client.get(f"/v1/models/{model}/metadata").json()

    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    tensor = signature["inputs"]["rows"]
    assert metadata["model_spec"]["name"] == model
    assert tensor["dtype"] == dtype
    assert [axis["size"] for axis in tensor["tensor_shape"]["dim"]] == sizes
    assert tensor["name"] == "serving_default_rows:0"
    assert list(signature["outputs"]) == ["probabilities"]
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_path_that_fits_no_pattern_is_malformed(client: httpx.Client) -> None:
    response = client.get("/v1/models/")

    assert response.status_code == 400
    assert response.json() == {"error": "Malformed request: GET /v1/models/"}


def test_compressed_body_is_read_within_the_cap(client: httpx.Client) -> None:
    body = gzip.compress(json.dumps({"instances": [APPLE]}).encode())
    bomb = gzip.compress(b'{"instances":[' + b" " * 1_000_000 + b"[9,0,0]]}")

    read = client.post(PREDICT, content=body, headers={"content-encoding": "gzip"})
    refused = client.post(PREDICT, content=bomb, headers={"content-encoding": "gzip"})
    other = client.post(PREDICT, content=body, headers={"content-encoding": "br"})

    assert read.status_code == 200
    assert refused.status_code == 413
    assert "100,000 bytes" in refused.json()["error"]
    assert other.status_code == 400


def test_body_beyond_the_cap_is_refused_and_the_connection_closed(client: httpx.Client) -> None:
    response = client.post(PREDICT, content=b" " * 100_001)

    assert response.status_code == 413
    assert response.headers["connection"] == "close"
    assert "100,000 bytes" in response.json()["error"]


def test_deadline_that_cannot_be_met_is_status_504(client: httpx.Client) -> None:
    response = post(client, f"{PREDICT}?deadline_ms=0.000001", {"instances": [APPLE]})

    assert response.status_code == 504
    assert response.headers["retry-after"] == "1"


def test_request_id_and_stages_come_back(client: httpx.Client) -> None:
    response = post(client, PREDICT, {"instances": [APPLE]}, **{"x-request-id": "mine-1"})

    assert response.headers.get_list("x-request-id") == ["mine-1"]
    assert re.match(r"decode;dur=\d", response.headers["server-timing"])


def test_requests_are_counted_by_their_protocol(client: httpx.Client) -> None:
    def counted(outcome: str) -> float:
        labels = {"model": "review", "protocol": "v1", "outcome": outcome}
        return value(client, "dunno_requests_total", **labels)

    before = counted("answered"), counted("invalid")

    post(client, "/v1/models/review:predict", {"instances": ["good " * 9]})
    post(client, "/v1/models/review:predict", {"instances": [""]})

    assert (counted("answered"), counted("invalid")) == (before[0] + 1, before[1] + 1)


def test_root_says_that_the_server_is_alive(client: httpx.Client) -> None:
    response = client.get("/")

    assert response.status_code == 200
    assert response.json() == {"status": "alive"}

import base64
import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from counting import value
from numpy.typing import NDArray
from PIL import Image

from service.api.packing import packed

APPLE, PEAR, UNSURE = [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [1.0, 1.0, 1.0]
INFER = "/v2/models/fruit/infer"
REVIEW = "/v2/models/review/infer"
LENGTH = "Inference-Header-Content-Length"
FLOATS = np.array([APPLE, PEAR], np.float32)


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (30, 20), shade).save(stream, "PNG")
    return stream.getvalue()


def texts(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def tensor(data: object, shape: list[int], datatype: str = "FP32") -> dict[str, object]:
    return {"name": "rows", "shape": shape, "datatype": datatype, "data": data}


def post(
    client: httpx.Client, *inputs: object, path: str = INFER, **more: object
) -> httpx.Response:
    return client.post(path, content=json.dumps({"inputs": inputs, **more}).encode())


def post_binary(
    client: httpx.Client,
    content: bytes,
    shape: object,
    datatype: str = "FP32",
    *,
    path: str = INFER,
    size: object = None,
    more: bytes = b"",
    **request: object,
) -> httpx.Response:
    declared = {
        "name": "rows",
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": len(content) if size is None else size},
    }
    head = json.dumps({"inputs": [declared], **request}).encode()
    return client.post(path, content=head + content + more, headers={LENGTH: str(len(head))})


def outputs(response: httpx.Response) -> dict[str, list[Any]]:
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


def best(response: httpx.Response) -> list[int]:
    (output,) = response.json()["outputs"]
    found: list[int] = np.reshape(output["data"], output["shape"]).argmax(axis=1).tolist()
    return found


def split(response: httpx.Response) -> tuple[dict[str, Any], bytes]:
    length = int(response.headers[LENGTH])
    return json.loads(response.content[:length]), response.content[length:]


def test_server_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_server_says_what_it_is(client: httpx.Client, path: str) -> None:
    content = client.get(path).json()

    assert content["name"] == "dunno"
    assert "binary_tensor_data" in content["extensions"]


@pytest.mark.parametrize(
    ("model", "datatype", "shape"),
    [("fruit", "FP32", [-1, 3]), ("picture", "UINT8", [-1, 8, 8]), ("review", "BYTES", [-1])],
)
def test_model_says_what_it_takes(
    client: httpx.Client, model: str, datatype: str, shape: list[int]
) -> None:
    content = client.get(f"/v2/models/{model}").json()

    assert content["name"] == model
    assert content["platform"] == "onnxruntime_onnx"
    assert content["inputs"] == [{"name": "rows", "datatype": datatype, "shape": shape}]


def test_outputs_that_have_to_be_asked_for_are_in_the_metadata(client: httpx.Client) -> None:
    fruit = client.get("/v2/models/fruits/versions/1").json()
    without_novelty = client.get("/v2/models/picture").json()

    assert fruit["versions"] == ["2", "1"]
    assert [(each["name"], each["datatype"]) for each in fruit["outputs"]] == [
        ("probabilities", "FP32"),
        ("verdict", "BYTES"),
        ("label", "BYTES"),
        ("reason", "BYTES"),
        ("confidence", "FP32"),
        ("novelty_p", "FP32"),
    ]
    assert [each["name"] for each in without_novelty["outputs"]][-1] == "confidence"


def test_model_is_ready_by_version(client: httpx.Client) -> None:
    assert client.get("/v2/models/fruit/ready").json() == {"name": "fruit", "ready": True}
    assert client.get("/v2/models/fruits/versions/1/ready").status_code == 200
    assert client.get("/v2/models/fruits/versions/9/ready").status_code == 404


@pytest.mark.parametrize("data", [[*APPLE, *PEAR], [APPLE, PEAR]], ids=["flat", "nested"])
def test_numbers_in_json_are_answered_in_json(client: httpx.Client, data: object) -> None:
    response = post(client, tensor(data, [2, 3]))

    content = response.json()
    assert content["model_name"] == "fruit"
    assert content["model_version"] == "2"
    assert [output["name"] for output in content["outputs"]] == ["probabilities"]
    assert content["outputs"][0]["shape"] == [2, 3]
    assert best(response) == [0, 1]


def test_answers_are_the_native_ones(client: httpx.Client) -> None:
    rows = [[step / 7, (step * 3 % 11) / 3, step % 2] for step in range(50)]
    native = client.post("/predict/fruit?probabilities=list", json={"instances": rows}).json()

    response = post(
        client,
        tensor(rows, [50, 3]),
        outputs=[{"name": name} for name in ("probabilities", "verdict", "label", "reason")],
    )

    found, predictions = outputs(response), native["predictions"]
    assert np.reshape(found["probabilities"], (50, 3)).tolist() == [
        each["probabilities"] for each in predictions
    ]
    assert found["verdict"] == [each["verdict"] for each in predictions]
    assert found["label"] == [each["label"] or "" for each in predictions]
    assert found["reason"] == [each["reason"] or "" for each in predictions]


@pytest.mark.parametrize("identity", ["7", "ü", ""])
def test_id_comes_back_exactly(client: httpx.Client, identity: str) -> None:
    assert post(client, tensor(APPLE, [1, 3]), id=identity).json()["id"] == identity


def test_no_id_comes_back_if_none_was_sent(client: httpx.Client) -> None:
    assert "id" not in post(client, tensor(APPLE, [1, 3])).json()


def test_verdict_is_returned_only_if_asked_for(client: httpx.Client) -> None:
    names = ("verdict", "label", "reason", "confidence", "novelty_p")
    rows = tensor([APPLE, UNSURE], [2, 3])

    plain = outputs(post(client, rows))
    asked = outputs(post(client, rows, outputs=[{"name": name} for name in names]))

    assert list(plain) == ["probabilities"]
    assert list(asked) == list(names)
    assert asked["verdict"] == ["answer", "dont_know"]
    assert asked["label"] == ["apple", ""]
    assert asked["reason"] == ["", "low_confidence"]


def test_bytes_in_and_bytes_out(client: httpx.Client) -> None:
    response = post_binary(
        client, FLOATS.tobytes(), [2, 3], parameters={"binary_data_output": True}
    )

    head, content = split(response)
    (output,) = head["outputs"]
    assert response.headers["content-type"] == "application/octet-stream"
    assert output["parameters"] == {"binary_data_size": 24}
    assert np.frombuffer(content, "<f4").reshape(2, 3).argmax(axis=1).tolist() == [0, 1]


def test_output_says_for_itself_whether_it_comes_as_bytes(client: httpx.Client) -> None:
    asked = [
        {"name": "probabilities", "parameters": {"binary_data": False}},
        {"name": "label"},
        {"name": "confidence", "parameters": {"binary_data": True}},
    ]

    response = post_binary(
        client,
        *(FLOATS.tobytes(), [2, 3]),
        outputs=asked,
        parameters={"binary_data_output": True},
    )

    head, content = split(response)
    assert ["data" in output for output in head["outputs"]] == [True, False, False]
    assert content == texts(b"apple", b"pear") + content[-8:]


def test_body_of_one_input_alone_is_answered_in_bytes(client: httpx.Client) -> None:
    features = client.post(INFER, content=FLOATS[:1].tobytes(), headers={LENGTH: "0"})
    pixels = client.post(
        "/v2/models/picture/infer", content=bytes([250] * 64), headers={LENGTH: "0"}
    )
    text = client.post("/v2/models/review/infer", content=b"good good", headers={LENGTH: "0"})

    found = [np.frombuffer(split(each)[1], "<f4").argmax() for each in (features, pixels, text)]
    assert found == [0, 1, 1]


@pytest.mark.parametrize(
    ("rows", "datatype"),
    [
        pytest.param(FLOATS.astype("<f8"), "FP64", id="double precision"),
        pytest.param(FLOATS.astype("<f2"), "FP16", id="half precision"),
        pytest.param(FLOATS.astype("<i8"), "INT64", id="whole numbers"),
        pytest.param(FLOATS.astype("u1"), "UINT8", id="bytes"),
    ],
)
def test_numbers_that_convert_without_loss_are_taken(
    client: httpx.Client, rows: NDArray[np.generic], datatype: str
) -> None:
    response = post_binary(client, rows.tobytes(), [2, 3], datatype)

    assert response.status_code == 200, response.text
    assert best(response) == [0, 1]


@pytest.mark.parametrize(
    ("row", "datatype", "got"),
    [
        pytest.param(np.array([[1e300, 0, 0]], "<f8"), "FP64", "[0][0]: ", id="beyond float32"),
        pytest.param(np.array([[0, 0, 2**24 + 1]], "<i8"), "INT64", "16777217", id="odd"),
        pytest.param(np.array([[0, 2**63 - 1, 0]], "<i8"), "INT64", "[0][1]: ", id="largest"),
    ],
)
def test_numbers_that_would_lose_are_refused_by_their_place(
    client: httpx.Client, row: NDArray[np.generic], datatype: str, got: str
) -> None:
    response = post_binary(client, row.tobytes(), [1, 3], datatype)

    assert response.status_code == 400
    assert "FP32" in response.json()["error"]
    assert got in response.json()["error"]


def test_truths_are_ones_and_zeros_of_features_and_white_and_black_of_pictures(
    client: httpx.Client,
) -> None:
    mask = np.array([np.ones((8, 8)), np.zeros((8, 8))], bool)

    features = post_binary(client, b"\1\0\1", [1, 3], "BOOL")
    numbers = post_binary(client, np.array([1, 0, 1], "<f4").tobytes(), [1, 3], "FP32")
    pictures = post_binary(
        client, mask.tobytes(), [2, 8, 8], "BOOL", path="/v2/models/picture/infer"
    )

    assert features.json()["outputs"] == numbers.json()["outputs"]
    assert best(pictures) == [1, 0]


@pytest.mark.parametrize("shape", [[2, 8, 8], [2, 8, 8, 1]])
@pytest.mark.parametrize(("dtype", "datatype"), [("<f4", "FP32"), ("u1", "UINT8")])
def test_pixels_are_taken_in_either_shape_and_type(
    client: httpx.Client, shape: list[int], dtype: str, datatype: str
) -> None:
    pixels = np.stack([np.full((8, 8), 250), np.full((8, 8), 5)]).astype(dtype)

    response = post_binary(
        client, pixels.tobytes(), shape, datatype, path="/v2/models/picture/infer"
    )

    assert response.status_code == 200, response.text
    assert best(response) == [1, 0]


def test_pixel_out_of_range_is_refused_by_its_place(client: httpx.Client) -> None:
    pixels = np.full((1, 8, 8), 250, "<f4")
    pixels[0, 2, 3] = 0.5

    response = post_binary(client, pixels.tobytes(), [1, 8, 8], path="/v2/models/picture/infer")

    assert response.status_code == 400
    assert "rows[0][2][3]: expected a whole number 0-255, got 0.5" in response.json()["error"]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_encoded_pictures_are_elements_of_bytes(client: httpx.Client, shape: list[int]) -> None:
    content = texts(picture(250), picture(5))

    response = post_binary(client, content, shape, "BYTES", path="/v2/models/picture/infer")

    assert response.status_code == 200, response.text
    assert best(response) == [1, 0]


def test_encoded_picture_in_json_is_base64(client: httpx.Client) -> None:
    encoded = base64.b64encode(picture(250)).decode()

    response = post(client, tensor([encoded], [1], "BYTES"), path="/v2/models/picture/infer")

    assert best(response) == [1]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_texts_are_elements_of_bytes(client: httpx.Client, shape: list[int]) -> None:
    path = "/v2/models/review/infer"

    binary = post_binary(client, texts(b"good", b"bad film"), shape, "BYTES", path=path)
    in_json = post(client, tensor(["good", "bad film"], shape, "BYTES"), path=path)

    assert binary.json() == in_json.json()
    assert best(binary)[0] == 1


def test_best_labels_come_as_texts_with_classification(client: httpx.Client) -> None:
    asked = [{"name": "probabilities", "parameters": {"classification": 2}}]

    content = post(client, tensor([[1, 3, 2], APPLE], [2, 3]), outputs=asked).json()

    (output,) = content["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"][0] == "0.665241:1:pear"
    assert output["data"][2].endswith(":0:apple")


def test_classification_gives_no_more_labels_than_there_are(client: httpx.Client) -> None:
    asked = [{"name": "probabilities", "parameters": {"classification": 1 << 40}}]

    content = post(client, tensor(APPLE, [1, 3]), outputs=asked).json()

    assert content["outputs"][0]["shape"] == [1, 3]


def test_request_may_be_stricter_by_parameter(client: httpx.Client) -> None:
    row, asked = tensor([6, 1, 1], [1, 3]), [{"name": "label"}]

    labels = [
        outputs(post(client, row, outputs=asked, parameters=parameters))["label"]
        for parameters in ({"max_error": 0.01}, {"max_error": 0.001}, {"min_confidence": 0.99})
    ]

    assert labels == [["apple"], [""], [""]]


def test_double_is_rounded_as_on_the_native_route(client: httpx.Client) -> None:
    row = [7.4, 0.66, 0.1]
    native = client.post("/predict/fruit", json={"instances": [row]}).json()["predictions"][0]

    in_json = post(client, tensor(row, [1, 3], "FP64"))
    in_bytes = post_binary(client, np.array([row], "<f8").tobytes(), [1, 3], "FP64")

    for response in (in_json, in_bytes):
        found = response.json()["outputs"][0]["data"]
        assert found == list(native["probabilities"].values())


GOOD = base64.b64encode(b"good good").decode()


@pytest.mark.parametrize(
    ("parameters", "of_request"),
    [
        pytest.param({"content_type": "base64"}, {}, id="of the input"),
        pytest.param({}, {"content_type": "base64"}, id="of the request"),
        pytest.param({"content_type": "base64"}, {"content_type": "str"}, id="of both"),
    ],
)
def test_text_in_base64_is_decoded_where_the_content_type_says_so(
    client: httpx.Client, parameters: dict[str, object], of_request: dict[str, object]
) -> None:
    content = {**tensor([GOOD], [1], "BYTES"), "parameters": parameters}
    plain = post(client, tensor(["good good"], [1], "BYTES"), path=REVIEW)

    response = post(client, content, path=REVIEW, parameters=of_request)

    assert response.status_code == 200, response.text
    assert response.json()["outputs"] == plain.json()["outputs"]


def test_bytes_in_base64_are_decoded_where_the_content_type_says_so(client: httpx.Client) -> None:
    packed = texts(GOOD.encode())
    parameters = {"content_type": "base64", "binary_data_size": len(packed)}
    head = {"name": "rows", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    content = json.dumps({"inputs": [head]}).encode()

    response = client.post(REVIEW, content=content + packed, headers={LENGTH: str(len(content))})

    plain = post(client, tensor(["good good"], [1], "BYTES"), path=REVIEW)
    assert response.json()["outputs"] == plain.json()["outputs"]


@pytest.mark.parametrize(
    ("path", "content", "content_type"),
    [
        pytest.param(INFER, tensor(APPLE, [1, 3]), "np", id="numbers of numpy"),
        pytest.param(INFER, tensor(APPLE, [1, 3]), "pd", id="numbers of pandas"),
        pytest.param(REVIEW, tensor(["good"], [1], "BYTES"), "str", id="texts"),
        pytest.param(REVIEW, tensor(["good"], [1, 1], "BYTES"), "np", id="texts of numpy"),
    ],
)
def test_content_type_that_changes_nothing_is_taken(
    client: httpx.Client, path: str, content: dict[str, object], content_type: str
) -> None:
    content = {**content, "parameters": {"content_type": content_type}}

    response = post(client, content, path=path, parameters={"content_type": content_type})

    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "content", "parameters", "expected"),
    [
        pytest.param(
            INFER,
            tensor(APPLE, [1, 3]),
            {"content_type": "base64"},
            "inputs[0].parameters.content_type: expected one of np, pd, or none, got the string 'b",
            id="numbers in base64",
        ),
        pytest.param(
            REVIEW,
            tensor(["good"], [1], "BYTES"),
            {"content_type": "hg_json"},
            "expected one of str, np, pd, base64, or none, got the string 'hg_json'",
            id="JSON in texts",
        ),
        pytest.param(
            REVIEW,
            tensor(["good"], [1], "BYTES"),
            {"content_type": ["str"]},
            "or none, got a list of 1",
            id="no text",
        ),
        pytest.param(
            REVIEW,
            tensor(["good"], [1], "BYTES"),
            {"encoding": "base64"},
            "inputs[0].parameters.encoding: expected no such parameter",
            id="another name",
        ),
        pytest.param(
            INFER,
            tensor(APPLE, [1, 3]),
            {"shared_memory_region": "a"},
            "inputs[0].parameters.shared_memory_region: expected no such parameter",
            id="shared memory beside data",
        ),
        pytest.param(
            REVIEW,
            tensor(["?"], [1], "BYTES"),
            {"content_type": "base64"},
            "inputs[0].data[0]: expected base64",
            id="no base64",
        ),
    ],
)
def test_parameter_that_gives_data_another_meaning_is_refused(
    client: httpx.Client,
    path: str,
    content: dict[str, object],
    parameters: dict[str, object],
    expected: str,
) -> None:
    response = post(client, {**content, "parameters": parameters}, path=path)

    assert response.status_code == 400
    assert expected in response.json()["error"]


def test_content_type_of_an_output_that_would_change_it_is_refused(client: httpx.Client) -> None:
    taken, refused = (
        {"name": "probabilities", "parameters": {"content_type": content_type}}
        for content_type in ("np", "base64")
    )

    assert post(client, tensor(APPLE, [1, 3]), outputs=[taken]).status_code == 200
    response = post(client, tensor(APPLE, [1, 3]), outputs=[refused])
    assert response.status_code == 400
    assert "outputs[0].parameters.content_type: expected one of np" in response.json()["error"]


def test_parameters_that_are_not_ours_pass(client: httpx.Client) -> None:
    parameters = {"priority": 1, "sequence_id": 7, "timeout": 0, "mine": "x"}

    assert post(client, tensor(APPLE, [1, 3]), parameters=parameters).status_code == 200


def test_timeout_in_microseconds_is_a_deadline(client: httpx.Client) -> None:
    response = post(client, tensor([APPLE] * 200, [200, 3]), parameters={"timeout": 1})

    assert response.status_code == 504
    assert response.headers["retry-after"] == "1"


HEAD = json.dumps({"inputs": [tensor(APPLE, [1, 3])]}).encode()


@pytest.mark.parametrize(
    ("length", "expected", "got"),
    [
        ("-1", "a number of bytes", "'-1'"),
        ("many", "a number of bytes", "'many'"),
        ("", "a number of bytes", "''"),
        ("1e1", "a number of bytes", "'1e1'"),
        ("99999", f"at most the {len(HEAD)} bytes", "99999"),
        ("9" * 4000, f"at most the {len(HEAD)} bytes", "9999"),
        (str(len(HEAD) - 1), "JSON", "none"),
        ("0", "12 bytes for FP32 of shape [1, 3]", str(len(HEAD))),
    ],
)
def test_length_of_the_head_that_does_not_fit_is_refused(
    client: httpx.Client, length: str, expected: str, got: str
) -> None:
    response = client.post(INFER, content=HEAD, headers={LENGTH: length})

    assert response.status_code == 400
    assert response.json().keys() == {"error"}
    assert expected in response.json()["error"]
    assert got in response.json()["error"]


BYTES_12 = FLOATS[:1].tobytes()
BAD_FRAMES = [
    pytest.param(BYTES_12[:-1], [1, 3], {}, "12 bytes for FP32", "got 11", id="too short"),
    pytest.param(BYTES_12 + b"x", [1, 3], {}, "12 bytes for FP32", "got 13", id="too long"),
    pytest.param(BYTES_12, [1, 3], {"size": 24}, "12 bytes behind", "got 24", id="beyond the end"),
    pytest.param(BYTES_12, [1, 3], {"size": 8}, "12 bytes for FP32", "got 8", id="less than there"),
    pytest.param(BYTES_12, [1, 3], {"more": b"xyz"}, "12 bytes behind", "got 15", id="trailing"),
    pytest.param(BYTES_12, [1, 3], {"size": -12}, "from 0 on", "got -12", id="negative size"),
    pytest.param(BYTES_12, [1, 3], {"size": "12"}, "from 0 on", "'12'", id="size as text"),
    pytest.param(BYTES_12, [1, 3], {"size": True}, "from 0 on", "true", id="size as truth"),
    pytest.param(BYTES_12, [-1, 3], {}, "inputs[0].shape[0]", "got -1", id="negative length"),
    pytest.param(BYTES_12, [-1, -3], {}, "inputs[0].shape[0]", "got -1", id="two negative"),
    pytest.param(BYTES_12, [0, 3], {}, "inputs[0].shape[0]", "got 0", id="no rows"),
    pytest.param(BYTES_12, [1.0, 3], {}, "inputs[0].shape[0]", "got 1.0", id="decimal length"),
    pytest.param(BYTES_12, [True, 3], {}, "inputs[0].shape[0]", "got true", id="true as length"),
    pytest.param(BYTES_12, [1 << 62, 4], {}, "bytes for FP32", "got 12", id="overflow"),
    pytest.param(BYTES_12, [1 << 63, 1 << 63], {}, "bytes for FP32", "got 12", id="overflow to 0"),
    pytest.param(BYTES_12, [], {}, "inputs[0].shape", "a list of 0", id="no shape"),
    pytest.param(BYTES_12, 3, {}, "inputs[0].shape", "got 3", id="number as shape"),
    pytest.param(BYTES_12, [3], {}, "[rows, 3]", "[3]", id="no axis of rows"),
    pytest.param(BYTES_12, [3, 1], {}, "[rows, 3]", "[3, 1]", id="turned shape"),
    pytest.param(BYTES_12, [1, 3, 1], {}, "[rows, 3]", "[1, 3, 1]", id="axis too many"),
    pytest.param(BYTES_12, [1, 3], {"datatype": "FP8"}, "datatype", "'FP8'", id="datatype"),
    pytest.param(BYTES_12, [1], {"datatype": "BYTES"}, "at most the 8 bytes", "got", id="BYTES"),
    pytest.param(texts(b"ab"), [1], {"datatype": "BYTES"}, "FP32", "got BYTES", id="no files"),
    pytest.param(texts(b"ab"), [2], {"datatype": "BYTES"}, "2 elements", "6 bytes", id="few texts"),
    pytest.param(
        texts(b"a", b"b"), [1], {"datatype": "BYTES"}, "nothing behind", "5 bytes more", id="many"
    ),
    pytest.param(
        *(texts(b"abc") + b"x", [2], {"datatype": "BYTES"}, "inputs[0][1]", "got the end"),
        id="half a length",
    ),
    pytest.param(
        np.array([[1, np.nan, 0]], "<f4").tobytes(), [1, 3], {}, "rows[0].sour", "nan", id="NaN"
    ),
]


@pytest.mark.parametrize(("content", "shape", "how", "expected", "got"), BAD_FRAMES)
def test_bad_frame_is_an_error_that_names_the_field(
    client: httpx.Client,
    content: bytes,
    shape: object,
    how: dict[str, Any],
    expected: str,
    got: str,
) -> None:
    response = post_binary(client, content, shape, **how)

    assert response.status_code == 400, response.text
    assert response.json().keys() == {"error"}
    assert expected in response.json()["error"]
    assert got in response.json()["error"]


BAD_REQUESTS = [
    pytest.param([], "body", "a list of 0", id="list"),
    pytest.param({}, "inputs", "null", id="no inputs"),
    pytest.param({"inputs": []}, "inputs", "a list of 0", id="empty inputs"),
    pytest.param({"inputs": [7]}, "inputs[0]", "got 7", id="number as input"),
    pytest.param({"inputs": [{"shape": [1]}]}, "inputs[0].name", "null", id="no name"),
    pytest.param({"inputs": [{**tensor(APPLE, [1, 3]), "name": "x"}]}, "'rows'", "'x'", id="name"),
    pytest.param({"inputs": [tensor(APPLE, [1, 3])] * 2}, "the one input", "'rows', ", id="twice"),
    pytest.param(
        {"inputs": [{"name": "rows", "shape": [1, 3], "datatype": "FP32"}]},
        *("either data or", "neither"),
        id="no data",
    ),
    pytest.param(
        {"inputs": [{**tensor(APPLE, [1, 3]), "parameters": {"binary_data_size": 0}}]},
        *("either data or", "both"),
        id="data twice",
    ),
    pytest.param({"inputs": [{**tensor([], [1]), "parameters": 7}]}, "parameters", "7", id="p"),
    pytest.param({"inputs": [tensor(APPLE, [2, 3])]}, "6 elements", "got 3", id="too few numbers"),
    pytest.param({"inputs": [tensor([APPLE, [1]], [2, 3])]}, "nested", "a list of 1", id="ragged"),
    pytest.param({"inputs": [tensor(["1"] * 3, [1, 3])]}, "data[0]", "'1'", id="text as number"),
    pytest.param({"inputs": [tensor(APPLE, [1, 3], "FP16")]}, "binary form", "JSON", id="FP16"),
    pytest.param({"id": 7, "inputs": []}, "id", "got 7", id="number as id"),
    pytest.param({"parameters": [], "inputs": []}, "parameters", "a list", id="parameters"),
    pytest.param(
        {"parameters": {"binary_data_output": 1}, "inputs": []}, "true or false", "1", id="flag"
    ),
    pytest.param({"outputs": 7, "inputs": []}, "outputs", "got 7", id="outputs"),
    pytest.param({"outputs": [{}], "inputs": []}, "outputs[0]", "0 keys", id="output unnamed"),
]
BAD_QUESTIONS = [
    pytest.param({"outputs": [{"name": "x"}]}, "one of probabilities", "'x'", id="unknown"),
    pytest.param({"outputs": [{"name": "label"}] * 2}, "each output once", "label", id="twice"),
    pytest.param(
        {"outputs": [{"name": "label", "parameters": {"classification": 1}}]},
        *("probabilities", "label"),
        id="classes of labels",
    ),
    pytest.param(
        {"outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]},
        *("from 1 on", "-1"),
        id="negative classes",
    ),
    pytest.param(
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": "yes"}}]},
        *("true or false", "'yes'"),
        id="binary in words",
    ),
    pytest.param({"parameters": {"max_error": 0}}, "above 0", "got 0", id="no risk"),
    pytest.param({"parameters": {"max_error": 1e-9}}, "certified risks", "1e-09", id="low risk"),
    pytest.param({"parameters": {"min_confidence": "1"}}, "a number", "'1'", id="text"),
    pytest.param({"parameters": {"min_confidence": 0.2}}, "at least 0.9", "0.2", id="looser"),
    pytest.param({"parameters": {"timeout": -1}}, "microseconds", "-1", id="timeout"),
]


@pytest.mark.parametrize(("content", "expected", "got"), BAD_REQUESTS)
def test_bad_request_names_the_field(
    client: httpx.Client, content: object, expected: str, got: str
) -> None:
    response = client.post(INFER, content=json.dumps(content).encode())

    assert response.status_code == 400, response.text
    assert expected in response.json()["error"]
    assert got in response.json()["error"]


@pytest.mark.parametrize(("content", "expected", "got"), BAD_QUESTIONS)
def test_bad_question_names_the_field(
    client: httpx.Client, content: dict[str, Any], expected: str, got: str
) -> None:
    response = post(client, tensor(APPLE, [1, 3]), **content)

    assert response.status_code == 400, response.text
    assert expected in response.json()["error"]
    assert got in response.json()["error"]


def test_too_many_rows_are_status_413(client: httpx.Client) -> None:
    rows = np.zeros((201, 3), "<f4")

    response = post_binary(client, rows.tobytes(), [201, 3])

    assert response.status_code == 413
    assert "200 rows" in response.json()["error"]


def test_two_pictures_a_row_are_refused(client: httpx.Client) -> None:
    content = texts(picture(5), picture(5))

    response = post_binary(client, content, [1, 2], "BYTES", path="/v2/models/picture/infer")

    assert response.status_code == 400
    assert "expected [rows] or [rows, 1], got [1, 2]" in response.json()["error"]


def test_numbers_are_no_texts(client: httpx.Client) -> None:
    response = post(client, tensor(APPLE, [1, 3]), path="/v2/models/review/infer")

    assert response.status_code == 400
    assert "expected BYTES, got FP32" in response.json()["error"]


@pytest.mark.anyio
async def test_huge_answer_is_compressed_as_well() -> None:
    content = bytes(100_000)

    assert gzip.decompress(await packed(content, "gzip")) == content


def test_picture_that_does_not_decode_is_refused_by_its_place(client: httpx.Client) -> None:
    content = texts(picture(5), b"rubbish")

    response = post_binary(client, content, [2], "BYTES", path="/v2/models/picture/infer")

    assert response.status_code == 400
    assert "inputs[0].data[1]: expected a picture" in response.json()["error"]


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_lengths_are_those_of_the_body_when_it_is_unpacked(
    client: httpx.Client, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    declared = {**tensor(None, [2, 3]), "parameters": {"binary_data_size": 24}}
    del declared["data"]
    head = json.dumps({"inputs": [declared]}).encode()
    body = compress(head + FLOATS.tobytes())

    headers = {LENGTH: str(len(head)), "content-encoding": coding}
    response = client.post(INFER, content=body, headers=headers)

    assert response.status_code == 200, response.text
    assert best(response) == [0, 1]


@pytest.mark.parametrize(
    ("body", "coding", "status"),
    [
        pytest.param(gzip.compress(bytes(1_000_000)), "gzip", 413, id="bomb"),
        pytest.param(b"rubbish", "gzip", 400, id="not compressed"),
        pytest.param(gzip.compress(HEAD)[:-9], "gzip", 400, id="cut off"),
        pytest.param(HEAD, "br", 415, id="another coding"),
    ],
)
def test_compressed_body_that_cannot_be_read_is_refused(
    client: httpx.Client, body: bytes, coding: str, status: int
) -> None:
    response = client.post(INFER, content=body, headers={"content-encoding": coding})

    assert response.status_code == status
    assert response.json().keys() == {"error"}


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_large_answer_is_compressed_if_the_caller_takes_that(
    client: httpx.Client, coding: str
) -> None:
    rows = tensor([APPLE] * 200, [200, 3])
    body = json.dumps({"inputs": [rows]}).encode()

    packed = client.post(INFER, content=body, headers={"accept-encoding": coding})
    plain = client.post(INFER, content=body, headers={"accept-encoding": f"{coding};q=0, br"})

    assert packed.headers["content-encoding"] == coding
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()


def test_small_answer_is_sent_as_it_is(client: httpx.Client) -> None:
    response = client.post(INFER, content=HEAD, headers={"accept-encoding": "gzip"})

    assert "content-encoding" not in response.headers


def test_index_lists_versions_and_their_state(client: httpx.Client) -> None:
    everything = client.post("/v2/repository/index").json()
    ready = client.post("/v2/repository/index", content=b'{"ready": true}').json()

    assert everything == ready
    assert {"name": "fruits", "version": "1", "state": "READY", "reason": ""} in everything
    assert len(everything) == 5


@pytest.mark.parametrize("body", [b"{", b"7", b'{"ready": "yes"}'])
def test_bad_question_to_the_index_is_refused(client: httpx.Client, body: bytes) -> None:
    assert client.post("/v2/repository/index", content=body).status_code == 400


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_models_are_not_loaded_or_unloaded_on_this_address(client: httpx.Client, verb: str) -> None:
    response = client.post(f"/v2/repository/models/fruit/{verb}", content=b"{}")

    assert response.status_code == 404
    assert "admin address" in response.json()["error"]


def test_statistics_grow_with_requests_and_rows(client: httpx.Client) -> None:
    path = "/v2/models/picture/stats"
    (before,) = client.get(path).json()["model_stats"]

    post_binary(client, bytes(128), [2, 8, 8], "UINT8", path="/v2/models/picture/infer")
    post_binary(client, bytes(1), [2, 8, 8], "UINT8", path="/v2/models/picture/infer")

    (after,) = client.get(path).json()["model_stats"]
    grown = {name: after[name] - before[name] for name in ("inference_count", "execution_count")}
    assert grown == {"inference_count": 2, "execution_count": 1}
    for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        counts = [each["inference_stats"][name]["count"] for each in (before, after)]
        assert counts[1] == counts[0] + 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert after["last_inference"] > 1_600_000_000_000


def test_statistics_of_all_models_come_together(client: httpx.Client) -> None:
    names = [each["name"] for each in client.get("/v2/models/stats").json()["model_stats"]]

    assert names == ["fruit", "picture", "review", "fruits", "fruits"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nuts", 404),
        ("/v2/models/nuts/ready", 404),
        ("/v2/models/nuts/stats", 404),
        ("/v2/models/fruit/versions/9", 404),
        ("/v2/models/fruit/config", 404),
        ("/v2/nowhere", 404),
        ("/v2/models/fruit/infer", 405),
        ("/v2/repository/index", 405),
    ],
)
def test_wrong_path_or_method_is_an_error(client: httpx.Client, path: str, status: int) -> None:
    response = client.get(path)

    assert response.status_code == status
    assert response.json().keys() == {"error"}


def test_unknown_model_or_version_is_status_404(client: httpx.Client) -> None:
    for model in ("nuts", "fruit/versions/9", "fruit/versions/one"):
        response = post(client, tensor(APPLE, [1, 3]), path=f"/v2/models/{model}/infer")

        assert response.status_code == 404
        assert response.json().keys() == {"error"}


def test_requests_are_counted_by_their_protocol(client: httpx.Client) -> None:
    def counted(outcome: str) -> float:
        labels = {"model": "review", "protocol": "v2", "outcome": outcome}
        return value(client, "dunno_requests_total", **labels)

    before = counted("answered"), counted("invalid")

    for text in ("good " * 9, ""):
        post(client, tensor([text], [1], "BYTES"), path="/v2/models/review/infer")

    assert (counted("answered"), counted("invalid")) == (before[0] + 1, before[1] + 1)

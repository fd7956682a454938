"""The protocol as its most common client speaks it: NVIDIA's, with all its defaults."""

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

ROWS = np.array([[9, 0, 0], [1, 1, 1]], np.float32)
TYPES = {"float32": "FP32", "uint8": "UINT8", "object": "BYTES", "float64": "FP64"}


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    client = triton.InferenceServerClient(urlsplit(address).netloc)
    yield client
    client.close()


def rows(values: NDArray[Any], *, is_binary: bool = True) -> list[Any]:
    tensor = triton.InferInput("rows", values.shape, TYPES[str(values.dtype)])
    return [tensor.set_data_from_numpy(values, binary_data=is_binary)]


def asked(*names: str, is_binary: bool = True, **more: int) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=is_binary, **more) for name in names]


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (30, 20), shade).save(stream, "PNG")
    return stream.getvalue()


def test_server_and_models_are_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fruit")
    assert client.is_model_ready("fruits", "1")
    assert not client.is_model_ready("nuts")


def test_metadata_is_read(client: Any) -> None:
    server, model = client.get_server_metadata(), client.get_model_metadata("fruits", "1")

    assert server["name"] == "dunno"
    assert model["inputs"] == [{"name": "rows", "datatype": "FP32", "shape": [-1, 3]}]
    assert model["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_rows_are_answered_with_the_client_s_defaults(client: Any, *, is_binary: bool) -> None:
    result = client.infer("fruit", rows(ROWS, is_binary=is_binary), request_id="mine-7")

    probabilities = result.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (2, 3)
    assert probabilities[0].argmax() == 0
    assert result.get_response()["id"] == "mine-7"
    assert result.get_response()["model_version"] == "2"


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_verdicts_are_outputs_like_any_other(client: Any, *, is_binary: bool) -> None:
    names = ("probabilities", "verdict", "label", "reason", "confidence", "novelty_p")

    result = client.infer("fruit", rows(ROWS), outputs=asked(*names, is_binary=is_binary))

    found = {name: result.as_numpy(name) for name in names}
    expected = ["answer", "dont_know"]
    assert found["verdict"].tolist() == (
        [text.encode() for text in expected] if is_binary else expected
    )
    assert [len(values) for values in found.values()] == [2] * len(names)
    assert found["confidence"].tolist() == found["probabilities"].max(axis=1).tolist()


def test_verdicts_in_binary_form_are_bytes(client: Any) -> None:
    result = client.infer("fruit", rows(ROWS), outputs=asked("label", "reason"))

    assert result.as_numpy("label").tolist() == [b"apple", b""]
    assert result.as_numpy("reason").tolist() == [b"", b"low_confidence"]


def test_pictures_travel_as_bytes(client: Any) -> None:
    pictures = np.array([picture(250), picture(5)], np.object_)

    result = client.infer("picture", rows(pictures))

    assert result.as_numpy("probabilities").argmax(axis=1).tolist() == [1, 0]


def test_pixels_travel_as_numbers(client: Any) -> None:
    pixels = np.stack([np.full((8, 8), shade, np.uint8) for shade in (250, 5)])

    result = client.infer("picture", rows(pixels))

    assert result.as_numpy("probabilities").argmax(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_texts_travel_as_bytes(client: Any, *, is_binary: bool) -> None:
    texts = np.array([["good good"], ["bad film"]], np.object_)

    result = client.infer("review", rows(texts, is_binary=is_binary))

    assert result.as_numpy("probabilities").argmax(axis=1).tolist()[0] == 1


def test_best_labels_are_ranked(client: Any) -> None:
    result = client.infer("fruit", rows(ROWS[:1]), outputs=asked("probabilities", class_count=2))

    best, second = result.as_numpy("probabilities")[0].tolist()
    assert best == b"0.999753:0:apple"
    assert second.startswith(b"0.000123:")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_both_directions_may_be_compressed(client: Any, coding: str, *, is_binary: bool) -> None:
    many = np.repeat(ROWS, 100, axis=0)
    plain = client.infer("fruit", rows(many)).as_numpy("probabilities")

    packed = client.infer(
        "fruit",
        rows(many, is_binary=is_binary),
        outputs=asked("probabilities", is_binary=is_binary),
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )

    np.testing.assert_array_equal(packed.as_numpy("probabilities"), plain)


def test_parameters_make_terms_stricter(client: Any) -> None:
    row = np.array([[6, 1, 1]], np.float32)

    labels = [
        client.infer("fruit", rows(row), outputs=asked("label"), parameters=parameters)
        .as_numpy("label")
        .tolist()
        for parameters in (None, {"max_error": 0.001}, {"min_confidence": 0.99})
    ]

    assert labels == [[b"apple"], [b""], [b""]]


def test_timeout_that_cannot_be_met_is_status_504(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("fruit", rows(np.repeat(ROWS, 100, axis=0)), timeout=1)

    assert caught.value.status() == "504"


def test_index_lists_what_is_served(client: Any) -> None:
    index = client.get_model_repository_index()

    assert {"name": "fruits", "version": "1", "state": "READY", "reason": ""} in index


def test_statistics_are_read(client: Any) -> None:
    client.infer("fruit", rows(ROWS))

    (of_one,) = client.get_inference_statistics("fruit")["model_stats"]
    of_all = client.get_inference_statistics()["model_stats"]

    assert of_one["inference_stats"]["success"]["count"] >= 1
    assert of_one["execution_count"] >= 1
    assert len(of_all) == 5


def test_loading_needs_another_address(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="admin address"):
        client.load_model("fruit")


def test_error_is_the_text_of_the_server(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("fruit", rows(np.array([[1e300, 0, 0]], np.float64)))

    assert caught.value.status() == "400"
    assert "numbers that FP32 holds without loss" in caught.value.message()


def test_unknown_model_is_status_404(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("nuts", rows(ROWS))

    assert caught.value.status() == "404"


def test_requests_of_many_threads_get_their_own_answers(address: str) -> None:
    client = triton.InferenceServerClient(urlsplit(address).netloc, concurrency=8)
    batches = [np.roll(ROWS[:1], shift, axis=1).repeat(shift + 1, axis=0) for shift in range(3)]

    waiting = [
        (shift, client.async_infer("fruit", rows(batches[shift])))
        for _ in range(20)
        for shift in range(3)
    ]

    for shift, request in waiting:
        probabilities = request.get_result().as_numpy("probabilities")
        assert probabilities.argmax(axis=1).tolist() == [shift] * (shift + 1)
    client.close()

"""Rows told as what a caller would send."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import fruit_bundle, picture_bundle, review_bundle
from numpy.typing import NDArray

from service.bundle import Bundle
from service.bundle.manifest import FeatureField, FeatureInput
from service.inputs import (
    BodyExample,
    Decoder,
    InputLimits,
    Payload,
    bodies_of,
    create_decoder,
    instances_of,
)
from service.inputs.examples import MOST_NUMBERS, MOST_PICTURE_BYTES, body_of

LIMITS = InputLimits(100, 100, 100)


def decoder_of(bundle: Bundle) -> Decoder:
    return create_decoder(bundle, LIMITS)


def test_numbers_are_told_by_their_shortest_text(tmp_path: Path) -> None:
    rows = np.array([[0.1, -3.0, 7.4]], np.float32)

    assert instances_of(rows, decoder_of(fruit_bundle(tmp_path))) == [[0.1, -3.0, 7.4]]


def test_missing_number_is_told_as_null(tmp_path: Path) -> None:
    rows = np.array([[1, np.nan, 3]], np.float32)

    assert instances_of(rows, decoder_of(fruit_bundle(tmp_path))) == [[1.0, None, 3.0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_is_told_as_lists_of_pixels_that_are_read_back(
    tmp_path: Path, channels: int
) -> None:
    decoder = decoder_of(picture_bundle(tmp_path, channels=channels))
    shape = (2, 8, 8, 3) if channels == 3 else (2, 8, 8)
    rows = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.uint8)

    instances = instances_of(rows, decoder)

    payload = Payload(b"", "application/json")
    np.testing.assert_array_equal(
        decoder.decode_instances(instances, "instances", payload).rows, rows
    )


def test_text_is_told_so_that_it_is_read_back(tmp_path: Path) -> None:
    decoder = decoder_of(review_bundle(tmp_path))
    payload = Payload(b"Good, good film: unheard of bad!", "text/plain")
    rows = decoder.decode(payload).rows

    (text,) = instances_of(rows, decoder)

    assert text == "good good film xx xx bad xx"


def test_row_that_no_plain_text_has_is_not_told(tmp_path: Path) -> None:
    decoder = decoder_of(review_bundle(tmp_path))
    rows = np.full((1, 16), 99, np.int32)

    assert instances_of(rows, decoder) == [None]


def test_only_so_many_rows_are_told_as_are_quick_to_send(tmp_path: Path) -> None:
    rows = np.zeros((8, MOST_NUMBERS // 2 - 1), np.float32)

    assert len(instances_of(rows, decoder_of(fruit_bundle(tmp_path)))) == 2


def bodies(bundle: Bundle, row: NDArray[np.generic]) -> dict[str, BodyExample]:
    found = bodies_of(row, bundle.manifest.input, decoder_of(bundle))
    return {example.form: example for example in found}


def test_row_of_features_is_told_by_name_in_order_and_as_a_table(tmp_path: Path) -> None:
    found = bodies(fruit_bundle(tmp_path), np.array([0.1, -3, 7.4], np.float32))

    assert found["json"].value == {"instances": [{"sweet": 0.1, "sour": -3.0, "firm": 7.4}]}
    assert found["json-in-order"].value == {"instances": [[0.1, -3.0, 7.4]]}
    assert found["csv"].value == "sweet,sour,firm\n0.1,-3.0,7.4\n"
    assert all(example.is_exact for example in found.values() if example.value is not None)


def test_every_media_type_of_a_model_has_a_body(tmp_path: Path) -> None:
    made = (fruit_bundle(tmp_path), picture_bundle(tmp_path), review_bundle(tmp_path))
    rows: tuple[NDArray[Any], ...]
    rows = (np.ones(3, np.float32), np.ones((8, 8), np.uint8), np.array([3] + [0] * 15, np.int32))

    told = [
        {example.media_type for example in bodies(bundle, row).values()}
        for bundle, row in zip(made, rows, strict=True)
    ]

    assert told == [set(decoder_of(bundle).media_types) for bundle in made]


@pytest.mark.parametrize(
    "name", [pytest.param('a "b", c;d', id="separators"), pytest.param("ü\nz", id="line break")]
)
def test_table_is_read_back_whatever_its_columns_are_called(tmp_path: Path, name: str) -> None:
    fields = (FeatureField(name=name, nullable=True), *(FeatureField(name=n) for n in "xy"))
    bundle = fruit_bundle(tmp_path, input=FeatureInput(fields=fields))

    found = bodies(bundle, np.array([np.nan, 1, 2], np.float32))

    decoded = decoder_of(bundle).decode(Payload(body_of(found["csv"]), "text/csv"))
    np.testing.assert_array_equal(decoded.rows, [[np.nan, 1, 2]])


def test_table_that_would_not_be_read_is_not_told(tmp_path: Path) -> None:
    fields = (FeatureField(name=" a "), *(FeatureField(name=n) for n in "xy"))
    bundle = fruit_bundle(tmp_path, input=FeatureInput(fields=fields))

    found = bodies(bundle, np.ones(3, np.float32))

    assert {"json", "json-in-order", "npy"} == set(found)


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_in_base64_is_read_back_as_it_was(tmp_path: Path, channels: int) -> None:
    bundle = picture_bundle(tmp_path, channels=channels)
    shape = (8, 8, 3) if channels == 3 else (8, 8)
    row = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)

    found = bodies(bundle, row)

    assert found["json-b64"].is_exact
    assert found["json-pixels"].is_exact


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((400, 400), id="takes too much"),
        pytest.param((1200, 1200), id="has too many pixels to be tried"),
    ],
)
def test_large_picture_is_told_with_fewer_pixels(tmp_path: Path, shape: tuple[int, int]) -> None:
    bundle = picture_bundle(tmp_path)
    row = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    decoder = create_decoder(bundle, InputLimits(100, row.size, len(row)))

    found = {each.form: each for each in bodies_of(row, bundle.manifest.input, decoder)}

    assert len(body_of(found["json-b64"])) < MOST_PICTURE_BYTES * 4 / 3 + 100
    assert not found["json-b64"].is_exact
    assert "json-pixels" not in found

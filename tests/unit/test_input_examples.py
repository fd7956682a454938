"""Rows told as what a caller would send."""

from pathlib import Path

import numpy as np
import pytest
from bundles import fruit_bundle, picture_bundle, review_bundle

from service.bundle import Bundle
from service.inputs import Decoder, InputLimits, Payload, create_decoder, instances_of
from service.inputs.examples import MOST_NUMBERS

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

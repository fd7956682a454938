import json
from pathlib import Path

import numpy as np
import pytest
from bundles import fruit_bundle, picture_bundle, review_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle import Bundle
from service.bundle.manifest import FeatureField, FeatureInput
from service.errors import InputInvalid
from service.inputs import InputLimits, Payload, create_decoder
from service.inputs.inference import InferenceReader

unhurried = settings(deadline=None)  # a machine that is busy is no defect
LIMITS = InputLimits(1_000_000, 1_000_000, 10_000)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "features": fruit_bundle(folder),
        "image": picture_bundle(folder),
        "text": review_bundle(folder),
    }


@pytest.fixture(scope="module")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fruit_bundle(Path(tmp_path_factory.mktemp("fruit")))


def reader_of(bundle: Bundle, head_length: int | None = None, coding: str = "") -> InferenceReader:
    return InferenceReader(
        bundle.manifest,
        create_decoder(bundle, LIMITS),
        head_length=None if head_length is None else str(head_length),
        coding=coding,
        max_bytes=10_000_000,
    )


@pytest.fixture(scope="module")
def soft_fruit(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Fruits of which `firm` may be missing."""
    names = ("sweet", "sour", "firm")
    fields = tuple(FeatureField(name=name, nullable=name == "firm") for name in names)
    folder = Path(tmp_path_factory.mktemp("soft"))
    return fruit_bundle(folder, input=FeatureInput(fields=fields))


def request_of(values: list[float | None], datatype: str) -> Payload:
    tensor = {"name": "rows", "shape": [1, 3], "datatype": datatype, "data": values}
    return Payload(json.dumps({"inputs": [tensor]}).encode(), "application/json")


@pytest.mark.parametrize(
    ("kind", "body", "head_length", "coding", "is_light"),
    [
        pytest.param("features", b"x" * 60_000, None, "", True, id="small"),
        pytest.param("features", b"x" * 70_000, 100, "", False, id="many features"),
        pytest.param("features", b"x", None, "gzip", False, id="compressed"),
        pytest.param("image", b"x" * 900_000, 100, "", True, id="pixels are only copied"),
        pytest.param("image", b"x" * 900_000, 90_000, "", False, id="large head"),
        pytest.param("image", b"x" * 900_000, None, "", False, id="pixels in json"),
        pytest.param("image", b'"BYTES"', 7, "", False, id="picture"),
        pytest.param("image", b'"\\u0042YTES"', 12, "", False, id="picture in disguise"),
        pytest.param("text", b'"BYTES"', None, "", True, id="text"),
    ],
)
def test_what_is_heavy_is_known_before_it_is_read(
    bundles: dict[str, Bundle],
    kind: str,
    body: bytes,
    head_length: int | None,
    coding: str,
    *,
    is_light: bool,
) -> None:
    reader = reader_of(bundles[kind], head_length, coding)

    assert reader.is_light(Payload(body, "")) is is_light


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_null_is_a_missing_value_where_the_field_may_be_missing(
    soft_fruit: Bundle, datatype: str
) -> None:
    found = reader_of(soft_fruit).decode(request_of([1, 2, None], datatype)).decoded

    assert found.rows[0, :2].tolist() == [1, 2]
    assert np.isnan(found.rows[0, 2])


def test_null_is_refused_where_the_field_must_be_there(fruit: Bundle, soft_fruit: Bundle) -> None:
    found = reader_of(soft_fruit).decode(request_of([1, None, 3], "FP32")).decoded

    assert str(found.errors[0]) == "rows[0].sour: expected a finite number, got nan"
    with pytest.raises(InputInvalid, match=r"data\[1\]: expected elements of FP32, got null"):
        reader_of(fruit).decode(request_of([1, None, 3], "FP32"))
    with pytest.raises(InputInvalid, match=r"data\[2\]: expected elements of INT64, got null"):
        reader_of(soft_fruit).decode(request_of([1, 2, None], "INT64"))


@unhurried
@given(value=st.integers(-(1 << 26), 1 << 26))
def test_whole_number_is_taken_only_if_it_stays_what_it_is(fruit: Bundle, value: int) -> None:
    try:
        asked = reader_of(fruit).decode(request_of([0, 0, value], "INT64"))
    except InputInvalid:
        assert abs(value) > 1 << 24  # some of these would fit: the bound is simple, not tight
        return

    assert int(asked.decoded.rows[0, 2]) == value


@unhurried
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_double_is_rounded_as_a_number_of_json_is_or_refused(fruit: Bundle, value: float) -> None:
    with np.errstate(over="ignore"):
        nearest = float(np.float32(value))
    try:
        asked = reader_of(fruit).decode(request_of([0, 0, value], "FP64"))
    except InputInvalid:
        assert np.isinf(nearest)
        return

    found = asked.decoded
    if not found.errors:
        assert float(found.rows[0, 2]) == nearest


@unhurried
@given(content=st.binary(max_size=80), length=st.none() | st.integers(0, 90))
def test_any_body_is_rows_or_a_client_error(
    fruit: Bundle, content: bytes, length: int | None
) -> None:
    try:
        asked = reader_of(fruit, length).decode(Payload(content, ""))
    except InputInvalid:
        return

    assert asked.decoded.rows.shape[1:] == (3,)

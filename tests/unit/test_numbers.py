import base64
import json
import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from service.errors import InputInvalid, PayloadTooLarge
from service.inputs.numbers import (
    MOST_LEVELS,
    decode_base64,
    object_bytes,
    quick_rows,
    read_instances,
    read_json,
    read_numbers,
    shown,
)

SHAPE = (2, 3)
MAX_ROWS = 4
ROW = [[1, 2, 3], [4, 5, 6]]


def body(*instances: object) -> bytes:
    return json.dumps({"instances": instances}).encode()


def refusal(content: bytes) -> str:
    with pytest.raises(InputInvalid) as caught:
        read_instances(content)
    return str(caught.value)


@given(
    arrays(
        np.float64,
        array_shapes(min_dims=3, max_dims=3, max_side=4),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_quick_path_reads_what_json_says(values: NDArray[np.float64]) -> None:
    content = json.dumps({"instances": values.tolist()}).encode()

    rows = quick_rows(content, values.shape[1:], MAX_ROWS)

    assert rows is not None
    np.testing.assert_array_equal(rows, values)


def test_quick_path_ignores_blanks() -> None:
    content = json.dumps({"instances": [ROW]}, indent=3).encode()

    assert quick_rows(content, SHAPE, MAX_ROWS) is not None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(body([[1, 2, 3], [4, 5]]), id="short list"),
        pytest.param(body([[1, 2], [3, 4], [5, 6]]), id="transposed"),
        pytest.param(body([1, 2, 3, 4, 5, 6]), id="flat"),
        pytest.param(body([[1, 2, 3, 4], [5, 6]]), id="ragged with the right count"),
        pytest.param(body([[1, 2, [3]], [4, 5, 6]]), id="number in a list"),
        pytest.param(body([[1, 2, True], [4, 5, 6]]), id="true"),
        pytest.param(body([[1, 2, None], [4, 5, 6]]), id="null"),
        pytest.param(body([[1, 2, "3"], [4, 5, 6]]), id="string"),
        pytest.param(body([[1, 2, math.nan], [4, 5, 6]]), id="NaN"),
        pytest.param(body(), id="no rows"),
        pytest.param(b'{"instances": [[[1,2,3],[4,5,6]]], "x": 1}', id="another key"),
        pytest.param(b'{"instancees": [[[1,2,3],[4,5,6]]]}', id="misspelled key"),
        pytest.param(b"[[[1,2,3],[4,5,6]]]", id="bare list"),
        pytest.param(b'{"instances": 3}', id="number"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
    ],
)
def test_quick_path_leaves_everything_doubtful_to_the_careful_one(content: bytes) -> None:
    assert quick_rows(content, SHAPE, MAX_ROWS) is None


@given(st.binary(max_size=60))
def test_quick_path_takes_no_rubbish(content: bytes) -> None:
    assert quick_rows(content, SHAPE, MAX_ROWS) is None


def test_careful_path_reads_nan_so_that_its_place_can_be_named() -> None:
    assert math.isnan(read_instances(b'{"instances": [NaN]}')[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "body: expected JSON", id="nothing"),
        pytest.param(b"{", "body: expected JSON", id="cut off"),
        pytest.param(b"3", 'expected an object {"instances": [...]}, got 3', id="number"),
        pytest.param(b"{}", 'expected the key "instances"', id="no key"),
        pytest.param(b'{"instances": [1], "x": 2}', "also 'x'", id="another key"),
        pytest.param(b'{"instances": "abc"}', "expected a list of rows", id="no list"),
    ],
)
def test_body_of_another_form_is_refused(content: bytes, expected: str) -> None:
    assert expected in refusal(content)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param([[1, 2, 3]], "x: expected a list of 2 lists, got a list of 1", id="short"),
        pytest.param([[1, 2, 3], 4], "x[1]: expected a list of 3 numbers, got 4", id="no list"),
        pytest.param([[1, 2, 3], [4, 5]], "x[1]: expected a list of 3", id="ragged"),
        pytest.param([[1, 2, None], [4, 5, 6]], "x[0][2]: expected a number, got null", id="null"),
        pytest.param([[1, 2, True], [4, 5, 6]], "x[0][2]: expected a number, got true", id="true"),
        pytest.param([[1, 2, "a"], [4, 5, 6]], "x[0][2]: expected a number, got the", id="text"),
        pytest.param(
            [[1, 2, math.inf], [4, 5, 6]], "x[0][2]: expected a finite number", id="infinity"
        ),
        pytest.param([[1, 2, 10**400], [4, 5, 6]], "x[0][2]: expected a finite number", id="huge"),
    ],
)
def test_first_wrong_place_is_named(value: object, expected: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        read_numbers(value, SHAPE, "x")

    assert expected in str(caught.value)


def test_long_values_are_never_shown_whole() -> None:
    assert len(shown("x" * 10_000)) < 100
    assert len(shown([0] * 10_000)) < 100
    assert len(shown(10**5000)) < 100


def test_quick_path_takes_no_more_rows_than_a_request_may_have() -> None:
    assert quick_rows(body(*[ROW] * MAX_ROWS), SHAPE, MAX_ROWS) is not None
    assert quick_rows(body(*[ROW] * (MAX_ROWS + 1)), SHAPE, MAX_ROWS) is None


def test_many_small_rows_cost_no_memory_of_large_ones() -> None:
    content = body(*[1] * 100_000)
    tracemalloc.start()

    assert quick_rows(content, (1000, 1000), max_rows=1_000_000) is None
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 10 * len(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param('{"instances": ["a"]}'.encode("utf-16"), "UTF-8", id="UTF-16"),
        pytest.param(b'{"instances": ["\\ud800"]}', "surrogate", id="half a pair"),
    ],
)
def test_text_that_is_not_utf_8_is_refused(content: bytes, expected: str) -> None:
    assert expected in refusal(content)


@pytest.mark.parametrize("filling", [b"", b"NaN"])
def test_json_that_is_nested_too_deep_is_refused_by_its_cap(filling: bytes) -> None:
    for levels in (MOST_LEVELS + 1, 100_000):
        with pytest.raises(PayloadTooLarge, match="cap of 1,024 levels"):
            read_json(b"[" * levels + filling + b"]" * levels)


@pytest.mark.parametrize(
    "element",
    [b"[]", b"[" * 900 + b"]" * 900, b"{}", b'{"":{}}', b'"ab"', b"[7]", b"[],NaN"],
    ids=["lists", "lists in lists", "objects", "objects in objects", "texts", "rows", "NaN"],
)
def test_json_whose_values_take_too_much_memory_is_refused_before_there_are_any(
    element: bytes,
) -> None:
    body = b"[" + b",".join([element] * (8_388_608 // (len(element) + 1))) + b"]"
    tracemalloc.start()

    with pytest.raises(PayloadTooLarge, match="cap of 134,217,728 object bytes"):
        read_json(body)

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100_000


@pytest.mark.parametrize(
    "element",
    [b"[]", b"[[[[]]]]", b"{}", b'{"a":1}', b'"ab"', b"[1,2,300]", b"1.5", b"300,", b"1"],
    ids=str,
)
def test_values_take_no_more_memory_than_was_estimated(element: bytes) -> None:
    body = b"[" + b",".join([element.rstrip(b",")] * 10_000) + b"]"
    estimated_bytes = object_bytes(body)
    tracemalloc.start()

    values = json.loads(body)

    taken_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(values) == 10_000
    assert taken_bytes <= estimated_bytes


@pytest.mark.parametrize("before", [b"[", b"[NaN, "])
def test_number_of_too_many_digits_is_refused_by_its_cap(before: bytes) -> None:
    with pytest.raises(PayloadTooLarge, match="cap of 4,300 digits"):
        read_json(before + b"1" * 5000 + b"]")


URL_SAFE = bytes(range(248, 256)) * 3 + b"?>"
"""In base64 it has both characters in which the alphabets differ."""


@pytest.mark.parametrize("length", [23, 24, 25])
@pytest.mark.parametrize(
    "start", ["", "data:;base64,", "DATA:image/png;charset=x;Base64,", "data:image/png;base64,\n"]
)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", ["=", ""])
def test_base64_of_every_encoder_is_read(
    length: int, start: str, encode: Callable[[bytes], bytes], padding: str
) -> None:
    content = URL_SAFE[-length:]
    text = encode(content).decode()
    text = text if padding else text.rstrip("=")

    assert decode_base64(start + text, "x") == content
    assert decode_base64(start + "\r\n".join([text[:8], text[8:]]), "x") == content


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("?", "expected base64, got the string '?'", id="another character"),
        pytest.param("AAAAA", "expected base64", id="one character too many"),
        pytest.param("AA=", "expected base64", id="half of the padding"),
        pytest.param("AAA==", "expected base64", id="too much padding"),
        pytest.param("AA==AA==", "expected base64", id="two texts"),
        pytest.param("A-A/", "expected base64", id="both alphabets"),
        pytest.param("data:text/plain,good", "bare or as data:<media type>;base64,", id="percent"),
        pytest.param("data:AAAA", "bare or as data:<media type>;base64,", id="no comma"),
        pytest.param("https://a.b/c.png", "expected base64, got the string 'https", id="address"),
    ],
)
def test_what_is_no_base64_is_refused(text: str, expected: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        decode_base64(text, "x")

    assert expected in str(caught.value)

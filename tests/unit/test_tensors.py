import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import InputInvalid
from service.inputs.tensors import read_npy

SHAPE = (2, 3)


def npy(array: NDArray[np.generic], *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64", ">f4", "f2"])
def test_rows_of_any_number_type_are_read(dtype: str) -> None:
    array = np.arange(24).reshape(4, 2, 3).astype(dtype)

    np.testing.assert_array_equal(read_npy(npy(array), SHAPE), array)


def test_truth_is_any_byte_but_zero() -> None:
    content = npy(np.array([[True, False, True], [False] * 3])).replace(b"\1\0\1", b"\1\0\xff")

    assert read_npy(content, SHAPE).astype(float).tolist() == [[[1, 0, 1], [0, 0, 0]]]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (1, 2, 3), (1, 2, 3, 1)])
def test_one_row_may_come_bare_or_with_an_axis_of_one_channel(shape: tuple[int, ...]) -> None:
    array = np.arange(6.0).reshape(shape)

    assert read_npy(npy(array), SHAPE).tolist() == np.arange(6.0).reshape(1, 2, 3).tolist()


def test_fortran_order_is_understood() -> None:
    array = np.asfortranarray(np.arange(24).reshape(4, 2, 3))

    np.testing.assert_array_equal(read_npy(npy(array), SHAPE), array)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "an .npy file", id="nothing"),
        pytest.param(b"\x93NUMPY\x03\x00", "an .npy file", id="version 3"),
        pytest.param(npy(np.zeros((4, 3, 2))), "shape (rows, 2, 3)", id="another shape"),
        pytest.param(npy(np.zeros((0, 2, 3))), "shape (rows, 2, 3)", id="no rows"),
        pytest.param(
            npy(np.zeros((1, 2, 3), np.uint8)).replace(b"(1, 2, 3), ", b"(True,2,3),"),
            "shape of whole numbers",
            id="true as a length",
        ),
        pytest.param(npy(np.array(1.0)), "shape (rows, 2, 3)", id="no axis"),
        pytest.param(npy(np.zeros((1, 2, 3), complex)), "array of numbers", id="complex"),
        pytest.param(npy(np.full((1, 2, 3), "a")), "array of numbers", id="text"),
        pytest.param(npy(np.zeros((1, 2, 3)))[:-1], "bytes of data", id="cut off"),
        pytest.param(npy(np.zeros((1, 2, 3))) + b"x", "bytes of data", id="too long"),
    ],
)
def test_anything_else_is_refused(content: bytes, expected: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        read_npy(content, SHAPE)

    assert expected in str(caught.value)


def test_pickled_array_is_refused_unopened() -> None:
    content = npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(InputInvalid, match="array of numbers"):
        read_npy(content, SHAPE)


def test_nothing_is_allocated_on_the_word_of_the_header() -> None:
    content = npy(np.zeros((1, 2, 3))).replace(b"(1, 2, 3)", b"(10**15,2,3)"[:9])
    lying = npy(np.zeros((1, 2, 3))).replace(b"(1, 2, 3), ", b"(9999999999, 2, 3)"[:11])

    for each in (content, lying):
        with pytest.raises(InputInvalid):
            read_npy(each, SHAPE)


@given(st.binary(max_size=200))
def test_rubbish_is_refused(content: bytes) -> None:
    with pytest.raises(InputInvalid):
        read_npy(b"\x93NUMPY\x01\x00" + content, SHAPE)

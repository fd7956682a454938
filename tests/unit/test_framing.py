import contextlib
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from service.errors import InputInvalid
from service.inputs.framing import (
    DATATYPE_OF,
    DATATYPES,
    Reply,
    pack_texts,
    read_head,
    read_tensors,
    split,
    unpack_texts,
    write_tensors,
)

unhurried = settings(deadline=None)  # a machine that is busy is no defect
# Objects that look like tensors, so that chance reaches more than the first check.
FIELDS: dict[str, Any] = {
    "name": st.sampled_from(["rows", "", 7]),
    "datatype": st.sampled_from([*DATATYPES, "BYTES", "BF16", None]),
    "shape": st.lists(st.integers(-2, 4) | st.just(1 << 63), max_size=4),
    "parameters": st.none() | st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40)}),
}
TENSORS = st.fixed_dictionaries(
    FIELDS, optional={"data": st.lists(st.integers() | st.text() | st.lists(st.integers()))}
)


def framed(tensor: dict[str, object], *contents: bytes) -> tuple[bytes, str]:
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + b"".join(contents), str(len(head))


@unhurried
@given(
    arrays(
        st.sampled_from(list(DATATYPES.values())),
        array_shapes(max_dims=4, max_side=4),
    )
)
def test_array_comes_back_as_it_went_out(values: NDArray[Any]) -> None:
    declared, behind = write_tensors([Reply("rows", values, values.shape, is_binary=True)])

    (tensor,) = read_tensors(declared, memoryview(behind))

    assert tensor.datatype == DATATYPE_OF[values.dtype]
    assert isinstance(tensor.values, np.ndarray)
    assert tensor.values.shape == values.shape
    assert tensor.values.tobytes() == values.tobytes()


@unhurried
@given(st.lists(st.binary(max_size=20)))
def test_texts_come_back_as_they_went_out(texts: list[bytes]) -> None:
    assert unpack_texts(memoryview(pack_texts(texts)), len(texts), "data") == texts


@unhurried
@given(st.binary(max_size=40), st.integers(0, 1 << 70))
def test_any_bytes_are_texts_to_the_last_byte_or_refused(content: bytes, number: int) -> None:
    try:
        texts = unpack_texts(memoryview(content), number, "data")
    except InputInvalid:
        return

    assert pack_texts(texts) == content
    assert len(texts) == number


@unhurried
@given(st.lists(TENSORS, max_size=3), st.binary(max_size=40))
def test_any_tensors_account_for_every_byte_or_are_refused(
    declared: list[dict[str, Any]], behind: bytes
) -> None:
    try:
        tensors = read_tensors(declared, memoryview(behind))
    except InputInvalid:
        return

    sizes = [
        each["parameters"]["binary_data_size"]
        for each in declared
        if each["parameters"] is not None
    ]
    assert sum(sizes) == len(behind)
    for tensor in tensors:
        values = tensor.values
        assert (len(values) if isinstance(values, list) else values.size) == math.prod(tensor.shape)


@unhurried
@given(st.binary(max_size=60), st.none() | st.text(max_size=5) | st.integers(-3, 99).map(str))
def test_any_body_is_cut_in_two_or_refused(body: bytes, length: str | None) -> None:
    try:
        head, behind = split(body, length)
    except InputInvalid:
        return

    assert head + behind == body


@unhurried
@given(st.binary(max_size=60))
def test_any_head_is_an_object_or_refused(head: bytes) -> None:
    with contextlib.suppress(InputInvalid):
        assert isinstance(read_head(head), dict)


def test_tensors_lie_behind_the_head_in_the_order_it_lists_them() -> None:
    first, second = np.arange(3, dtype=np.uint8), np.arange(2, dtype=np.float32)

    declared, behind = write_tensors(
        [Reply("a", first, (3,), is_binary=True), Reply("b", second, (2,), is_binary=True)]
    )

    assert behind == first.tobytes() + second.tobytes()
    assert [tensor.name for tensor in read_tensors(declared, memoryview(behind))] == ["a", "b"]


def test_array_is_a_view_of_the_body_and_no_copy() -> None:
    body, length = framed(
        {
            "name": "rows",
            "datatype": "UINT8",
            "shape": [4],
            "parameters": {"binary_data_size": 4},
        },
        b"\x01\x02\x03\x04",
    )
    head, behind = split(body, length)

    (tensor,) = read_tensors(read_head(head)["inputs"], behind)

    assert isinstance(tensor.values, np.ndarray)
    assert not tensor.values.flags.owndata
    assert not tensor.values.flags.writeable


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]], ids=["flat", "nested"])
def test_data_may_be_flat_or_nested(data: object) -> None:
    declared = [{"name": "rows", "datatype": "INT32", "shape": [2, 2], "data": data}]

    (tensor,) = read_tensors(declared, memoryview(b""))

    assert isinstance(tensor.values, np.ndarray)
    assert tensor.values.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        pytest.param("UINT8", [256], "one out of range", id="out of range"),
        pytest.param("INT8", [-129], "one out of range", id="below the range"),
        pytest.param("INT32", [1.0], "data[0]: expected elements of INT32, got 1.0", id="decimal"),
        pytest.param("FP32", [True], "got true", id="true as a number"),
        pytest.param("FP32", ["1"], "got the string '1'", id="text as a number"),
        pytest.param("FP32", [None], "got null", id="null"),
        pytest.param("FP16", [1.0], "FP16 in binary form", id="half precision"),
        pytest.param("BOOL", [1], "got 1", id="number as truth"),
        pytest.param("BYTES", [1], "expected texts, got 1", id="number as text"),
        pytest.param(
            "FP32", [[1.0, 2.0]], "elements of FP32, got a list of 2", id="nested too deep"
        ),
        pytest.param("FP32", [], "1 elements for shape [1], got 0", id="empty"),
        pytest.param("FP32", {}, "expected a list", id="object"),
    ],
)
def test_data_of_another_type_is_refused(datatype: str, data: object, expected: str) -> None:
    declared = [{"name": "rows", "datatype": datatype, "shape": [1], "data": data}]

    with pytest.raises(InputInvalid) as caught:
        read_tensors(declared, memoryview(b""))

    assert expected in str(caught.value)


def test_length_of_a_text_beyond_the_end_is_refused() -> None:
    content = struct.pack("<I", 5) + b"abcd"

    with pytest.raises(InputInvalid, match="at most the 4 bytes that are left, got a length of 5"):
        unpack_texts(memoryview(content), 1, "data")

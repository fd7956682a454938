from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.runtimes.wire import (
    MAX_DEPTH,
    Field,
    Message,
    WireInvalid,
    fields,
    messages,
    text,
)

unhurried = settings(deadline=None)  # a machine that is busy is no defect
NESTED = {"Doll": {1: "Doll"}}


def doll(inside: bytes) -> bytes:
    return b"\x0a" + varint(len(inside)) + inside


def varint(number: int) -> bytes:
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])


def dolls(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = doll(content)
    return content


def read(content: bytes) -> list[Field]:
    return list(fields(memoryview(content)))


def test_fields_come_in_their_order_with_number_and_content() -> None:
    content = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1d\x01\x02\x03\x04" + b"\x21" + b"8" * 8

    found = read(content)

    assert [
        (number, value if isinstance(value, int) else bytes(value)) for number, value in found
    ] == [(1, 150), (2, b"hi"), (3, b"\x01\x02\x03\x04"), (4, b"8" * 8)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x0a", id="no length"),
        pytest.param(b"\x0a\x05abc", id="too short"),
        pytest.param(b"\x0d\x00", id="a cut number"),
        pytest.param(b"\x08", id="no number"),
        pytest.param(b"\x08" + b"\xff" * 10, id="a number without end"),
        pytest.param(b"\x08" + b"\xff" * 9 + b"\x7f", id="a number of more than 64 bits"),
        pytest.param(b"\x00\x01", id="field 0"),
        pytest.param(b"\x0b\x0c", id="a group"),
        pytest.param(b"\x0e\x00", id="type 6"),
        pytest.param(varint(2**32 + 8) + b"\x00", id="a tag of more than 32 bits"),
    ],
)
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(WireInvalid):
        read(content)


@unhurried
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    def everything() -> Iterator[object]:
        yield from messages(content, "Doll", NESTED)

    try:
        found = list(everything())
    except WireInvalid:
        return
    assert found


def test_messages_are_found_at_every_depth() -> None:
    found = list(messages(dolls(MAX_DEPTH), "Doll", NESTED))

    assert [message.depth for message in found] == list(range(MAX_DEPTH + 1))


def test_messages_that_are_nested_too_deep_are_refused() -> None:
    with pytest.raises(WireInvalid, match="deeper than 100"):
        list(messages(dolls(MAX_DEPTH + 1), "Doll", NESTED))


def test_number_in_place_of_a_message_is_refused() -> None:
    with pytest.raises(WireInvalid, match="field 1 of Doll is a number"):
        list(messages(b"\x08\x01", "Doll", NESTED))


def message(content: bytes) -> Message:
    return Message("Doll", memoryview(content), 0)


def test_text_of_a_field_that_is_not_there_is_empty() -> None:
    assert text(message(b"\x0a\x01x"), 2) == ""
    assert text(message(b"\x0a\x01x"), 1) == "x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x0a\x01x\x0a\x01y", "field 1 of Doll is there 2 times"),
        (b"\x0a\x01\xff", "field 1 of Doll is no text"),
        (b"\x08\x01", "field 1 of Doll is a number"),
    ],
)
def test_text_that_readers_may_disagree_about_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(WireInvalid, match=said):
        text(message(content), 1)

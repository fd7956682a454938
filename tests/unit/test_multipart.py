import pytest

from service.errors import InputInvalid, PayloadTooLarge
from service.inputs.multipart import MAX_PART_HEADER_BYTES, MAX_PART_HEADERS, read_parts
from service.inputs.payload import Payload

NAMED = b'Content-Disposition: form-data; name="image"\r\n'


def form(*heads: bytes) -> Payload:
    body = b"".join(b"--b\r\n%b\r\nx\r\n" % head for head in heads) + b"--b--\r\n"
    return Payload(body, "multipart/form-data", {"boundary": "b"})


def test_contents_of_all_parts_come_in_order() -> None:
    assert read_parts(form(NAMED, NAMED), "image", 2) == [b"x", b"x"]


def test_more_parts_than_rows_are_refused_by_their_cap() -> None:
    with pytest.raises(PayloadTooLarge, match="cap of 2 parts"):
        read_parts(form(NAMED, NAMED, NAMED), "image", 2)


def test_part_of_too_many_headers_is_refused_by_their_cap() -> None:
    head = NAMED + b"X: 1\r\n" * (MAX_PART_HEADERS - 1)
    assert read_parts(form(head, head), "image", 2) == [b"x", b"x"]

    with pytest.raises(PayloadTooLarge, match="cap of 8 headers"):
        read_parts(form(head + b"X: 1\r\n"), "image", 2)


@pytest.mark.parametrize("header", [b"%b: 1\r\n", b"X: %b\r\n"], ids=["name", "value"])
def test_header_of_a_part_that_is_too_long_is_refused_by_its_cap(header: bytes) -> None:
    most = NAMED + header % (b"x" * MAX_PART_HEADER_BYTES)
    assert read_parts(form(most), "image", 1) == [b"x"]

    with pytest.raises(PayloadTooLarge, match="cap of 4,096 header bytes"):
        read_parts(form(NAMED + header % (b"x" * (MAX_PART_HEADER_BYTES + 1))), "image", 1)


@pytest.mark.parametrize("length", [0, 71])
def test_boundary_of_a_hostile_length_is_refused(length: int) -> None:
    payload = Payload(b"", "multipart/form-data", {"boundary": "b" * length})

    with pytest.raises(InputInvalid, match="a boundary of 1-70 characters"):
        read_parts(payload, "image", 1)

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputInvalid, MediaTypeUnsupported, PayloadTooLarge
from service.inputs.compression import deflated, inflated

unhurried = settings(deadline=None)  # a machine that is busy is no defect
CAP_BYTES = 1000


@unhurried
@given(st.binary(max_size=CAP_BYTES), st.sampled_from(["gzip", "deflate"]))
def test_content_comes_back_as_it_went_out(content: bytes, coding: str) -> None:
    assert inflated(deflated(content, coding), coding, CAP_BYTES) == content


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("gzip", gzip.compress(b"a" * 500), id="gzip"),
        pytest.param("deflate", zlib.compress(b"a" * 500), id="deflate"),
    ],
)
def test_what_others_compress_is_read(coding: str, body: bytes) -> None:
    assert inflated(body, coding, CAP_BYTES) == b"a" * 500


@pytest.mark.parametrize("coding", ["", "identity"])
def test_body_that_is_not_compressed_is_left_alone(coding: str) -> None:
    assert inflated(b"abc", coding, CAP_BYTES) == b"abc"


def test_bomb_is_given_up_at_the_cap() -> None:
    bomb = gzip.compress(bytes(50_000_000))

    with pytest.raises(PayloadTooLarge, match="cap of 1,000 bytes"):
        inflated(bomb, "gzip", CAP_BYTES)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"rubbish", "got others", id="not compressed"),
        pytest.param(gzip.compress(b"abc")[:-4], "only their beginning", id="cut off"),
        pytest.param(gzip.compress(b"abc") + b"x", "1 bytes behind it", id="too long"),
        pytest.param(b"", "only their beginning", id="empty"),
    ],
)
def test_damaged_body_is_refused(body: bytes, expected: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        inflated(body, "gzip", CAP_BYTES)

    assert expected in str(caught.value)


def test_other_codings_are_refused_with_those_there_are() -> None:
    with pytest.raises(MediaTypeUnsupported, match="expected gzip or deflate, got 'br'"):
        inflated(b"abc", "br", CAP_BYTES)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_body_that_stands_for_too_many_times_its_size_is_given_up(coding: str) -> None:
    bomb = deflated(bytes(1_000_000), coding)

    with pytest.raises(PayloadTooLarge, match="cap of 50 times its size"):
        inflated(bomb, coding, 2_000_000, 50)

    assert inflated(bomb, coding, 2_000_000, 500) == bytes(1_000_000)


def test_small_result_may_be_any_number_of_times_the_size_of_its_body() -> None:
    assert inflated(deflated(bytes(65_536), "gzip"), "gzip", 100_000, 2) == bytes(65_536)

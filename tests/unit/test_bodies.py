import pytest

from service.api.bodies import MOST_CONTENT_TYPE_BYTES, parse_content_type
from service.errors import InputInvalid


@pytest.mark.parametrize(
    ("header", "media_type", "parameters"),
    [
        (b"", "", {}),
        (b"application/json", "application/json", {}),
        (b" Text/CSV ", "text/csv", {}),
        (b"text/plain; charset=UTF-8", "text/plain", {"charset": "UTF-8"}),
        (b'multipart/form-data; Boundary="a b"', "multipart/form-data", {"boundary": "a b"}),
        (b"rubbish;;;", "rubbish", {}),
        (b"multipart/form-data; boundary*=utf-8''abc", "multipart/form-data", {"boundary": "abc"}),
    ],
)
def test_content_type_is_a_media_type_and_its_parameters(
    header: bytes, media_type: str, parameters: dict[str, str]
) -> None:
    found, more = parse_content_type(header)

    assert found == media_type
    assert parameters.items() <= more.items()


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"text/csv; a*=%00'b'c", id="a character set with a zero byte"),
        pytest.param(b"text/csv; a*=undefined''c", id="a character set that nothing is in"),
        pytest.param(b"text/csv; a*=idna''%ff", id="a character set with rules of its own"),
        pytest.param(b'a;"' + b";" * MOST_CONTENT_TYPE_BYTES, id="more than is read"),
    ],
)
def test_content_type_that_cannot_be_read_is_refused(header: bytes) -> None:
    with pytest.raises(InputInvalid, match="Content-Type"):
        parse_content_type(header)
